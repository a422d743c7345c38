import Base
import Ring
import Testing

@Suite struct SmokeTests {
    @Test func `bytes cross a TCP connection`() async throws {
        try await onRing {
            let listener = try Listener(address: .ipv4(.loopback, port: 0))
            async let accepted = listener.accept()
            let client = try await Socket.connect(to: listener.address)
            let server = try await accepted
            let out = ByteBuffer(capacity: 64, max: 64)
            try out.append("hello")
            try await client.send(out)
            let into = ByteBuffer(capacity: 64, max: 64)
            #expect(try await server.receive(into: into) == 5)
            #expect(String(decoding: into.readable, as: UTF8.self) == "hello")
            client.close()
            #expect(try await server.receive(into: into) == 0)
        }
    }

    @Test func `a child's exit code and output are returned`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let result = try await ChildProcess.run(
                "/bin/sh", ["-c", "echo out; echo err >&2; exit 3"], by: ring.now + .seconds(10))
            #expect(result.end == .exited(3))
            #expect(result.output == "out\nerr\n")
        }
    }
}
