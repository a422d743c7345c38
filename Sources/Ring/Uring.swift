import Base
import CUring
import Glibc
import SystemPackage

/// The io_uring backend: the kernel performs the operations and reports their completion. Needs
/// Linux 5.7 for the features that `CUring_init` requests.
struct Uring {
    /// liburing's state of a ring.
    private let handle: OpaquePointer
    /// Whether it must be enabled on the thread that it will belong to.
    private let startsDisabled: Bool
    private let completions: UnsafeMutablePointer<CUring_completion>
    private let wakeCount: UnsafeMutablePointer<UInt64>

    /// Sets up a ring with the features of this kernel. It exists for the rest of the process's
    /// lifetime.
    ///
    /// Each step down in flags is a kernel generation; each step down in entries is for a small
    /// RLIMIT_MEMLOCK.
    init() throws(UringRefusal) {
        try Self.probe("io_uring_enter", CUring_probe_enter())
        try Self.probe("io_uring_register", CUring_probe_register())
        let generations = [
            CUring_SETUP_SINGLE_ISSUER | CUring_SETUP_DEFER_TASKRUN | CUring_SETUP_R_DISABLED,
            CUring_SETUP_COOP_TASKRUN,
            0,
        ]
        var result = -EINVAL
        for flags in generations {
            var entries = Limit.ringEntries
            repeat {
                var ring: OpaquePointer?
                result = CUring_init(&ring, entries, flags)
                if let ring {
                    handle = ring
                    startsDisabled = flags & CUring_SETUP_R_DISABLED != 0
                    completions = .allocate(capacity: Limit.completionsPerDrain)
                    wakeCount = .allocate(capacity: 1)
                    wakeCount.initialize(to: 0)
                    return
                }
                entries /= 2
            } while result == -ENOMEM && entries >= Limit.ringEntriesMin
            if result != -EINVAL { break }
        }
        throw UringRefusal(call: "io_uring_setup", errno: Errno(rawValue: -result))
    }

    private static func probe(_ call: String, _ result: Int32) throws(UringRefusal) {
        guard result == 0 else {
            throw UringRefusal(call: call, errno: Errno(rawValue: -result))
        }
    }

    /// Binds a SINGLE_ISSUER ring to the calling thread.
    func enable() {
        guard startsDisabled else { return }
        let result = CUring_enable(handle)
        precondition(result == 0, "io_uring_register: \(-result)")
    }

    /// Queues an operation's SQE; false when the queue is full. The slot has to stay in place until
    /// the next submission.
    func queue(
        _ operation: Operation, _ tag: OperationTag, _ slot: UnsafeMutablePointer<Slot>
    ) -> Bool {
        let tag = tag.rawValue
        switch operation {
        case .receive(let fd, let room, _):
            return CUring_recv(handle, tag, fd, room.baseAddress, room.count)
        case .send(let fd, let bytes):
            return CUring_send(handle, tag, fd, bytes.baseAddress, bytes.count)
        case .accept(let fd): return CUring_accept(handle, tag, fd)
        case .connect(let fd, let address, let length):
            return CUring_connect(handle, tag, fd, address, length)
        case .poll(let fd, let events): return CUring_poll(handle, tag, fd, events.rawValue)
        case .timeout(let instant):
            slot.pointee.timespec = CUring_timespec(instant)
            guard let offset = MemoryLayout<Slot>.offset(of: \.timespec) else {
                preconditionFailure("a stored property has an offset")
            }
            let timespec = UnsafeMutableRawPointer(slot).advanced(by: offset)
            return CUring_timeout(
                handle, tag, timespec.assumingMemoryBound(to: CUring_timespec.self))
        }
    }

    /// Queues the read of the eventfd by which other threads wake the loop.
    func queueWake(_ descriptor: Int32) -> Bool {
        CUring_read(handle, OperationTag.wake.rawValue, descriptor, wakeCount, 8)
    }

    func queueCancellation(of target: OperationTag) -> Bool {
        CUring_cancel(handle, OperationTag.cancellation.rawValue, target.rawValue)
    }

    /// Submits the queued SQEs to the kernel, to make room for more.
    func flush() { CUring_submit(handle) }

    /// Submits the queued SQEs to the kernel and lets it post completions; waits for one if told
    /// to. False where the kernel has no memory for that (io_uring_enter(2), EAGAIN): what it did
    /// not take stays queued.
    func submit(waiting: Bool) -> Bool {
        let result =
            waiting ? CUring_submit_and_wait(handle) : CUring_submit_and_get_events(handle)
        switch -result {
        case EAGAIN: return false
        // EBUSY: completions have to be taken first.
        case EINTR, EBUSY: return true
        default:
            precondition(result >= 0, "io_uring_enter: \(-result)")
            return true
        }
    }

    /// Reads the completions that have arrived.
    func reap(_ body: (OperationTag, Int32) -> Void) {
        var count = 0
        repeat {
            count = Int(CUring_drain(handle, completions, UInt32(Limit.completionsPerDrain)))
            for completion in UnsafeBufferPointer(start: completions, count: count) {
                body(OperationTag(rawValue: completion.tag), completion.result)
            }
        } while count == Limit.completionsPerDrain
    }
}

extension CUring_timespec {
    fileprivate init(_ instant: Instant) {
        let (seconds, rest) = instant.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.init(seconds: Int64(seconds), nanoseconds: Int64(rest))
    }
}
