import Base
import HTTPClient
import HTTPWire
import Ring
import TestSupport
import Testing

@RingActor private final class Counter {
    var requests = 0
}

/// A request that must be sent by a certain time or not at all.
@Suite(.timeLimit(.minutes(5))) struct SentByTests {
    /// The error of a request that must be sent by `latest`; nil if it is answered.
    @RingActor private func failure(
        of client: HTTPClient, _ origin: Origin, sentBy latest: Instant, isIdempotent: Bool = false
    ) async -> HTTPClientError? {
        do {
            _ = try await client.send(
                HTTPRequest(method: "POST", target: "/"), to: origin, by: soon,
                isIdempotent: isIdempotent, sentBy: latest)
            return nil
        } catch {
            return error
        }
    }

    @Test func `nothing is sent after a handshake that took too long`() async throws {
        try await onRing {
            let counter = Counter()
            let server = try ScriptedServer(tls: serverContext()) { peer in
                while try await peer.request() != nil {
                    counter.requests += 1
                    try await peer.send(ok("hello"))
                }
            }
            defer { server.stop() }
            let serverPort = server.port
            let latest = RingActor.ring.now + .milliseconds(200)
            // Nothing of the handshake gets through in time.
            let front = try ScriptedServer { peer in
                try await RingActor.ring.sleep(until: latest + .milliseconds(1))
                try await peer.tunnel(to: serverPort)
            }
            defer { front.stop() }
            let origin = try origin(.https, "localhost", front.port)
            let failure = try #require(
                await failure(of: makeClient(), origin, sentBy: latest))
            #expect(failure.reason == .timedOut)
            #expect(!failure.mayHaveReachedServer)
            #expect(failure.found.contains("could not be sent"))
            await server.settle()
            #expect(counter.requests == 0)

            #expect(await self.failure(of: try makeClient(), origin, sentBy: soon) == nil)
            #expect(counter.requests == 1)
        }
    }

    @Test func `nothing is sent after a long wait for a free connection`() async throws {
        try await onRing {
            let latest = RingActor.ring.now + .milliseconds(500)
            let counter = Counter()
            let server = try ScriptedServer { peer in
                while try await peer.request() != nil {
                    counter.requests += 1
                    try await RingActor.ring.sleep(until: latest + .milliseconds(1))
                    try await peer.send(ok("hello"))
                }
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "localhost", server.port)
            let others = (0..<Limit.connectionsPerHostMax).map { _ in
                RingActor.spawn { try await client.get(origin) }
            }
            while counter.requests < others.count { await Task.yield() }
            let failure = try #require(await failure(of: client, origin, sentBy: latest))
            #expect(failure.reason == .timedOut)
            #expect(!failure.mayHaveReachedServer)
            for other in others { #expect(try await other.value == "hello") }
            #expect(counter.requests == Limit.connectionsPerHostMax)
        }
    }

    @Test func `after that time nothing is sent again when a kept connection breaks`()
        async throws
    {
        try await onRing {
            let latest = RingActor.ring.now + .milliseconds(500)
            let counter = Counter()
            let server = try ScriptedServer { peer in
                while try await peer.request() != nil {
                    counter.requests += 1
                    if counter.requests == 2 {
                        try await RingActor.ring.sleep(until: latest + .milliseconds(1))
                        return peer.cut()
                    }
                    try await peer.send(ok("hello"))
                }
            }
            defer { server.stop() }
            let client = try makeClient()
            let origin = try origin(.http, "localhost", server.port)
            #expect(try await client.get(origin) == "hello")
            let failure = try #require(
                await failure(of: client, origin, sentBy: latest, isIdempotent: true))
            #expect(failure.mayHaveReachedServer)
            #expect(counter.requests == 2)
        }
    }
}
