import Base
import Glibc
import Logging
import Ring
import Synchronization

/// A destination of log lines. It is possible that nobody reads it, or that its disk is full or
/// hangs.
///
/// A line is written at once if that cannot block. What the destination does not accept waits in a
/// queue for a thread, which exists only while there is something to write. Lines that do not fit
/// into the queue or cannot be written are dropped and counted; a line in their place gives their
/// number.
final class LogSink: Sendable {
    /// How the logging thread writes a line.
    private enum Way: Sendable {
        /// With write(2), which does not wait: to a file, or in non-blocking mode.
        case write
        /// With send(2) and MSG_DONTWAIT: the mode of a socket is shared with its other holders.
        case send
        /// Not at all, because write(2) may block.
        case thread
    }

    private enum Entry: Sendable {
        case line(ArraySlice<UInt8>)
        /// The number of lines that are missing here, and the last error; 0 for a full queue.
        case gap(count: Int, errno: Int32)
    }

    private struct State: Sendable {
        var entries: [Entry] = []
        /// The number of queued bytes.
        var bytes = 0
        var hasThread = false
        /// Whether the last write ended within a line.
        var isWithinLine = false
        /// Whether the last write failed.
        var isFailing = false
    }

    private let descriptor: Int32
    private let way: Way
    private let format: Settings.LogFormat
    /// The level of the line that reports dropped lines.
    private let level: Logger.Level
    private let whenFailing: @Sendable (_ errno: Int32) -> Void
    private let state = Mutex(State())

    /// A sink to a descriptor that stays open as long as the process lives. Other processes may
    /// share it.
    ///
    /// - Parameters:
    ///   - mayBlock: Whether write(2) may block although it is a file, because its disk may hang.
    ///   - whenFailing: Called by the writing thread when writing begins to fail.
    init(
        _ descriptor: Int32, format: Settings.LogFormat, level: Logger.Level,
        mayBlock: Bool = false, whenFailing: @escaping @Sendable (_ errno: Int32) -> Void = { _ in }
    ) {
        (self.descriptor, way) = mayBlock ? (descriptor, .thread) : Self.nonBlocking(descriptor)
        self.format = format
        self.level = level
        self.whenFailing = whenFailing
    }

    /// Where to write, and how. A pipe or terminal is opened again, because all holders of the same
    /// open file share its mode. If that is not allowed, write(2) may block.
    private static func nonBlocking(_ descriptor: Int32) -> (Int32, Way) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return (-1, .write) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return (descriptor, .write)
        case S_IFSOCK: return (descriptor, .send)
        default:
            let own = open(
                "/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
            return own < 0 ? (descriptor, .thread) : (own, .write)
        }
    }

    /// Writes a line, including its line break, or queues it. Never blocks.
    func write(_ line: [UInt8]) {
        guard descriptor >= 0 else { return }
        let (failure, startsThread) = state.withLock { state in
            Self.queue(line[...], in: &state)
            if state.hasThread { return (nil as Int32?, false) }
            let failure = way == .thread ? nil : writeQueued(&state)
            state.hasThread = !state.entries.isEmpty && failure == nil && !state.isFailing
            if way == .thread { state.hasThread = true }
            return (failure, state.hasThread)
        }
        if startsThread { startThread() }
        if let failure { whenFailing(failure) }
    }

    // MARK: The queue

    private static func queue(_ line: ArraySlice<UInt8>, in state: inout State) {
        // After lines were dropped, the queue accepts lines again only when it has some room;
        // otherwise there would be as many gaps as lines.
        var room = Limit.logQueueMax
        if case .gap? = state.entries.last { room /= 2 }
        guard state.bytes + line.count <= room else {
            return addGap(1, errno: 0, at: state.entries.count, in: &state)
        }
        state.entries.append(.line(line))
        state.bytes += line.count
    }

    /// Counts lines as missing before the entry at `index`.
    private static func addGap(_ count: Int, errno: Int32, at index: Int, in state: inout State) {
        for neighbour in [index - 1, index] where state.entries.indices.contains(neighbour) {
            guard case .gap(let others, let old) = state.entries[neighbour] else { continue }
            let last = errno == 0 ? old : errno
            state.entries[neighbour] = .gap(count: others + count, errno: last)
            return
        }
        state.entries.insert(.gap(count: count, errno: errno), at: index)
    }

    /// Takes the next bytes to write; for a gap, the line that reports it.
    private func takeNext(_ state: inout State) -> (entry: Entry, bytes: ArraySlice<UInt8>)? {
        guard let entry = state.entries.first else { return nil }
        state.entries.removeFirst()
        switch entry {
        case .line(let bytes):
            state.bytes -= bytes.count
            return (entry, bytes)
        case .gap(let count, let errno):
            let line = notice(of: count, errno)
            // Ends a line that could not be written completely.
            return (entry, state.isWithinLine ? [UInt8(ascii: "\n")] + line : line[...])
        }
    }

    private func putBack(_ rest: ArraySlice<UInt8>, in state: inout State) {
        state.entries.insert(.line(rest), at: 0)
        state.bytes += rest.count
    }

    /// Counts an entry that could not be written. If not even the gap can be reported, the lines
    /// after it cannot be written either.
    private func drop(_ entry: Entry, _ errno: Int32, in state: inout State) {
        switch entry {
        case .line: Self.addGap(1, errno: errno, at: 0, in: &state)
        case .gap(var count, _):
            for other in state.entries {
                switch other {
                case .line: count += 1
                case .gap(let others, _): count += others
                }
            }
            state.entries = [.gap(count: count, errno: errno)]
            state.bytes = 0
        }
    }

    private func notice(of count: Int, _ errno: Int32) -> [UInt8] {
        let cause = errno == 0 ? "they were not read in time" : String(cString: strerror(errno))
        return LineLog.line(
            format, time: LineLog.now, level: level, message: "log lines are missing here",
            fields: ["count": "\(count)", "error": "\(cause)"])
    }

    // MARK: Writing

    private enum Outcome {
        case written(Int)
        case wouldBlock
        case failed(Int32)
    }

    private func attempt(_ bytes: ArraySlice<UInt8>) -> Outcome {
        while true {
            let count = bytes.withUnsafeBytes { bytes in
                way == .send
                    ? send(
                        descriptor, bytes.baseAddress, bytes.count,
                        Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
                    : Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            }
            if count >= 0 { return .written(count) }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let error: return .failed(error)
            }
        }
    }

    /// Records the outcome of an attempt to write an entry. Returns the error if writing begins to
    /// fail.
    private func note(
        _ outcome: Outcome, of entry: Entry, _ bytes: ArraySlice<UInt8>, in state: inout State
    ) -> Int32? {
        switch outcome {
        case .written(let count):
            state.isFailing = false
            state.isWithinLine = count < bytes.count
            if state.isWithinLine { putBack(bytes.dropFirst(count), in: &state) }
        case .wouldBlock:
            state.isFailing = false
            if case .gap(let count, let errno) = entry {
                Self.addGap(count, errno: errno, at: 0, in: &state)
            } else {
                putBack(bytes, in: &state)
            }
        case .failed(let error):
            drop(entry, error, in: &state)
            defer { state.isFailing = true }
            return state.isFailing ? nil : error
        }
        return nil
    }

    /// Writes what can be written without waiting. Returns the error if writing begins to fail.
    private func writeQueued(_ state: inout State) -> Int32? {
        while let (entry, bytes) = takeNext(&state) {
            let outcome = attempt(bytes)
            let failure = note(outcome, of: entry, bytes, in: &state)
            switch outcome {
            case .written: continue
            case .wouldBlock, .failed: return failure
            }
        }
        return nil
    }

    // MARK: The thread

    /// How many sinks have a thread, and thus something to write.
    private static let threads = Atomic<Int>(0)

    private func startThread() {
        Self.threads.add(1, ordering: .relaxed)
        if runOnThread(named: "log", { self.serve() }) { return }
        // The next line tries again.
        state.withLock { $0.hasThread = false }
        Self.threads.subtract(1, ordering: .relaxed)
    }

    private func serve() {
        while let (entry, bytes) = state.withLock({ next(&$0) }) {
            let outcome = attempt(bytes)
            let failure = state.withLock { note(outcome, of: entry, bytes, in: &$0) }
            if let failure { whenFailing(failure) }
            if case .wouldBlock = outcome { waitForRoom() }
        }
        Self.threads.subtract(1, ordering: .relaxed)
    }

    /// Like `takeNext`. If there is nothing worth an attempt, the thread must end.
    private func next(_ state: inout State) -> (entry: Entry, bytes: ArraySlice<UInt8>)? {
        if state.isFailing, state.entries.count == 1, case .gap = state.entries[0] {
            state.hasThread = false
            return nil
        }
        let next = takeNext(&state)
        state.hasThread = next != nil
        return next
    }

    private func waitForRoom() {
        var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        while poll(&request, 1, -1) < 0, errno == EINTR {}
    }

    // MARK: The end of the process

    /// Waits until every sink has written its queue, for at most `Limit.logFinishTimeMax`. Safe in
    /// a signal handler.
    static func finish() {
        var left = Limit.logFinishTimeMax.nanoseconds / 1_000_000
        var pause = timespec(tv_sec: 0, tv_nsec: 1_000_000)
        while left > 0, threads.load(ordering: .relaxed) > 0 {
            nanosleep(&pause, nil)
            left -= 1
        }
    }

    /// The signals that end a process after a bug.
    private static let crashes = [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV]
    /// The action for each signal before `finishAtEnd`, by signal number.
    nonisolated(unsafe) private static let before = {
        let actions = UnsafeMutablePointer<sigaction>.allocate(capacity: 32)
        actions.initialize(repeating: sigaction(), count: 32)
        return actions
    }()

    /// Arranges for `finish` to be called when the process ends, by exit(3) or by a trap.
    static func finishAtEnd() {
        atexit { LogSink.finish() }
        for signal in crashes {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { signal in
                LogSink.finish()
                sigaction(signal, LogSink.before + Int(signal), nil)
                // It is delivered when this handler returns, and meets the previous action.
                raise(signal)
            }
            sigaction(signal, &action, before + Int(signal))
        }
    }
}
