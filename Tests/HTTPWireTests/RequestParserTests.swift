import Base
import HTTPWire
import ParserChecks
import Testing

/// What Docker sends.
let dockerRequest =
    "POST /VolumeDriver.Get HTTP/1.1\r\nHost: plugin.moby.localhost\r\n"
    + "User-Agent: Go-http-client/1.1\r\nContent-Length: 32\r\n"
    + "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    + #"{"Name":"vol-0123456789abcdef0"}"#

@Suite struct RequestParserTests {
    @Test func `a request from Docker is parsed`() {
        guard case .requests(let requests) = parse(dockerRequest), let request = requests.first
        else {
            Issue.record("refused")
            return
        }
        #expect(requests.count == 1)
        #expect(request.method == "POST")
        #expect(request.target == "/VolumeDriver.Get")
        #expect(
            request.headers == [
                "Host: plugin.moby.localhost", "User-Agent: Go-http-client/1.1",
                "Content-Length: 32", "Accept: application/vnd.docker.plugins.v1.2+json",
            ])
        #expect(request.body == Array(#"{"Name":"vol-0123456789abcdef0"}"#.utf8))
        #expect(request.keepsAlive)
    }

    @Test func `header fields are found whatever their case and trimmed`() throws {
        var parser = RequestParser()
        let bytes = Array("GET / HTTP/1.1\r\nhOsT:\t a \t\r\nX-A:1\r\nx-a:  2 3\r\n\r\n".utf8)
        let request = try #require(try parser.parse(bytes.span).request)
        #expect(request.headers["HOST"] == "a")
        #expect(request.headers["x-A"] == "1")
        #expect(request.headers.values("X-a") == ["1", "2 3"])
        #expect(request.headers["y"] == nil)
    }

    @Test(arguments: goodRequests)
    func `a valid request is accepted`(text: String, method: String, target: String, body: String) {
        guard case .requests(let requests) = parse(text), let request = requests.first else {
            Issue.record("refused: \(parse(text))")
            return
        }
        #expect(requests.count == 1)
        #expect(request.method == method)
        #expect(request.target == target)
        #expect(request.body == Array(body.utf8))
    }

    @Test(arguments: badLines + badFields + badFraming + badChunks)
    func `an invalid request is rejected`(text: String, status: Int) {
        #expect(refusal(text) == status)
    }

    @Test func `pipelined requests come in order`() {
        let text =
            framed("Content-Length: 1\r\n") + "a" + chunked("2\r\nbc\r\n0\r\n\r\n") + "\r\n"
            + "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n" + "GET /4 HTTP/1.1\r\nHost: a\r\nbad"
        guard case .requests(let requests) = parse(text) else {
            Issue.record("refused")
            return
        }
        #expect(requests.map(\.target) == ["/", "/", "/3"])
        #expect(requests.map { String(decoding: $0.body, as: UTF8.self) } == ["a", "bc", ""])
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x , close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
    ])
    func `a connection stays open unless a client says close or speaks 1.0`(
        text: String, keepsAlive: Bool
    ) {
        guard case .requests(let requests) = parse(text) else {
            Issue.record("refused")
            return
        }
        #expect(requests.map(\.keepsAlive) == [keepsAlive])
    }

    @Test func `a head as large as the limit is accepted, one byte more is not`() {
        func head(_ size: Int) -> String {
            let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
            return "GET / HTTP/1.1\r\nHost: a\r\nX: "
                + String(repeating: "x", count: size - rest.utf8.count) + "\r\n\r\n"
        }
        #expect(refusal(head(Limit.requestHeadMax)) == nil)
        #expect(refusal(head(Limit.requestHeadMax + 1)) == 431)
        #expect(refusal(String(head(Limit.requestHeadMax + 1).dropLast(4))) == nil)
    }

    @Test func `a target that fills the head is refused as such`() {
        let target = String(repeating: "x", count: Limit.requestHeadMax)
        #expect(refusal("GET /\(target) HTTP/1.1\r\nHost: a\r\n\r\n") == 414)
    }

    @Test func `as many fields as the limit are accepted, one more is not`() {
        func head(_ count: Int) -> String {
            "GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: 1\r\n", count: count - 1)
                + "\r\n"
        }
        #expect(refusal(head(Limit.requestHeadersMax)) == nil)
        #expect(refusal(head(Limit.requestHeadersMax + 1)) == 431)
    }

    @Test func `bodies as large as the limit are accepted`() {
        let body = String(repeating: "x", count: Limit.requestBodyMax)
        #expect(refusal(framed("Content-Length: \(body.utf8.count)\r\n") + body) == nil)
        let half = String(repeating: "x", count: Limit.requestBodyMax / 2)
        let size = String(half.utf8.count, radix: 16)
        let chunk = "\(size)\r\n\(half)\r\n"
        #expect(refusal(chunked(chunk + chunk + "0\r\n\r\n")) == nil)
        #expect(refusal(chunked(chunk + chunk + "1\r\nx\r\n0\r\n\r\n")) == 413)
    }

    @Test func `chunk extensions and trailers are bounded`() {
        let long = String(repeating: "x", count: Limit.chunkExtensionsMax / 2)
        #expect(refusal(chunked("1;\(long)\r\na\r\n0\r\n\r\n")) == nil)
        #expect(refusal(chunked("1;\(long)\r\na\r\n1;\(long)\r\na\r\n0\r\n\r\n")) == 400)
        let trailer = "X: " + String(repeating: "x", count: Limit.trailersMax / 2) + "\r\n"
        #expect(refusal(chunked("0\r\n\(trailer)\r\n")) == nil)
        #expect(refusal(chunked("0\r\n\(trailer)\(trailer)\r\n")) == 431)
    }

    @Test func `an expected 100 is awaited until it is sent or the body arrives`() throws {
        let head = Array(framed("Content-Length: 2\r\nExpect: 100-Continue\r\n").utf8)
        var parser = RequestParser()
        #expect(try parser.parse(head.span).consumed == head.count)
        #expect(parser.awaitsContinue)
        parser.sentContinue()
        #expect(!parser.awaitsContinue)
        #expect(try parser.parse(Array("ab".utf8).span).request?.body == Array("ab".utf8))

        var other = RequestParser()
        let begun = head + Array("a".utf8)
        _ = try other.parse(begun.span)
        #expect(!other.awaitsContinue)
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    ])
    func `100 is sent neither without a body nor to a client of 1.0`(text: String) throws {
        var parser = RequestParser()
        _ = try parser.parse(Array(text.utf8).span)
        #expect(!parser.awaitsContinue)
    }

    @Test func `path and query are separated`() {
        let request = HTTPRequest(method: "GET", target: "/a/b?c=d?e")
        #expect(request.path == "/a/b")
        #expect(request.query == "c=d?e")
        #expect(HTTPRequest(method: "GET", target: "/a").query == nil)
    }
}
