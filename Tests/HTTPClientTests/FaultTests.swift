import Base
import HTTPClient
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

/// What servers do wrong, and how it is reported.
@Suite(.timeLimit(.minutes(5))) struct FaultTests {
    /// The error of a GET from a server that answers in this way.
    private func failure(
        _ scheme: Origin.Scheme = .http, bodyMax: Int = 1 << 20,
        limits: HTTPClient.TimeLimits = .patient(), _ script: @escaping ScriptedServer.Script
    ) async throws -> HTTPClientError {
        try await onRing {
            let tls = scheme == .https ? try serverContext() : nil
            let server = try ScriptedServer(tls: tls, script)
            defer { server.stop() }
            return try await makeClient(limits: limits)
                .failure(origin(scheme, "localhost", server.port), bodyMax: bodyMax)
        }
    }

    @Test func `a server that does not answer is given up on`() async throws {
        let failure = try await failure(limits: .patient(\.head, .milliseconds(200))) {
            _ = try await $0.request()
            try await $0.linger()
        }
        #expect(failure.reason == .timedOut)
        #expect(failure.mayHaveReachedServer)
        #expect(failure.found.contains("200 ms: waiting for the answer"))
    }

    @Test func `a head that trickles is given up on`() async throws {
        let failure = try await failure(limits: .patient(\.head, .milliseconds(200))) {
            _ = try await $0.request()
            try await $0.send("HTTP/1.1 200 OK\r\n")
            while true {
                try await $0.send("X-Slow: yes\r\n")
                try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(20))
            }
        }
        #expect(failure.reason == .timedOut)
        #expect(failure.found.contains("200 ms: waiting for the answer"))
    }

    @Test func `a body that trickles is given up on`() async throws {
        let failure = try await failure(limits: .patient(\.response, .seconds(3))) {
            _ = try await $0.request()
            try await $0.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while true {
                try await $0.send("x")
                try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(20))
            }
        }
        #expect(failure.reason == .timedOut)
        #expect(failure.found.contains("3000 ms: receiving the answer"))
    }

    @Test func `the client gives up on a server that does not complete the handshake`() async throws
    {
        let limits = HTTPClient.TimeLimits.patient(\.handshake, .milliseconds(200))
        try await onRing {
            let server = try ScriptedServer { try await $0.linger() }
            defer { server.stop() }
            let failure = try await makeClient(limits: limits)
                .failure(origin(.https, "localhost", server.port))
            #expect(failure.reason == .timedOut)
            #expect(!failure.mayHaveReachedServer)
            #expect(failure.found.contains("performing the TLS handshake"))
        }
    }

    @Test func `the caller's deadline ends a request`() async throws {
        try await onRing {
            let server = try ScriptedServer { peer in
                _ = try await peer.request()
                try await peer.send(ok("one"))
                try await peer.linger()
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "localhost", server.port)
            #expect(try await client.get(origin) == "one")
            let start = RingActor.ring.now
            let failure = try await client.failure(origin, by: start + .milliseconds(200))
            #expect(failure.reason == .timedOut)
            #expect(failure.mayHaveReachedServer)
            #expect(failure.found.contains("the deadline passed while waiting for the answer"))
        }
    }

    @Test func `the error says that a port is closed`() async throws {
        try await onRing {
            let server = try ScriptedServer { _ in }
            let port = server.port
            server.stop()
            let failure = try await makeClient().failure(origin(.http, "127.0.0.1", port))
            #expect(failure.reason == .unreachable)
            #expect(!failure.mayHaveReachedServer)
            #expect(failure.found.contains("127.0.0.1:\(port): Connection refused"))
        }
    }

    @Test func `a connection that nobody accepts is given up on`() async throws {
        let hole = try BlackHole()
        let limits = HTTPClient.TimeLimits.patient(\.connect, .milliseconds(200))
        try await onRing {
            let failure = try await makeClient(limits: limits)
                .failure(origin(.http, "127.0.0.1", hole.port))
            #expect(failure.reason == .unreachable)
            #expect(failure.found.contains("no answer within"))
        }
    }

    @Test func `an oversized head or body is refused`() async throws {
        let head = try await failure {
            _ = try await $0.request()
            try await $0.send("HTTP/1.1 200 OK\r\nX-Long: ")
            while true { try await $0.send(String(repeating: "x", count: 8192)) }
        }
        #expect(head.reason == .tooLarge)
        let announced = try await failure(bodyMax: 1000) {
            try await $0.serve(ok(String(repeating: "x", count: 1001)))
        }
        #expect(announced.reason == .tooLarge)
        let chunked = try await failure(bodyMax: 1000) {
            _ = try await $0.request()
            try await $0.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while true { try await $0.send("64\r\n" + String(repeating: "x", count: 100) + "\r\n") }
        }
        #expect(chunked.reason == .tooLarge)
        let endless = try await failure(bodyMax: 1000) {
            _ = try await $0.request()
            try await $0.send("HTTP/1.1 200 OK\r\n\r\n")
            while true { try await $0.send(String(repeating: "x", count: 100)) }
        }
        #expect(endless.reason == .tooLarge)
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ])
    func `a truncated answer is an error`(text: String) async throws {
        for scheme in [Origin.Scheme.http, .https] {
            let failure = try await failure(scheme) {
                _ = try await $0.request()
                try await $0.send(text)
            }
            #expect(failure.reason == .broken)
            #expect(failure.mayHaveReachedServer)
        }
    }

    @Test func `a body that ends with the connection is accepted only if complete`()
        async throws
    {
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { peer in
                _ = try await peer.request()
                try await peer.send("HTTP/1.1 200 OK\r\n\r\nthe whole")
                if peer.number == 1 { peer.close() } else { peer.cut() }
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.https, "localhost", server.port)
            #expect(try await client.get(origin) == "the whole")
            #expect(try await client.failure(origin).reason == .broken)
        }
    }

    @Test func `a reset is an error`() async throws {
        // Closing with unread bytes resets the connection.
        let failure = try await failure { peer in
            await peer.input()
            peer.cut()
        }
        #expect(failure.reason == .broken)
        #expect(failure.found.contains("Connection reset by peer"))
    }

    @Test(arguments: ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/2 200\r\n\r\n", "\0\0\0\r\n\r\n"])
    func `a response that is not HTTP is rejected`(text: String) async throws {
        let failure = try await failure { try await $0.serve(text) }
        #expect(failure.reason == .malformedResponse)
    }

    @Test func `an invalid request is rejected without being sent`() async throws {
        try await onRing {
            let client = try makeClient()
            let request = HTTPRequest(
                method: "GET", target: "/", headers: ["X-Bad": "a\r\nX-Injected: b"])
            let failure = await #expect(throws: HTTPClientError.self) {
                _ = try await client.send(request, to: origin(.http, "localhost", 1), by: soon)
            }
            #expect(failure?.reason == .invalidRequest)
        }
    }

    @Test func `an untrusted server is refused before anything is sent`() async throws {
        let other = try TestCertificates.shared.get().otherCA
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            let client = HTTPClient(trust: { try .client(caFile: other) })
            let failure = try await client.failure(origin(.https, "localhost", server.port))
            #expect(failure.reason == .tls)
            #expect(!failure.mayHaveReachedServer)
            #expect(failure.found.contains("the certificate of localhost was rejected"))
        }
    }

    @Test func `CA certificates that cannot be loaded are tried again`() async throws {
        let certificates = try TestCertificates.shared.get()
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            var files = ["/nonexistent/ca.pem", certificates.ca]
            let client = HTTPClient(trust: { try .client(caFile: files.removeFirst()) })
            let origin = try origin(.https, "localhost", server.port)
            let failure = try await client.failure(origin)
            #expect(failure.reason == .tls)
            #expect(failure.found.contains("/nonexistent/ca.pem"))
            #expect(try await client.get(origin) == "hello")
            #expect(try await client.get(origin) == "hello")
        }
    }
}
