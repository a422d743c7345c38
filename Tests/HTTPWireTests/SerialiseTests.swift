import HTTPWire
import Testing

private func text(
    _ response: HTTPResponse, method: String? = "GET", closing: Bool = false, date: String? = nil
) throws -> String {
    var bytes: [UInt8] = []
    try response.serialise(into: &bytes, method: method, closing: closing, date: date)
    return String(decoding: bytes, as: UTF8.self)
}

private func text(_ request: HTTPRequest, host: String = "h") throws -> String {
    var bytes: [UInt8] = []
    try request.serialise(into: &bytes, host: host)
    return String(decoding: bytes, as: UTF8.self)
}

@Suite struct SerialiseTests {
    @Test func `a response carries its length, fields and date`() throws {
        let response = HTTPResponse(status: 200, contentType: "text/plain", body: Array("ab".utf8))
        #expect(
            try text(response, date: "now")
                == "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: text/plain\r\n"
                + "Content-Length: 2\r\n\r\nab")
    }

    @Test func `the last response of a connection says so`() throws {
        #expect(
            try text(HTTPResponse(status: 400), closing: true)
                == "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }

    @Test func `the response to HEAD has the length but no body`() throws {
        let response = HTTPResponse(status: 200, body: Array("ab".utf8))
        #expect(
            try text(response, method: "HEAD") == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    }

    @Test(arguments: [204, 304])
    func `a status without content has neither body nor length`(status: Int) throws {
        let sent = try text(HTTPResponse(status: status, body: Array("ab".utf8)))
        #expect(!sent.contains("Content-Length"))
        #expect(sent.hasSuffix("\r\n\r\n"))
    }

    @Test func `a handler cannot contradict the framing`() throws {
        let headers: HTTPHeaders = [
            "content-LENGTH": "9", "Transfer-Encoding": "chunked", "connection": "x", "X": "1",
        ]
        #expect(
            try text(HTTPResponse(status: 200, headers: headers))
                == "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 0\r\n\r\n")
    }

    @Test(arguments: [
        ("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\rb"), ("X", "a\0b"), ("X", "a\u{7f}"),
        ("X\r\nY", "a"), ("X Y", "a"), ("X:", "a"), ("", "a"), ("\u{e4}", "a"),
    ])
    func `a field that would change the message is refused`(name: String, value: String) {
        var headers: HTTPHeaders = ["Good": "1"]
        headers.append(name, value)
        #expect(!headers.isValid)
        var bytes: [UInt8] = [1]
        #expect(throws: HTTPWireError.self) {
            try HTTPResponse(status: 200, headers: headers)
                .serialise(into: &bytes, method: "GET", closing: false, date: nil)
        }
        #expect(throws: HTTPWireError.self) {
            try HTTPRequest(method: "GET", target: "/", headers: headers)
                .serialise(into: &bytes, host: "h")
        }
        #expect(bytes == [1])
    }

    @Test func `a request carries host, fields and length`() throws {
        let request = HTTPRequest(
            method: "POST", target: "/?a", headers: ["X": "1", "Content-Length": "7"],
            body: Array("ab".utf8))
        #expect(
            try text(request)
                == "POST /?a HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 2\r\n\r\nab")
    }

    @Test func `a request's own Host is used`() throws {
        let request = HTTPRequest(method: "GET", target: "/", headers: ["host": "x"])
        #expect(try text(request) == "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    }

    @Test(arguments: [
        ("GET /", "/", "h"), ("", "/", "h"), ("GET", "", "h"), ("GET", "/ x", "h"),
        ("GET", "/\r\nX: 1", "h"), ("GET", "/\u{e4}", "h"), ("GET", "/", "h\r\nX: 1"),
    ])
    func `a request line that would change the message is refused`(
        method: String, target: String, host: String
    ) {
        #expect(throws: HTTPWireError.self) {
            try text(HTTPRequest(method: method, target: target), host: host)
        }
    }

    @Test func `what is serialised parses to the same`() throws {
        var response = HTTPResponse(status: 404, contentType: "a/b", body: Array("xyz".utf8))
        response.headers.append("X", "1")
        var bytes: [UInt8] = []
        try response.serialise(into: &bytes, method: "GET", closing: true, date: "d")
        var parser = ResponseParser(method: "GET", bodyMax: 10)
        let parsed = try #require(try parser.parse(bytes.span).response)
        #expect(parsed.status == 404)
        #expect(parsed.contentType == "a/b")
        #expect(parsed.headers["x"] == "1")
        #expect(parsed.body == response.body)
        #expect(!parser.keepsAlive)
    }

    @Test func `setting a field replaces all of its name, and nil removes them`() {
        var headers: HTTPHeaders = ["A": "1", "b": "2", "a": "3"]
        headers["a"] = "4"
        #expect(headers.map { "\($0.name)=\($0.value)" } == ["b=2", "a=4"])
        headers["B"] = nil
        #expect(headers.count == 1)
        #expect(!headers.contains("b"))
    }
}
