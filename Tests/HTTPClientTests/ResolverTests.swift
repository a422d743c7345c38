import HTTPClient
import Ring
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ResolverTests {
    private func addresses(
        of host: String, servers: String = "127.0.0.1:1"
    ) async throws -> [SocketAddress] {
        try await onRing {
            try await Resolver(servers: servers).addresses(of: host, port: 443)
        }
    }

    @Test func `an address literal is its own address`() async throws {
        #expect(
            try await addresses(of: "192.0.2.7")
                == [.ipv4(IPv4Address(rawValue: 0xc000_0207), port: 443)])
        #expect(
            try await addresses(of: "2001:db8::7")
                == [.ipv6(IPv6Address(high: 0x2001_0db8_0000_0000, low: 7), port: 443)])
    }

    @Test func `localhost is known without a name server`() async throws {
        #expect(try await addresses(of: "localhost").contains(.ipv4(.loopback, port: 443)))
    }

    @Test func `the hosts file comes first`() async throws {
        let server = try NameServer([:])
        defer { server.stop() }
        // A machine without its own entry there has localhost.
        let name = nameInHostsFile() ?? "localhost"
        #expect(!(try await addresses(of: name, servers: server.servers)).isEmpty)
        #expect(server.questions == [])
    }

    @Test func `a name server gives addresses of both families`() async throws {
        let v6: [UInt8] = [0x20, 1, 0x0d, 0xb8] + [UInt8](repeating: 0, count: 11) + [1]
        let server = try NameServer(["api.test": [[192, 0, 2, 1], [192, 0, 2, 2], v6]])
        defer { server.stop() }
        let found = try await addresses(of: "api.test", servers: server.servers)
        #expect(
            Set(found) == [
                .ipv4(IPv4Address(rawValue: 0xc000_0201), port: 443),
                .ipv4(IPv4Address(rawValue: 0xc000_0202), port: 443),
                .ipv6(IPv6Address(high: 0x2001_0db8_0000_0000, low: 1), port: 443),
            ])
        #expect(Set(server.questions) == ["api.test 1", "api.test 28"])
    }

    @Test func `the error says that a name is unknown`() async throws {
        let server = try NameServer([:])
        defer { server.stop() }
        let failure = await #expect(throws: Resolver.Failure.self) {
            _ = try await addresses(of: "nobody.test", servers: server.servers)
        }
        #expect(
            failure?.description == "nobody.test cannot be resolved: Domain name not found")
    }

    @Test func `a dead name server is passed over`() async throws {
        let server = try NameServer(["api.test": [[192, 0, 2, 1]]])
        defer { server.stop() }
        let found = try await addresses(of: "api.test", servers: "127.0.0.1:1,\(server.servers)")
        #expect(found == [.ipv4(IPv4Address(rawValue: 0xc000_0201), port: 443)])
    }

    @Test func `a silent name server can be waited for until one is cancelled`() async throws {
        let hole = try SilentPort()
        try await onRing {
            let lookup = RingActor.spawn {
                try await Resolver(servers: "127.0.0.1:\(hole.port)")
                    .addresses(of: "api.test", port: 443)
            }
            while !hole.hasInput { await Task.yield() }
            lookup.cancel()
            await #expect(throws: CancellationError.self) { _ = try await lookup.value }
        }
    }

    @Test func `silent name servers are given up on`() async throws {
        let hole = try SilentPort()
        await #expect(throws: Resolver.Failure.self) {
            _ = try await addresses(of: "api.test", servers: "127.0.0.1:\(hole.port)")
        }
    }
}
