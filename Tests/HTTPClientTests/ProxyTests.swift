import Base
import HTTPClient
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ProxyTests {
    /// A proxy that connects every tunnel to one port, and records its requests.
    @RingActor
    private final class TestProxy {
        private(set) var requests: [String] = []
        private(set) var port: UInt16 = 0
        private var server: ScriptedServer?

        init(to target: UInt16) throws {
            let server = try ScriptedServer { peer in
                guard let request = try await peer.request() else { return }
                self.requests.append(request)
                try await peer.send("HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                try await peer.tunnel(to: target)
            }
            self.server = server
            port = server.port
        }

        func stop() { server?.stop() }
    }

    @Test func `an https origin is reached through the proxy's tunnel`() async throws {
        try await onRing {
            let server = try ScriptedServer(tls: serverContext()) { try await $0.serve() }
            defer { server.stop() }
            let proxy = try TestProxy(to: server.port)
            defer { proxy.stop() }
            let settings = try ProxySettings(environment: [
                "HTTPS_PROXY": "http://us%65r:p%40ss@127.0.0.1:\(proxy.port)/"
            ])
            // The proxy resolves the name.
            let client = try makeClient(
                proxies: settings, resolver: Resolver(servers: "127.0.0.1:1"))
            let origin = try origin(.https, "api.test", 443)
            for _ in 0..<3 { #expect(try await client.get(origin) == "hello") }
            #expect(
                proxy.requests == [
                    "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n"
                        + "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
                ])
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "HTTP 407"),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nsad", "HTTP 502"),
        ("this is no proxy\r\n\r\n", "the status line is malformed"), ("", "ended"),
    ])
    func `the error says that a proxy did not create a tunnel`(answer: String, words: String)
        async throws
    {
        try await onRing {
            let server = try ScriptedServer { peer in
                _ = try await peer.request()
                try await peer.send(answer)
            }
            defer { server.stop() }
            let settings = try ProxySettings(environment: [
                "https_proxy": "user:secret@localhost:\(server.port)"
            ])
            let failure = try await makeClient(proxies: settings)
                .failure(origin(.https, "api.test", 443))
            #expect(failure.reason == .proxy)
            #expect(failure.found.contains(words))
            #expect(failure.found.contains("the proxy localhost:\(server.port)"))
            #expect(!failure.found.contains("secret"))
            #expect(!failure.mayHaveReachedServer)
        }
    }

    @Test func `a silent proxy is given up on`() async throws {
        try await onRing {
            let server = try ScriptedServer { try await $0.linger() }
            defer { server.stop() }
            let settings = try ProxySettings(environment: [
                "HTTPS_PROXY": "http://localhost:\(server.port)"
            ])
            let limits = HTTPClient.TimeLimits.patient(\.handshake, .milliseconds(200))
            let failure = try await makeClient(proxies: settings, limits: limits)
                .failure(origin(.https, "api.test", 443))
            #expect(failure.reason == .timedOut)
            #expect(failure.found.contains("proxy"))
        }
    }

    @Test(arguments: [
        "socks5://proxy:1080", "https://proxy:443", "http://", "http://proxy:0", "http://proxy:x",
        "http://user:50%@proxy:3128", "http://pro xy:3128", "http://proxy:3128/path",
    ])
    func `a proxy that cannot be used is refused by its variable's name`(url: String) throws {
        let error = try #require(throws: ProxySettings.Invalid.self) {
            _ = try ProxySettings(environment: ["HTTPS_PROXY": url])
        }
        #expect(error.description.contains("HTTPS_PROXY"))
        #expect(!error.description.contains("50%"))
    }

    /// Which hosts go directly, by NO_PROXY.
    @Test(arguments: [
        ("", "ec2.amazonaws.com", false), ("*", "ec2.amazonaws.com", true),
        ("amazonaws.com", "ec2.amazonaws.com", true),
        ("amazonaws.com", "amazonaws.com", true),
        ("amazonaws.com", "notamazonaws.com", false),
        (".amazonaws.com", "ec2.amazonaws.com", true),
        (".amazonaws.com", "amazonaws.com", false),
        ("*.amazonaws.com", "ec2.amazonaws.com", true),
        ("other.test, EC2.amazonaws.com ", "ec2.amazonaws.com", true),
        ("ec2.amazonaws.com:443", "ec2.amazonaws.com", true),
        ("ec2.amazonaws.com:8443", "ec2.amazonaws.com", false),
        ("10.1.2.3", "10.1.2.3", true), ("10.1.2.3", "10.1.2.30", false),
        ("10.0.0.0/8", "10.200.1.1", true), ("10.0.0.0/8", "11.0.0.1", false),
        ("10.1.2.128/25", "10.1.2.129", true), ("10.1.2.128/25", "10.1.2.127", false),
        ("0.0.0.0/0", "8.8.8.8", true), ("0.0.0.0/0", "ec2.amazonaws.com", false),
        ("fd00:ec2::/32", "fd00:ec2::254", true), ("fd00:ec2::/32", "fd00:ec3::254", false),
        ("fd00:ec2::254", "fd00:ec2:0::254", true), ("[fd00:ec2::254]:443", "fd00:ec2::254", true),
        ("10.0.0.0/99,nonsense:port,/,:", "10.0.0.1", false), ("", "localhost", true),
        ("", "127.0.0.1", true), ("", "::1", true),
    ])
    func `NO_PROXY means what it means to Go and curl`(
        list: String, host: String, isDirect: Bool
    ) throws {
        let settings = try ProxySettings(environment: [
            "HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": list,
        ])
        #expect(settings.isUsed(for: try origin(.https, host, 443)) != isDirect)
    }

    @Test func `plain http goes directly`() throws {
        let settings = try ProxySettings(environment: ["HTTPS_PROXY": "http://proxy:3128"])
        #expect(!settings.isUsed(for: try origin(.http, "169.254.169.254", 80)))
        #expect(!ProxySettings.none.isUsed(for: try origin(.https, "api.test", 443)))
    }
}
