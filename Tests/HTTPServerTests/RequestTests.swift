import Base
import HTTPServer
import HTTPWire
import Ring
import Streams
import Testing

@Suite(.timeLimit(.minutes(5))) struct RequestTests {
    @Test func `a connection carries one request after the other`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            for number in 1...3 {
                try await client.send(post("/\(number)", "a\(number)"))
                #expect(
                    try await client.answer() == Answer(200, "POST /\(number) (no type) a\(number)")
                )
            }
        }
    }

    @Test func `a response has date, length and type`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send(get("/"))
            let response = try await client.response()
            let date = CivilTime(httpDate: response.headers["date"] ?? "")?.unixSeconds ?? 0
            #expect(abs(date - RingActor.ring.unixSeconds) < 10)
            #expect(response.headers["content-length"] == "\(response.body.count)")
            #expect(response.contentType == "text/plain; charset=utf-8")
            #expect(response.headers["connection"] == nil)
        }
    }

    @Test func `bodies come by length, in chunks, or not at all`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send(post("/l", "abc", "Content-Type: x/y\r\n"))
            #expect(try await client.answer() == Answer(200, "POST /l (x/y) abc"))
            try await client.send(
                "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + "2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n")
            #expect(try await client.answer() == Answer(200, "POST /c (no type) abc"))
            try await client.send("POST /e HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer() == Answer(200, "POST /e (no type) "))
        }
    }

    @Test func `a body as large as the limit comes in many pieces`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            let body = String(repeating: "0123456789abcdef", count: Limit.requestBodyMax / 16)
            for _ in 0..<2 {
                try await client.send(post("/", body))
                #expect(try await client.answer().body == "POST / (no type) " + body)
            }
        }
    }

    @Test func `pipelined requests are answered in order, one at a time`() async throws {
        let gate = Gate()
        let started = Mailbox<String>()
        try await withServer { request in
            started.put(request.target)
            if request.target == "/1" { await gate.pass() }
            return HTTPResponse(status: 200, text: request.target)
        } _: { server in
            let client = try await server.connect()
            try await client.send(get("/1") + get("/2") + get("/3"))
            #expect(await started.take() == "/1")
            #expect(started.isEmpty)
            gate.open()
            for target in ["/1", "/2", "/3"] {
                #expect(try await client.answer() == Answer(200, target))
            }
        }
    }

    @Test func `requests that come together are answered each to its client, in order`()
        async throws
    {
        try await withServer { server in
            var clients: [TestClient] = []
            for _ in 0..<20 { clients.append(try await server.connect()) }
            for round in 0..<10 {
                for (number, client) in clients.enumerated() {
                    try await client.send(get("/\(round)/\(number)") + get("/\(number)"))
                }
                // A client that has disconnected does not affect the others' responses.
                clients.removeLast().stream.close()
                for (number, client) in clients.enumerated() {
                    #expect(try await client.answer().body == "GET /\(round)/\(number) (no type) ")
                    #expect(try await client.answer().body == "GET /\(number) (no type) ")
                }
            }
        }
    }

    @Test(arguments: ["Connection: close\r\n", "Connection: x, Close\r\n"])
    func `the connection ends when the client asks for it`(fields: String) async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send(get("/1", fields) + get("/2"))
            let response = try await client.response()
            #expect(response.headers["connection"] == "close")
            #expect(try await client.bytesToEnd() == 0)
        }
    }

    @Test func `the connection of a client of 1.0 ends with the answer`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send("GET /a HTTP/1.0\r\n\r\n")
            #expect(try await client.answer() == Answer(200, "GET /a (no type) "))
            #expect(try await client.bytesToEnd() == 0)
        }
    }

    @Test func `a client that expects 100 is told to go on before it sends the body`() async throws
    {
        try await withServer { server in
            let client = try await server.connect()
            let body = "abc"
            let head = post("/", body, "Expect: 100-continue\r\n").dropLast(body.count)
            try await client.send(String(head))
            #expect(try await client.bytes(25) == "HTTP/1.1 100 Continue\r\n\r\n")
            try await client.send(body)
            #expect(try await client.answer() == Answer(200, "POST / (no type) abc"))
        }
    }

    @Test func `a client that expects 100 for too much is refused at once`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(Limit.requestBodyMax + 1)\r\n"
                    + "Expect: 100-continue\r\n\r\n")
            #expect(try await client.response().status == 413)
        }
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", 400), ("nonsense\r\n\r\n", 400), ("\u{16}\u{3}\u{1}\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n", 413),
        ("GET /" + String(repeating: "x", count: Limit.requestHeadMax), 414),
        (get("/", "Expect: tea\r\n"), 417),
        ("GET / HTTP/1.1\r\nX: " + String(repeating: "x", count: Limit.requestHeadMax), 431),
        (get("/", String(repeating: "X: 1\r\n", count: Limit.requestHeadersMax)), 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("GET / HTTP/2.0\r\n\r\n", 505),
    ])
    func `a bad request is told why, and its connection ends`(text: String, status: Int)
        async throws
    {
        try await withServer { server in
            let client = try await server.connect()
            // The request before it is answered nevertheless.
            try await client.send(get("/good") + text)
            #expect(try await client.answer() == Answer(200, "GET /good (no type) "))
            let response = try await client.response()
            #expect(response.status == status)
            #expect(response.headers["connection"] == "close")
            #expect(!response.body.isEmpty)
            #expect(try await client.bytesToEnd() == 0)
        }
    }

    @Test func `a client that sends on after a refusal still reads it`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            let body = String(repeating: "x", count: 8 * Limit.requestBodyMax)
            try await client.send(post("/", body))
            #expect(try await client.response().status == 413)
        }
    }

    @Test func `HEAD is answered without a body, and the connection carries on`() async throws {
        try await withServer { server in
            let client = try await server.connect()
            try await client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get("/2"))
            let response = try await client.response(to: "HEAD")
            #expect(response.headers["content-length"] == "17")
            #expect(try await client.answer() == Answer(200, "GET /2 (no type) "))
        }
    }

    @Test func `a handler's bad header field becomes a 500`() async throws {
        try await withServer { _ in
            HTTPResponse(status: 200, headers: ["X": "a\r\nSet-Cookie: b"])
        } _: { server in
            let client = try await server.connect()
            try await client.send(get("/"))
            let response = try await client.response()
            #expect(response.status == 500)
            #expect(response.headers["set-cookie"] == nil)
        }
    }
}
