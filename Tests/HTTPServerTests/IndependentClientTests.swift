import HTTPServer
import HTTPWire
import Ring
import Streams
import TLS
import TestSupport
import Testing

/// Tests the server with clients that are not part of this project.
@Suite(.timeLimit(.minutes(5))) struct IndependentClientTests {
    @Test func `curl is answered over one connection`() async throws {
        let server = try await onRing { try TestServer(replier: echo) }
        let path = await server.path
        let output = try Tool.run(
            "curl",
            [
                "-sS", "--max-time", "120", "--unix-socket", path, "-w",
                " %{http_code} %{num_connects}\n",
                "http://localhost/a?b", "-d", "x=1", "--next", "-sS", "--unix-socket", path, "-w",
                " %{http_code} %{num_connects}\n", "http://localhost/missing",
            ])
        #expect(
            output.split(separator: "\n") == [
                "POST /a?b (application/x-www-form-urlencoded) x=1 200 1",
                "GET /missing (no type)  404 0",
            ])
        try await server.stop()
    }

    @Test func `curl waits for 100, sends chunks, and reads HEAD`() async throws {
        let server = try await onRing { try TestServer(replier: echo) }
        let base = ["-sS", "--max-time", "120", "--unix-socket", await server.path]
        let large = String(repeating: "x", count: 3000)
        let expecting = try Tool.run(
            "curl",
            base + [
                "-v", "--expect100-timeout", "100", "-H", "Expect: 100-continue", "-d", large,
                "http://localhost/",
            ])
        #expect(expecting.contains("< HTTP/1.1 100 Continue"))
        #expect(expecting.contains(large))
        let chunked = try Tool.run(
            "curl",
            base + ["-H", "Transfer-Encoding: chunked", "-d", "abc", "http://localhost/"])
        #expect(chunked.hasSuffix(" abc"))
        let head = try Tool.run("curl", base + ["-I", "http://localhost/"])
        #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(head.contains("Content-Length: 17"))
        try await server.stop()
    }

    @Test func `Python's http.client is answered`() async throws {
        let server = try await onRing { try TestServer(replier: echo) }
        let script = """
            import http.client, socket, sys
            class Unix(http.client.HTTPConnection):
                def connect(self):
                    self.sock = socket.socket(socket.AF_UNIX)
                    self.sock.settimeout(120)
                    self.sock.connect(sys.argv[1])
            c = Unix("localhost")
            def ask(*a, **k):
                c.request(*a, **k)
                r = c.getresponse()
                print(r.status, r.version, r.read().decode(), r.will_close)
            ask("GET", "/a")
            ask("POST", "/b", b"abc")
            ask("POST", "/c", iter([b"ab", b"c"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
            ask("POST", "/d", b"x" * 500000)
            """
        let output = try Tool.run("/usr/bin/python3", ["-c", script, await server.path])
        #expect(
            output.split(separator: "\n") == [
                "200 11 GET /a (no type)  False", "200 11 POST /b (no type) abc False",
                "200 11 POST /c (no type) abc False", "413 11 more than 65536 bytes of body",
                " True",
            ])
        try await server.stop()
    }

    @Test func `curl is answered over TLS`() async throws {
        let certificates = try TestCertificates.shared.get()
        let context = try TLSContext.server(
            certificate: certificates.good.certificate, key: certificates.good.key)
        let server = try await onRing { try TestServer(tls: context, replier: echo) }
        let large = String(repeating: "x", count: 50000)
        let output = try Tool.run(
            "curl",
            [
                "-sS", "--max-time", "120", "--unix-socket", await server.path, "--cacert",
                certificates.ca,
                "https://localhost/a", "--data-binary", large, "https://localhost/b",
            ])
        #expect(output.contains("POST /a (application/x-www-form-urlencoded) " + large))
        #expect(output.contains("POST /b (application/x-www-form-urlencoded) " + large))
        try await server.stop()
    }

    @Test func `a client that speaks no TLS does not hold up one that does`() async throws {
        let certificates = try TestCertificates.shared.get()
        let context = try TLSContext.server(
            certificate: certificates.good.certificate, key: certificates.good.key)
        let client = try TLSContext.client(caFile: certificates.ca)
        try await withServer(tls: context) { server in
            let silent = try await server.connect()
            let plain = try await server.connect()
            try await plain.send(get("/"))
            let secure = try await server.connect(TLSSession.client(client, host: "localhost"))
            try await secure.stream.handshake()
            for number in 1...3 {
                try await secure.send(post("/\(number)", "abc"))
                #expect(try await secure.answer() == Answer(200, "POST /\(number) (no type) abc"))
            }
            // What it sent is not TLS, so the server closes the connection at once.
            _ = try await plain.bytesToEnd()
            silent.close()
        }
    }

    @Test func `a client that does not shake hands is cut`() async throws {
        let (certificate, key) = try TestCertificates.shared.get().good
        let context = try TLSContext.server(certificate: certificate, key: key)
        let bounds = HTTPServer.Bounds.patient { $0.receiveTimeMax = .milliseconds(50) }
        try await withServer(bounds: bounds, tls: context) { server in
            let silent = try await server.connect()
            #expect(try await silent.bytesToEnd() == 0)
        }
    }
}
