import Base
import HTTPClient
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ConnectionReuseTests {
    @Test func `100 requests in a row share one connection and one handshake`() async throws {
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.https, "localhost", server.port)
            for _ in 0..<100 { #expect(try await client.get(origin) == "hello") }
            #expect(server.connections == 1)
            #expect(client.statistics.handshakes == 1)
        }
    }

    @Test func `requests at once use no more connections than allowed`() async throws {
        try await onRing {
            let server = try ScriptedServer { try await $0.serve() }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            try await withThrowingTaskGroup(of: String.self) { group in
                for _ in 0..<100 { group.addTask { try await client.get(origin) } }
                for try await body in group { #expect(body == "hello") }
            }
            #expect(server.connections <= Limit.connectionsPerHostMax)
            // They all were kept.
            let connections = server.connections
            #expect(try await client.get(origin) == "hello")
            #expect(server.connections == connections)
        }
    }

    @Test func `a cancelled waiting request leaves its slot to others`() async throws {
        try await onRing {
            let server = try ScriptedServer { peer in
                guard try await peer.request()?.hasPrefix("GET /fast") == true else {
                    return try await peer.linger()
                }
                try await peer.send(ok("fast"))
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            let busy = (0..<Limit.connectionsPerHostMax + 5).map { _ in
                RingActor.spawn { try await client.failure(origin) }
            }
            while server.connections < Limit.connectionsPerHostMax { await Task.yield() }
            for request in busy { request.cancel() }
            for request in busy {
                #expect(try await request.value.reason == .cancelled)
            }
            #expect(try await client.get(origin, "/fast") == "fast")
        }
    }

    @Test(arguments: [Origin.Scheme.http, .https])
    func `a connection that the server closed while idle is replaced`(
        scheme: Origin.Scheme
    ) async throws {
        try await onRing {
            let tls = scheme == .https ? try serverContext() : nil
            let server = try ScriptedServer(tls: tls) { peer in
                _ = try await peer.request()
                try await peer.send(ok("only one"))
                peer.close()
            }
            defer { server.stop() }
            let other = try ScriptedServer { try await $0.serve() }
            defer { other.stop() }
            let client = try makeClient()
            let otherOrigin = try origin(.http, "127.0.0.1", other.port)
            let origin = try origin(scheme, "localhost", server.port)
            for round in 1...3 {
                // POST: this must be detected before the request is sent.
                let response = try await client.send(
                    HTTPRequest(method: "POST", target: "/"), to: origin, by: soon)
                #expect(response.status == 200)
                await server.settle()
                #expect(server.connections == round)
                // The end of the connection may still be in transit in the kernel: it arrives
                // before anything sent later.
                _ = try await client.get(otherOrigin)
            }
            if scheme == .https { #expect(client.statistics.resumedHandshakes == 2) }
        }
    }

    /// The first connection breaks when its second request has been read.
    private func breakingServer() async throws -> ScriptedServer {
        try await ScriptedServer { peer in
            _ = try await peer.request()
            try await peer.send(ok("first"))
            _ = try await peer.request()
            if peer.number == 1 { return }
            try await peer.send(ok("again"))
            try await peer.linger()
        }
    }

    @Test func `an idempotent request is sent again when a kept connection breaks`() async throws {
        try await onRing {
            let server = try await breakingServer()
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            #expect(try await client.get(origin) == "first")
            #expect(try await client.get(origin) == "first")
            #expect(server.connections == 2)
        }
    }

    @Test func `a request that may have been acted on is not sent again`() async throws {
        try await onRing {
            let server = try await breakingServer()
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            #expect(try await client.get(origin) == "first")
            let failure = try await client.failure(origin, method: "POST")
            #expect(failure.reason == .broken)
            #expect(failure.mayHaveReachedServer)
            #expect(server.connections == 1)
        }
    }

    @Test func `a request on a new connection that breaks is not sent again`() async throws {
        try await onRing {
            let server = try ScriptedServer { _ = try await $0.request() }
            defer { server.stop() }
            let failure = try await makeClient()
                .failure(origin(.http, "127.0.0.1", server.port))
            #expect(failure.reason == .broken)
            #expect(failure.mayHaveReachedServer)
            #expect(server.connections == 1)
        }
    }

    @Test func `a connection with unexpected bytes is not reused`() async throws {
        try await onRing {
            let server = try ScriptedServer { peer in
                _ = try await peer.request()
                try await peer.send(ok("mine") + ok("smuggled"))
                try await peer.serve(ok("mine"))
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            for _ in 0..<3 { #expect(try await client.get(origin) == "mine") }
            #expect(server.connections == 3)
        }
    }

    @Test func `Connection close is honoured`() async throws {
        try await onRing {
            let server = try ScriptedServer {
                try await $0.serve("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "127.0.0.1", server.port)
            for _ in 0..<2 {
                let response = try await client.send(
                    HTTPRequest(method: "POST", target: "/"), to: origin, by: soon)
                #expect(response.status == 204)
            }
            #expect(server.connections == 2)
        }
    }

    @Test func `after a failed handshake the next one does without the ticket`() async throws {
        try await onRing {
            let tls = try serverContext()
            let client = try makeClient()
            let first = try ScriptedServer(tls: tls) { peer in
                _ = try await peer.request()
                try await peer.send(ok("hello"))
                peer.close()
            }
            let origin = try origin(.https, "localhost", first.port)
            #expect(try await client.get(origin) == "hello")
            await first.settle()
            first.stop()
            let broken = try ScriptedServer(port: origin.port) { _ in }
            #expect(try await client.failure(origin).reason == .broken)
            broken.stop()
            let last = try ScriptedServer(port: origin.port, tls: tls) { try await $0.serve() }
            defer { last.stop() }
            #expect(try await client.get(origin) == "hello")
            #expect(client.statistics.handshakes == 2)
            #expect(client.statistics.resumedHandshakes == 0)
        }
    }
}
