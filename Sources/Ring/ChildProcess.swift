package import Base
import CLinux
import Glibc
import SystemPackage

/// How a child process ended, and what it wrote to its standard output and standard error.
package struct ChildResult: Sendable, Equatable {
    package enum End: Sendable, Hashable {
        case exited(Int32)
        /// Ended by the signal with this number.
        case signaled(Int32)
    }

    package var end: End
    /// The first `Limit.childOutputMax` bytes; invalid UTF-8 is replaced.
    package var output: String

    package var succeeded: Bool { end == .exited(0) }
}

/// Runs programs.
package enum ChildProcess {
    /// Runs the program at `path`, without a shell and with a minimal environment, to its end.
    /// Before Linux 5.3, which introduced pidfds, a thread waits for it. `owner` and `doing` are
    /// those of `Ring.blocking`.
    ///
    /// `takesLine` receives each complete line of the output, and returns whether to omit it from
    /// the result.
    ///
    /// Throws `Errno` if it cannot be started, `DeadlineExceeded`, or `CancellationError`. In these
    /// cases the child has been killed and reaped when this returns, so it no longer acts on a
    /// device. A child that waits for a device in the kernel (state D) survives the kill: then this
    /// throws `ChildOutlivesKill`, and the child is reaped whenever it ends.
    @RingActor
    package static func run(
        _ path: String, _ arguments: [String], by deadline: Instant,
        for owner: BlockingOwner = .other, doing: String? = nil,
        takesLine: (@RingActor (String) -> Bool)? = nil
    ) async throws -> ChildResult {
        let doing = doing ?? "run \(path)"
        let child = try await Child.start(path, arguments, for: owner, doing)
        child.takesLine = takesLine
        return try await child.finish(by: deadline)
    }

    /// Returns once everything that this process has closed is closed everywhere: until its exec, a
    /// child that is being started holds a copy of every descriptor with its lock and its exclusive
    /// claim. Blocks for less than a millisecond, so it must run on a worker. A start that takes
    /// longer than `Limit.childStartTimeMax` hangs, and is not waited for.
    package nonisolated static func awaitStarts() {
        _ = CLinux_await_spawns(UInt32(Limit.childStartTimeMax.milliseconds))
    }
}

/// A child was killed but has not ended: one of its system calls waits for a device, and may still
/// act on it.
package struct ChildOutlivesKill: Error, Sendable, CustomStringConvertible {
    fileprivate let ending: Task<ChildResult.End, Never>

    /// Returns once it has ended and been reaped.
    package func end() async { _ = await ending.value }

    package var description: String { "the program was killed and has not ended" }
}

/// A started child process.
@RingActor
private final class Child {
    private let pid: pid_t
    /// Polls ready once the child has ended.
    private let end: Descriptor
    private let pipe: Descriptor
    private var output: [UInt8] = []
    private var hasEnded = false
    /// Waits for the end, at most until the alarm.
    private var waiter: UnsafeContinuation<Void, Never>?
    var takesLine: (@RingActor (String) -> Bool)?
    /// The output after the last complete line.
    private var line: [UInt8] = []

    private init(pid: pid_t, end: consuming Descriptor, pipe: consuming Descriptor) {
        self.pid = pid
        self.end = end
        self.pipe = pipe
    }

    /// Runs on a worker: posix_spawn blocks until the program is loaded.
    static func start(
        _ path: String, _ arguments: [String], for owner: BlockingOwner, _ doing: String
    ) async throws(Errno) -> Child {
        let ring = RingActor.ring
        let (pid, end, pipe) = try await ring.blocking(for: owner, doing: doing) {
            () throws(Errno) in
            try spawn(path, arguments)
        }
        ring.children[pid] = (owner, WorkUnderWay(doing: doing, since: ring.now, hangs: false))
        return Child(pid: pid, end: Descriptor(owning: end), pipe: Descriptor(owning: pipe))
    }

    /// Waits for the end; kills the child at the deadline or if the task is cancelled.
    func finish(by deadline: Instant) async throws -> ChildResult {
        let reading = RingActor.spawn { await self.readOutput() }
        let failure = await waitForEnd(by: deadline)
        if failure != nil { kill(pid, SIGKILL) }
        let ending = RingActor.spawn { await self.reapAtEnd() }
        if failure != nil { await waitForEndAfterKill() } else { _ = await ending.value }
        // The pipe may never end: a grandchild can hold it open.
        reading.cancel()
        await reading.value
        guard hasEnded else {
            RingActor.ring.children[pid]?.work.hangs = true
            throw ChildOutlivesKill(ending: ending)
        }
        let end = await ending.value
        if let failure { throw failure }
        keep(line[...])
        return ChildResult(end: end, output: String(decoding: output, as: UTF8.self))
    }

    private func waitForEnd(by deadline: Instant) async -> (any Error)? {
        do {
            try await RingActor.ring.withDeadline(deadline) {
                _ = try await RingActor.ring.poll(self.end, .input)
            }
            return nil
        } catch {
            return error as? Errno == .canceled ? CancellationError() : error
        }
    }

    private func waitForEndAfterKill() async {
        let alarm = RingActor.spawn {
            let ring = RingActor.ring
            try? await ring.sleep(until: ring.now + Limit.killTimeMax)
            self.resumeWaiter()
        }
        await withUnsafeContinuation { if hasEnded { $0.resume() } else { waiter = $0 } }
        alarm.cancel()
    }

    private func resumeWaiter() {
        waiter?.resume()
        waiter = nil
    }

    /// Whether anybody still waits for it or not.
    private func reapAtEnd() async -> ChildResult.End {
        // Until the child is reaped, the pid belongs to it.
        while await RingActor.ring.pollToTheEnd(end) < 0 { await Task.yield() }
        let end = reap()
        hasEnded = true
        RingActor.ring.children[pid] = nil
        resumeWaiter()
        return end
    }

    /// Reads until the end of the pipe or until the task is cancelled, and then the present
    /// contents of the pipe.
    private func readOutput() async {
        while takeOutput() {
            do throws(Errno) {
                _ = try await RingActor.ring.poll(pipe, .input)
            } catch {
                _ = takeOutput()
                return
            }
        }
    }

    /// Reads the contents of the pipe; false at its end. Discards what exceeds the limit, so that
    /// the child is not blocked.
    private func takeOutput() -> Bool {
        // 64 KiB is a pipe's capacity: a child that writes continuously must not keep the loop
        // here.
        withUnsafeTemporaryAllocation(byteCount: 64 * 1024, alignment: 1) { buffer in
            let count = read(pipe.rawValue, buffer.baseAddress, buffer.count)
            if count <= 0 { return count < 0 && (errno == EAGAIN || errno == EINTR) }
            take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            return true
        }
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        guard let takesLine else { return keep(bytes[...]) }
        for byte in bytes {
            line.append(byte)
            guard byte == UInt8(ascii: "\n") || line.count >= Limit.childOutputMax else { continue }
            if !takesLine(String(decoding: line.dropLast(), as: UTF8.self)) { keep(line[...]) }
            line = []
        }
    }

    private func keep(_ bytes: some Collection<UInt8>) {
        output += bytes.prefix(Limit.childOutputMax - output.count)
    }

    private func reap() -> ChildResult.End {
        var status: Int32 = 0
        var result: pid_t = 0
        repeat { result = waitpid(pid, &status, 0) } while result < 0 && errno == EINTR
        precondition(result == pid, "a child is reaped once, here")
        // wait(2): the low 7 bits are the signal, 0 for an exit, whose code is in the next byte.
        let signal = status & 0x7f
        return signal == 0 ? .exited(status >> 8 & 0xff) : .signaled(signal)
    }
}

/// Starts a program; returns its pid, a descriptor that becomes readable when it ends, and the read
/// end of its output.
private func spawn(_ path: String, _ arguments: [String]) throws(Errno) -> (pid_t, Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    guard CLinux_output_pipe(&ends) == 0 else { throw .current }
    let readEnd = Descriptor(owning: ends[0])
    let writeEnd = Descriptor(owning: ends[1])
    let pid = try withCStrings([path] + arguments) { (argv) throws(Errno) in
        try withCStrings(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"]) {
            (environment) throws(Errno) in
            var pid: pid_t = 0
            let error = CLinux_spawn(&pid, path, argv, environment, writeEnd.rawValue)
            guard error == 0 else { throw Errno(rawValue: error) }
            return pid
        }
    }
    let end = CLinux_child_end(pid)
    guard end >= 0 else {
        let error = Errno.current
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
        throw error
    }
    return (pid, end, readEnd.release())
}

/// Calls `body` with a null-terminated array of C strings.
private func withCStrings<T>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) throws(Errno) -> T
) throws(Errno) -> T {
    var pointers = strings.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return try body(pointers)
}
