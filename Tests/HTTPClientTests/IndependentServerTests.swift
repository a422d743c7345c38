import Base
import HTTPClient
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

/// Against servers that are not ours.
@Suite(.timeLimit(.minutes(5))) struct IndependentServerTests {
    private static let script = """
        import http.server, ssl, sys
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            connections = 0
            def setup(self):
                super().setup()
                Handler.connections += 1
            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def do_GET(self):
                if self.path == "/chunked":
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for part in (b"one ", b"two ", b"x" * 100000):
                        self.wfile.write(b"%x;ext=1\\r\\n%s\\r\\n" % (len(part), part))
                    self.wfile.write(b"0\\r\\nTrailer: yes\\r\\n\\r\\n")
                elif self.path == "/connections":
                    self.answer(b"%d" % Handler.connections)
                else:
                    self.answer(self.headers["Host"].encode())
            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"]))[::-1])
            def log_message(self, *arguments): pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        print("port", server.server_port, flush=True)
        server.serve_forever()
        """

    /// Starts Python's http.server under TLS.
    private func python() throws -> (tool: Tool, port: UInt16) {
        let (certificate, key) = try TestCertificates.shared.get().good
        let tool = try Tool("python3", ["-c", Self.script, certificate, key])
        let line = try #require(tool.line(containing: "port "))
        return (tool, try #require(UInt16(line.dropFirst(5))))
    }

    @Test func `Python's server sees 100 requests on one connection`() async throws {
        let (tool, port) = try python()
        defer { tool.stop() }
        try await onRing {
            let client = try makeClient()
            let origin = try origin(.https, "localhost", port)
            for _ in 0..<98 { #expect(try await client.get(origin) == "localhost:\(port)") }
            let reversed = try await client.send(
                HTTPRequest(method: "POST", target: "/", body: Array("abc".utf8)), to: origin,
                by: soon)
            #expect(reversed.body == Array("cba".utf8))
            #expect(try await client.get(origin, "/connections") == "1")
        }
    }

    @Test func `Python's chunks are joined`() async throws {
        let (tool, port) = try python()
        defer { tool.stop() }
        try await onRing {
            let client = try makeClient()
            let origin = try origin(.https, "127.0.0.1", port)
            let expected = "one two " + String(repeating: "x", count: 100_000)
            for _ in 0..<3 { #expect(try await client.get(origin, "/chunked") == expected) }
            #expect(client.statistics.connections == 1)
        }
    }

    @Test(arguments: ["-tls1_2", "-tls1_3"])
    func `s_server's page is read to its end, and its sessions resumed`(
        version: String
    ) async throws {
        let (certificate, key) = try TestCertificates.shared.get().good
        let tool = try Tool(
            "openssl",
            [
                "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key, "-www",
                version,
            ])
        defer { tool.stop() }
        let line = try #require(tool.line(containing: "ACCEPT"))
        let port = try #require(line.split(separator: ":").last.flatMap { UInt16($0) })
        try await onRing {
            let client = try makeClient()
            let origin = try origin(.https, "localhost", port)
            for _ in 0..<3 {
                #expect(try await client.get(origin).contains("server accepts that finished"))
            }
            #expect(client.statistics.handshakes == 3)
            #expect(client.statistics.resumedHandshakes == 2)
        }
    }
}
