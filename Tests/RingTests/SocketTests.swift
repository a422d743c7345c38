import Base
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct SocketTests {
    private static let addresses: [SocketAddress] = [
        .ipv4(.loopback, port: 0), .ipv6(.loopback, port: 0),
    ]

    @Test(arguments: addresses)
    func `bytes cross a TCP connection both ways`(_ address: SocketAddress) async throws {
        try await onRing {
            let listener = try Listener(address: address)
            #expect(listener.port != 0)
            async let accepted = listener.accept()
            let client = try await Socket.connect(to: listener.address)
            let server = try await accepted
            try await client.send(buffer("ping"))
            try await expect("ping", from: server)
            try await server.send(buffer("pong"))
            try await expect("pong", from: client)
            client.close()
            #expect(try await server.receive(into: buffer()) == 0)
        }
    }

    @Test func `a send larger than the socket's buffer reaches a slow reader whole`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            let size = 4 * 1024 * 1024
            let out = ByteBuffer(capacity: size, max: size)
            try out.append([UInt8](repeating: 0x5a, count: size))
            async let sending: Void = a.send(out)
            let into = try buffer(max: 1000)
            var total = 0
            while total < size {
                total += try await b.receive(into: into)
                #expect(into.readable.allSatisfy { $0 == 0x5a })
                into.clear()
            }
            try await sending
            #expect(out.isEmpty)
        }
    }

    @Test func `sending now never waits, and says how far it went`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            #expect(!b.hasInput)
            let bytes = [UInt8](repeating: 0x5a, count: 4 * 1024 * 1024)
            let count = try bytes.withUnsafeBytes { try a.sendNow($0) }
            #expect(count > 0 && count < bytes.count)
            #expect(try bytes.withUnsafeBytes { try a.sendNow($0) } == 0)
            #expect(b.hasInput)
            b.close()
            // A child process that another test is starting also has the descriptor until its exec.
            try await a.hangUp()
            #expect(throws: Errno.brokenPipe) { try bytes.withUnsafeBytes { try a.sendNow($0) } }
        }
    }

    @Test func `sending to a peer that has gone throws`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            b.close()
            // A child process that another test is starting also has the descriptor until its exec.
            try await a.hangUp()
            await #expect(throws: Errno.brokenPipe) { try await a.send(buffer("x")) }
        }
    }

    @Test func `receiving into a full buffer throws`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            let into = ByteBuffer(capacity: 1, max: 4)
            try await b.send(buffer("12345"))
            #expect(try await a.receive(into: into) == 4)
            await #expect(throws: Errno.noBufferSpace) { try await a.receive(into: into) }
        }
    }

    @Test func `a stalled connection does not hold up another`() async throws {
        try await onRing {
            let (stalled, peer) = try socketPair()
            let waiting = RingActor.spawn { try await stalled.receive(into: buffer()) }
            let (a, b) = try socketPair()
            try await a.send(buffer("x"))
            try await expect("x", from: b)
            waiting.cancel()
            await #expect(throws: Errno.canceled) { try await waiting.value }
            peer.close()
        }
    }

    @Test func `closing a socket ends its receive`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            let task = RingActor.spawn { try await a.receive(into: buffer()) }
            await Task.yield()
            a.close()
            await #expect(throws: Errno.badFileDescriptor) { try await task.value }
            #expect(try await b.receive(into: buffer()) == 0)
            await #expect(throws: Errno.badFileDescriptor) { try await a.receive(into: buffer()) }
        }
    }

    /// The receive is queued with the socket's descriptor number. If close did not wait for it, the
    /// number could be reused before the kernel sees the operation.
    @Test func `a receive whose socket is closed takes nothing from a later socket`() async throws {
        try await onRing {
            for _ in 0..<50 {
                let (a, peer) = try socketPair()
                let into = try buffer()
                let receiving = RingActor.spawn { try await a.receive(into: into) }
                await Task.yield()
                a.close()
                let (later, sender) = try socketPair()
                try await sender.send(buffer("x"))
                await #expect(throws: Errno.badFileDescriptor) { try await receiving.value }
                #expect(into.isEmpty)
                try await expect("x", from: later)
                peer.close()
            }
        }
    }

    @Test func `the peer's hang-up is seen without receiving`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            try await b.send(buffer("unread"))
            let task = RingActor.spawn { try await a.hangUp() }
            await Task.yield()
            b.close()
            try await task.value
            try await expect("unread", from: a)
        }
    }

    @Test func `a peer that has finished sending can still be answered`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            a.endSending()
            #expect(try await b.receive(into: buffer()) == 0)
            try await b.send(buffer("x"))
            try await expect("x", from: a)
        }
    }

    @Test func `a peer that has finished sending has hung up once it closes`() async throws {
        try await onRing {
            for _ in 0..<2 {
                let (a, b) = try socketPair()
                b.endSending()
                try await a.endOfPeerSending()
                var hasHungUp = false
                let task = RingActor.spawn {
                    try await a.hangUp()
                    hasHungUp = true
                }
                // If the wait were over, it would have ended within these turns of the loop.
                for _ in 0..<20 { try await a.endOfPeerSending() }
                #expect(!hasHungUp)
                try await a.send(buffer("x"))
                try await expect("x", from: b)
                b.close()
                try await task.value
            }
        }
    }

    @Test(arguments: [false, true])
    func `waiting for a hang-up can be cancelled`(peerSends: Bool) async throws {
        try await onRing {
            let (a, b) = try socketPair()
            if !peerSends { b.endSending() }
            let task = RingActor.spawn { try await a.hangUp() }
            await Task.yield()
            task.cancel()
            await #expect(throws: Errno.canceled) { try await task.value }
            b.close()
        }
    }

    @Test(arguments: addresses)
    func `over TCP a broken connection is a hang-up, and the end of sending is not`(
        _ address: SocketAddress
    ) async throws {
        try await onRing {
            let listener = try Listener(address: address)
            async let accepted = listener.accept()
            let client = try await Socket.connect(to: listener.address)
            let server = try await accepted
            client.endSending()
            try await server.endOfPeerSending()
            let task = RingActor.spawn { try await server.hangUp() }
            for _ in 0..<20 { try await server.endOfPeerSending() }
            try await server.send(buffer("x"))
            try await expect("x", from: client)
            // The kernel resets a connection that is closed with unread data.
            try await server.send(buffer("y"))
            #expect(try await eventually { client.hasInput })
            client.close()
            try await task.value
        }
    }

    @Test func `connecting where nothing listens throws`() async throws {
        try await onRing {
            let listener = try Listener(address: .ipv4(.loopback, port: 0))
            let address = listener.address
            listener.close()
            await #expect(throws: Errno.connectionRefused) { try await Socket.connect(to: address) }
            await #expect(throws: Errno.noSuchFileOrDirectory) {
                try await Socket.connect(to: .unix(path: "/tmp/no-such-socket"))
            }
        }
    }

    @Test func `a unix path that is too long is refused`() async throws {
        try await onRing {
            let path = "/tmp/" + String(repeating: "x", count: 103)
            await #expect(throws: Errno.fileNameTooLong) {
                try await Socket.connect(to: .unix(path: path))
            }
        }
    }

    /// When connections that nobody accepts have filled the backlog, the kernel makes connect wait.
    @Test func `a connect that waits can be cancelled`() async throws {
        try await onRing {
            let fd = try check(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
            let silent = Descriptor(owning: fd)
            try check(listen(fd, 0))
            var raw = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let result = withUnsafeMutablePointer(to: &raw) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getsockname(fd, $0, &length)
                }
            }
            try check(result)
            let address = SocketAddress.ipv4(.loopback, port: UInt16(bigEndian: raw.sin_port))
            let first = try await Socket.connect(to: address)
            let ring = RingActor.ring
            await #expect(throws: DeadlineExceeded.self) {
                try await ring.withDeadline(ring.now + .milliseconds(50)) {
                    // The backlog may have room for one more.
                    let others = [
                        try await Socket.connect(to: address),
                        try await Socket.connect(to: address),
                        try await Socket.connect(to: address),
                    ]
                    for other in others { other.close() }
                }
            }
            first.close()
            silent.close()
        }
    }

    @Test func `addresses are read and written as text`() {
        #expect(IPv4Address("127.0.0.1") == .loopback)
        #expect(IPv4Address("127.1") == nil)
        #expect(IPv4Address("256.0.0.1") == nil)
        #expect("\(SocketAddress.ipv4(.loopback, port: 80))" == "127.0.0.1:80")
        #expect(IPv6Address("::1") == .loopback)
        #expect(IPv6Address("fd00:ec2::254")?.description == "fd00:ec2::254")
        #expect(IPv6Address("1::2::3") == nil)
        #expect("\(SocketAddress.ipv6(.loopback, port: 80))" == "[::1]:80")
        let bytes: [UInt8] = [0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54]
        #expect(IPv6Address(bytes: bytes) == IPv6Address("fd00:ec2::254"))
    }
}
