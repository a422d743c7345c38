import Base
import CLinux
import Glibc
import SystemPackage

/// The epoll backend, for when io_uring is blocked: an operation waits until its descriptor is
/// ready, and then makes a system call that does not wait. Every supported kernel has epoll.
///
/// A descriptor is armed for one event at a time, and each wait arms it again (EPOLLONESHOT):
/// c-ares and workers also close descriptors, so only the kernel knows whether a number still
/// refers to the same file. A socket owns its descriptor exclusively: while only a receive waits,
/// it stays armed until an event arrives for which nothing waits.
final class Epoll {
    /// A descriptor, by its number.
    private struct Watch {
        /// The operations that wait for it.
        var waiting: [OperationTag] = []
        /// Counts the files that have had the number, to distinguish events of the present file
        /// from late events of an earlier one that a child process holds open.
        var generation: UInt32 = 0
        /// The socket for whose input the descriptor stays armed; 0 if it does not.
        var socket: SocketID = 0
    }

    private struct Timer {
        var end: Instant
        var tag: OperationTag

        func comes(before other: Timer) -> Bool {
            (end.nanoseconds, tag.rawValue) < (other.end.nanoseconds, other.tag.rawValue)
        }
    }

    private let descriptor: Descriptor
    private let wakeDescriptor: Int32
    private var watches: [Watch] = []
    /// The waiting operations, by the index of their slot.
    private var operations: [Operation?] = []
    /// In the order of their ends. A new one usually ends last, so few others are moved.
    private var timers: [Timer] = []
    private let events = UnsafeMutablePointer<epoll_event>.allocate(
        capacity: Limit.completionsPerDrain)
    private var eventCount = 0

    /// The event of `wakeDescriptor`, an eventfd that is read whenever it is ready.
    private static let wakeKey = UInt64.max

    init(wakeDescriptor: Int32) throws(Errno) {
        let fd = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard fd >= 0 else { throw .current }
        descriptor = Descriptor(owning: fd)
        self.wakeDescriptor = wakeDescriptor
        var event = epoll_event()
        event.events = PollEvents.input.rawValue
        event.data.u64 = Self.wakeKey
        guard epoll_ctl(fd, EPOLL_CTL_ADD, wakeDescriptor, &event) == 0 else { throw .current }
    }

    deinit { events.deallocate() }

    // MARK: Operations

    /// Begins an operation. Returns its result if it is available at once, nil if the operation
    /// waits.
    func begin(_ operation: Operation, _ tag: OperationTag) -> Int32? {
        guard let (fd, interest) = operation.awaited else {
            insertTimer(of: operation, tag)
            keep(operation, tag)
            return nil
        }
        if let result = operation.start() { return result }
        while watches.count <= Int(fd) { watches.append(Watch()) }
        watches[Int(fd)].waiting.append(tag)
        keep(operation, tag)
        let result = arm(fd)
        if result == 0 { return nil }
        forget(tag, waitingFor: fd)
        // Files that epoll does not support, such as regular files, are always ready (poll(2)).
        return result == -EPERM ? operation.attempt(interest) ?? result : result
    }

    /// Forgets an operation, which must be waiting.
    func cancel(_ tag: OperationTag) {
        guard let operation = operation(of: tag) else {
            preconditionFailure("an operation that waits is kept")
        }
        if let (fd, _) = operation.awaited {
            forget(tag, waitingFor: fd)
        } else {
            removeTimer(of: operation, tag)
            operations[Int(tag.index)] = nil
        }
    }

    private func operation(of tag: OperationTag) -> Operation? {
        Int(tag.index) < operations.count ? operations[Int(tag.index)] : nil
    }

    private func keep(_ operation: Operation, _ tag: OperationTag) {
        while operations.count <= Int(tag.index) { operations.append(nil) }
        operations[Int(tag.index)] = operation
    }

    private func forget(_ tag: OperationTag, waitingFor fd: Int32) {
        operations[Int(tag.index)] = nil
        watches[Int(fd)].waiting.removeAll { $0 == tag }
    }

    /// Arms the descriptor for the next event that an operation waits for. Returns 0 or a negated
    /// errno.
    private func arm(_ fd: Int32) -> Int32 {
        let waiting = watches[Int(fd)].waiting
        var socket: SocketID = 0
        if waiting.count == 1, case .receive(_, _, let id)? = operation(of: waiting[0]) {
            if watches[Int(fd)].socket == id { return 0 }
            socket = id
        }
        watches[Int(fd)].socket = socket
        var interest: PollEvents = []
        for tag in waiting {
            if let awaited = operation(of: tag)?.awaited { interest.formUnion(awaited.events) }
        }
        var event = epoll_event()
        event.events = interest.rawValue | (socket == 0 ? EPOLLONESHOT.rawValue : 0)
        event.data.u64 = key(of: fd)
        if epoll_ctl(descriptor.rawValue, EPOLL_CTL_MOD, fd, &event) == 0 { return 0 }
        guard errno == ENOENT else { return -errno }
        watches[Int(fd)].generation &+= 1
        event.data.u64 = key(of: fd)
        return epoll_ctl(descriptor.rawValue, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno
    }

    /// Disarms a descriptor that stayed armed; it may still have one event.
    private func disarm(_ fd: Int32) {
        guard watches[Int(fd)].socket != 0 else { return }
        watches[Int(fd)].socket = 0
        var event = epoll_event()
        event.events = EPOLLONESHOT.rawValue
        event.data.u64 = key(of: fd)
        // It fails if the socket is closed, and then there is nothing to disarm.
        epoll_ctl(descriptor.rawValue, EPOLL_CTL_MOD, fd, &event)
    }

    private func key(of fd: Int32) -> UInt64 {
        UInt64(UInt32(fd)) | UInt64(watches[Int(fd)].generation) << 32
    }

    // MARK: The loop's turn

    /// Reads the events that have arrived; if told to, waits for an event or a timer.
    func wait(_ waiting: Bool) {
        let count = epoll_wait(
            descriptor.rawValue, events, Int32(Limit.completionsPerDrain),
            waiting ? timeToFirstTimer() : 0)
        precondition(count >= 0 || errno == EINTR, "epoll_wait: \(errno)")
        eventCount = max(0, Int(count))
    }

    /// Performs the operations that these events make possible.
    func reap(_ body: (OperationTag, Int32) -> Void) {
        for event in UnsafeBufferPointer(start: events, count: eventCount) {
            let key = event.data.u64
            if key == Self.wakeKey {
                takeWake()
                body(.wake, 0)
            } else {
                take(PollEvents(rawValue: event.events), of: key, body)
            }
        }
        eventCount = 0
        endTimers(body)
    }

    private func take(
        _ ready: PollEvents, of key: UInt64, _ body: (OperationTag, Int32) -> Void
    ) {
        let fd = Int32(truncatingIfNeeded: key)
        guard self.key(of: fd) == key else { return }
        if watches[Int(fd)].waiting.isEmpty { return disarm(fd) }
        var index = 0
        while index < watches[Int(fd)].waiting.count {
            let tag = watches[Int(fd)].waiting[index]
            if let result = operation(of: tag)?.attempt(ready) {
                forget(tag, waitingFor: fd)
                body(tag, result)
            } else {
                index += 1
            }
        }
        guard !watches[Int(fd)].waiting.isEmpty else { return }
        let result = arm(fd)
        precondition(result == 0, "the descriptor of an operation stays open: \(-result)")
    }

    private func takeWake() {
        var count: UInt64 = 0
        _ = Glibc.read(wakeDescriptor, &count, 8)
    }

    // MARK: Timers

    /// In milliseconds for epoll_wait(2), rounded up; -1 if there is none.
    private func timeToFirstTimer() -> Int32 {
        guard let first = timers.first else { return -1 }
        let now = RingActor.ring.now.nanoseconds
        let rest = first.end.nanoseconds > now ? first.end.nanoseconds - now : 0
        let (milliseconds, more) = rest.quotientAndRemainder(dividingBy: 1_000_000)
        return Int32(clamping: milliseconds + (more > 0 ? 1 : 0))
    }

    private func endTimers(_ body: (OperationTag, Int32) -> Void) {
        guard !timers.isEmpty else { return }
        let now = RingActor.ring.now
        let ended = timers.prefix { $0.end <= now }
        timers.removeFirst(ended.count)
        for timer in ended {
            operations[Int(timer.tag.index)] = nil
            body(timer.tag, -ETIME)
        }
    }

    private func insertTimer(of operation: Operation, _ tag: OperationTag) {
        guard case .timeout(let end) = operation else { return }
        let timer = Timer(end: end, tag: tag)
        timers.insert(timer, at: index(of: timer))
    }

    private func removeTimer(of operation: Operation, _ tag: OperationTag) {
        guard case .timeout(let end) = operation else { return }
        timers.remove(at: index(of: Timer(end: end, tag: tag)))
    }

    /// The position of a timer in the order.
    private func index(of timer: Timer) -> Int {
        var (low, high) = (0, timers.count)
        while low < high {
            let middle = (low + high) / 2
            if timers[middle].comes(before: timer) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

extension Operation {
    /// The descriptor and the events that it waits for; nil for a timeout.
    fileprivate var awaited: (descriptor: Int32, events: PollEvents)? {
        switch self {
        case .receive(let fd, _, _), .accept(let fd): (fd, .input)
        case .send(let fd, _), .connect(let fd, _, _): (fd, .output)
        case .poll(let fd, let events): (fd, events)
        case .timeout: nil
        }
    }

    /// Does everything that does not need to wait for the descriptor; returns the result if that
    /// was all.
    fileprivate func start() -> Int32? {
        switch self {
        case .connect(let fd, let address, let length):
            if Glibc.connect(fd, address, length) == 0 { return 0 }
            return errno == EINPROGRESS ? nil : -errno
        // A socket usually accepts what is sent.
        case .send: return attempt(.output)
        case .receive, .accept, .poll, .timeout: return nil
        }
    }

    /// The result, now that the descriptor is `ready` for something; nil if it must keep waiting.
    fileprivate func attempt(_ ready: PollEvents) -> Int32? {
        guard let awaited else { return nil }
        let found = ready.intersection(awaited.events.union([.error, .hangUp]))
        guard !found.isEmpty else { return nil }
        let result: Int
        switch self {
        case .receive(let fd, let room, _):
            result = recv(fd, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
        case .send(let fd, let bytes):
            result = Glibc.send(
                fd, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        case .accept(let fd): result = Int(CLinux_accept_now(fd))
        case .connect(let fd, _, _): return connectResult(fd)
        case .poll, .timeout: return Int32(found.rawValue)
        }
        if result >= 0 { return Int32(result) }
        switch errno {
        // Nothing arrives after a hang-up: on a unix socket that was shut down, accept(2) returns
        // EINVAL only to blocking callers.
        case EAGAIN: return found.contains(.hangUp) ? -EINVAL : nil
        case EINTR: return nil
        default: return -errno
        }
    }
}

private func connectResult(_ fd: Int32) -> Int32 {
    var error: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    guard getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 else { return -errno }
    return -error
}
