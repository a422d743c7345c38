import Base
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ChildProcessTests {
    @Test func `the exit code and both outputs are returned`() async throws {
        let result = try await shell("echo out; echo err >&2; exit 3")
        #expect(result.end == .exited(3))
        #expect(result.output == "out\nerr\n")
    }

    /// This process ignores SIGPIPE; in the child it must have its default action again.
    @Test func `a signal that ended the child is told`() async throws {
        #expect(try await shell("kill -PIPE $$").end == .signaled(SIGPIPE))
        #expect(try await shell("kill -KILL $$").end == .signaled(SIGKILL))
    }

    @Test func `output beyond the limit is cut, and does not hold the child up`() async throws {
        let result = try await shell("head -c 1000000 /dev/zero | tr '\\0' x")
        #expect(result.end == .exited(0))
        #expect(result.output == String(repeating: "x", count: Limit.childOutputMax))
    }

    @Test func `a child gets nothing of this process but its output`() async throws {
        let result = try await shell("ls /proc/self/fd; env | grep -v ^PWD= | sort; cat")
        #expect(
            result.output
                == "0\n1\n2\n3\nLC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n_=/usr/bin/env\n"
                || result.output == "0\n1\n2\n3\nLC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n")
    }

    @Test func `a program that is not there is an error`() async throws {
        await #expect(throws: Errno.noSuchFileOrDirectory) {
            try await onRing {
                try await ChildProcess.run("/no/such/program", [], by: Instant(nanoseconds: .max))
            }
        }
    }

    @Test func `a grandchild that keeps the output open is not waited for`() async throws {
        let result = try await shell("sleep 1000 & echo $!")
        let grandchild = try #require(Int32(result.output.dropLast()))
        #expect(kill(grandchild, SIGKILL) == 0)
    }

    @Test func `a child past its deadline is killed and reaped`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let ring = RingActor.ring
                await #expect(throws: DeadlineExceeded.self) {
                    try await ChildProcess.run(
                        "/bin/sleep", ["1000"], by: ring.now + .milliseconds(50))
                }
                #expect(waitpid(-1, nil, WNOHANG) == -1 && errno == ECHILD)
            }
        }
    }

    @Test func `a cancelled child is killed and reaped`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let fifo = "\(directory)/pid"
                try check(mkfifo(fifo, 0o600))
                let reader = Descriptor(owning: try check(open(fifo, O_RDWR | O_NONBLOCK)))
                let task = RingActor.spawn {
                    try await ChildProcess.run(
                        "/bin/sh", ["-c", "echo $$ >\(fifo); exec sleep 1000"],
                        by: Instant(nanoseconds: .max))
                }
                _ = try await RingActor.ring.poll(reader, .input)
                var line = [UInt8](repeating: 0, count: 32)
                let count = Int(try check(Int32(read(reader.rawValue, &line, line.count))))
                let pid = try #require(pid_t(String(decoding: line[..<(count - 1)], as: UTF8.self)))
                task.cancel()
                await #expect(throws: CancellationError.self) { try await task.value }
                #expect(kill(pid, 0) == -1 && errno == ESRCH)
            }
        }
    }

    @Test func `a child whose task is cancelled before it starts leaves nothing behind`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let task = RingActor.spawn {
                    withUnsafeCurrentTask { $0?.cancel() }
                    return try await ChildProcess.run(
                        "/bin/sleep", ["1000"], by: Instant(nanoseconds: .max))
                }
                await #expect(throws: CancellationError.self) { try await task.value }
                #expect(waitpid(-1, nil, WNOHANG) == -1 && errno == ECHILD)
            }
        }
    }

    @Test func `many children at once all end and are reaped`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let ring = RingActor.ring
                let before = try childDescriptorCount()
                let codes = try await withThrowingTaskGroup(of: ChildResult.End.self) { group in
                    for code in 0..<40 {
                        group.addTask {
                            try await ChildProcess.run(
                                "/bin/sh", ["-c", "exit \(code)"], by: ring.now + .seconds(120)
                            ).end
                        }
                    }
                    var codes: Set<ChildResult.End> = []
                    for try await code in group { codes.insert(code) }
                    return codes
                }
                #expect(codes == Set((0..<40).map { .exited($0) }))
                #expect(waitpid(-1, nil, WNOHANG) == -1 && errno == ECHILD)
                let areClosed = try await eventually {
                    (try? childDescriptorCount()) ?? .max <= before
                }
                #expect(areClosed)
            }
        }
    }

    @Test func `what was closed is held by no child that is being started`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let starting = RingActor.spawn {
                    while !Task.isCancelled {
                        _ = try? await ChildProcess.run(
                            "/bin/true", [], by: Instant(nanoseconds: .max))
                    }
                }
                try await withDirectory { directory in
                    let refused = try await RingActor.ring.blocking { () throws in
                        try (0..<5000).count { _ in try !locks("\(directory)/lock") }
                    }
                    #expect(refused == 0)
                }
                starting.cancel()
                await starting.value
            }
        }
    }

    private func shell(_ script: String) async throws -> ChildResult {
        try await onRing {
            let ring = RingActor.ring
            return try await ChildProcess.run(
                "/bin/sh", ["-c", script], by: ring.now + .seconds(120))
        }
    }
}

/// How many descriptors this process has of the kinds that a child needs: pipes for its output, and
/// a pidfd or a pipe that reports its end. Other kinds do not count, because libraries such as
/// libdispatch may open descriptors at any time.
private func childDescriptorCount() throws -> Int {
    let directory = try #require(opendir("/proc/self/fd"))
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name.0) { String(cString: $0) }
        var target = [UInt8](repeating: 0, count: 64)
        let length = readlink("/proc/self/fd/" + name, &target, target.count)
        let kind = String(decoding: target.prefix(max(0, length)), as: UTF8.self)
        if kind.hasPrefix("pipe:") || kind.hasPrefix("anon_inode:[pidfd]") { count += 1 }
    }
    return count
}

/// Whether the file can be locked. Releases the lock again.
private func locks(_ path: String) throws -> Bool {
    let file = Descriptor(owning: try check(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)))
    let succeeded = flock(file.rawValue, LOCK_EX | LOCK_NB) == 0
    file.close()
    ChildProcess.awaitStarts()
    return succeeded
}
