import Base
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ListenerTests {
    @Test func `a unix socket has the mode asked for, whatever the umask`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let path = "\(directory)/socket"
                let listener = try Listener(unixPath: path, mode: 0o660)
                #expect(try status(path).st_mode & 0o7777 == 0o660)
                async let accepted = listener.accept()
                let client = try await Socket.connect(to: .unix(path: path))
                try await client.send(buffer("x"))
                try await expect("x", from: accepted)
            }
        }
    }

    @Test func `a dead process's socket file is replaced`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let path = "\(directory)/socket"
                try leaveStaleSocket(path)
                let listener = try Listener(unixPath: path, mode: 0o660)
                async let accepted = listener.accept()
                _ = try await Socket.connect(to: .unix(path: path))
                _ = try await accepted
            }
        }
    }

    @Test func `a live process's socket is refused, and goes on working`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let path = "\(directory)/socket"
                let first = try Listener(unixPath: path, mode: 0o660)
                let error = #expect(throws: OperationError.self) {
                    try Listener(unixPath: path, mode: 0o660)
                }
                #expect(error?.description.contains("another process listens on it") == true)
                async let accepted = first.accept()
                _ = try await Socket.connect(to: .unix(path: path))
                _ = try await accepted
            }
        }
    }

    @Test func `a file that is no socket is refused, and stays`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let path = "\(directory)/file"
                Descriptor(owning: try check(open(path, O_CREAT | O_WRONLY, 0o600))).close()
                #expect(throws: OperationError.self) { try Listener(unixPath: path, mode: 0o660) }
                #expect(try status(path).st_mode & S_IFMT == S_IFREG)
            }
        }
    }

    @Test func `a path that cannot be used is an error that names it`() async throws {
        try await onRing {
            let error = #expect(throws: OperationError.self) {
                try Listener(unixPath: "/no/such/directory/socket", mode: 0o660)
            }
            #expect(error?.description.contains("/no/such/directory/socket") == true)
        }
    }

    @Test func `close removes the socket file, but not another's`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let path = "\(directory)/socket"
                let listener = try Listener(unixPath: path, mode: 0o660)
                listener.close()
                #expect(throws: Errno.noSuchFileOrDirectory) { try status(path) }

                let replaced = try Listener(unixPath: path, mode: 0o660)
                try check(rename(path, "\(directory)/old"))
                try leaveStaleSocket(path)
                replaced.close()
                _ = try status(path)
            }
        }
    }

    @Test func `closing ends an accept`() async throws {
        try await onRing {
            try await withDirectory { directory in
                let listeners = [
                    try Listener(address: .ipv4(.loopback, port: 0)),
                    try Listener(unixPath: "\(directory)/socket", mode: 0o660),
                ]
                for listener in listeners {
                    let task = RingActor.spawn { try await listener.accept() }
                    await Task.yield()
                    listener.close()
                    await #expect(throws: Errno.badFileDescriptor) { try await task.value }
                    await #expect(throws: Errno.badFileDescriptor) { try await listener.accept() }
                }
            }
        }
    }

    @Test func `an accept can be cancelled`() async throws {
        try await onRing {
            let listener = try Listener(address: .ipv4(.loopback, port: 0))
            let task = RingActor.spawn { try await listener.accept() }
            await Task.yield()
            task.cancel()
            await #expect(throws: Errno.canceled) { try await task.value }
        }
    }

    @Test func `a connection that finds no free descriptor is accepted when there is one`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let listener = try Listener(address: .ipv4(.loopback, port: 0))
                let client = try await Socket.connect(to: listener.address)
                var taken: [Int32] = []
                var limit = rlimit(rlim_cur: 64, rlim_max: 64)
                try check(setrlimit(__rlimit_resource_t(7), &limit))
                while case let fd = dup(0), fd >= 0 { taken.append(fd) }
                #expect(errno == EMFILE)

                let accepting = RingActor.spawn { try await listener.accept() }
                let ring = RingActor.ring
                try await ring.sleep(until: ring.now + Limit.acceptRetryDelay * 1.5)
                for fd in taken { close(fd) }
                let server = try await accepting.value
                try await client.send(buffer("x"))
                try await expect("x", from: server)
            }
        }
    }

    private func status(_ path: String) throws -> stat {
        var status = stat()
        try check(lstat(path, &status))
        return status
    }

    /// A socket file whose listener no longer exists.
    private func leaveStaleSocket(_ path: String) throws {
        let descriptor = Descriptor(
            owning: try check(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor.rawValue, $0, size)
            }
        }
        try check(result)
    }
}
