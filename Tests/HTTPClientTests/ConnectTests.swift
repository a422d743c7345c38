import Base
import HTTPClient
import Ring
import TLS
import TestSupport
import Testing

/// From a name to a connection.
@Suite(.timeLimit(.minutes(5))) struct ConnectTests {
    @Test func `a dead address leaves time for the next one`() async throws {
        // Both addresses belong to this machine, so the name server determines their order.
        let names = try NameServer(["api.test": [[127, 0, 0, 2], [127, 0, 0, 1]]])
        defer { names.stop() }
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            let hole = try BlackHole(at: 0x7f00_0002, port: server.port)
            defer { withExtendedLifetime(hole) {} }
            let client = try makeClient(
                resolver: Resolver(servers: names.servers),
                limits: .patient(\.connect, .seconds(6)))
            let start = RingActor.ring.now
            #expect(try await client.get(origin(.https, "api.test", server.port)) == "hello")
            // The dead one was tried with half of the time for connecting: with all of it, the
            // request would fail.
            #expect(RingActor.ring.now - start > .milliseconds(2900))
        }
    }

    @Test func `after a refused address the next one is tried at once`() async throws {
        let names = try NameServer(["api.test": [[127, 0, 0, 2], [127, 0, 0, 1]]])
        defer { names.stop() }
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            let client = try makeClient(resolver: Resolver(servers: names.servers))
            #expect(try await client.get(origin(.https, "api.test", server.port)) == "hello")
            #expect(client.statistics.connections == 1)
        }
    }

    @Test func `an IPv6 address is used as such`() async throws {
        try await onRing {
            let listener = try Listener(address: .ipv6(.loopback, port: 0))
            let port = listener.port
            listener.close()
            let failure = try await makeClient().failure(origin(.http, "::1", port))
            #expect(failure.found.contains("[::1]:\(port): Connection refused"))
        }
    }

    @Test func `the error says that a host is unknown`() async throws {
        let names = try NameServer([:])
        defer { names.stop() }
        try await onRing {
            let client = try makeClient(resolver: Resolver(servers: names.servers))
            let failure = try await client.failure(origin(.https, "nobody.test", 443))
            #expect(failure.reason == .unknownHost)
            #expect(!failure.mayHaveReachedServer)
            #expect(
                failure.found == "https://nobody.test: nobody.test cannot be resolved: "
                    + "Domain name not found")
        }
    }

    @Test(arguments: ["", "a b", "a..b", "-\0", "host/path", "user@host", "[::1]", "ho:st"])
    func `text that is not a host is rejected`(host: String) {
        #expect(Origin(.https, host: host) == nil)
    }

    @Test func `an origin writes itself as HTTP wants it`() throws {
        let plain = try #require(Origin(.https, host: "EC2.amazonaws.com"))
        #expect(plain.hostHeader == "ec2.amazonaws.com")
        #expect(plain.authority == "ec2.amazonaws.com:443")
        let literal = try #require(Origin(.http, host: "::1", port: 8080))
        #expect(literal.hostHeader == "[::1]:8080")
        #expect(literal.description == "http://[::1]:8080")
    }
}
