import Base
import HTTPWire
import ParserChecks
import Testing

/// The result of a response: its status and body, or why there is none.
private enum Answer: Equatable {
    case response(Int, String, keepsAlive: Bool, leftOver: Int)
    case failed(HTTPWireError.Kind)
}

/// Feeds `text` in two pieces, then ends the connection.
private func receive(_ text: String, cutAt cut: Int = 0, method: String = "GET") -> Answer {
    let bytes = Array(text.utf8)
    var parser = ResponseParser(method: method, bodyMax: 100)
    var buffer: [UInt8] = []
    do {
        for piece in pieces(bytes, cutAt: [cut]) {
            buffer += piece
            let step = try parser.parse(buffer.span)
            buffer.removeFirst(step.consumed)
            if let response = step.response {
                return answer(
                    response, parser.keepsAlive, bytes.count - piece.endIndex + buffer.count)
            }
        }
        return answer(try parser.finish(), parser.keepsAlive, 0)
    } catch {
        return .failed(error.kind)
    }
}

private func answer(_ response: HTTPResponse, _ keepsAlive: Bool, _ leftOver: Int) -> Answer {
    let body = String(decoding: response.body, as: UTF8.self)
    return .response(response.status, body, keepsAlive: keepsAlive, leftOver: leftOver)
}

private let goodResponses: [(text: String, answer: Answer)] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", got(200, "ab")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd", got(200, "ab", leftOver: 2)),
    ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", got(200, "")),
    ("HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", got(503, "")),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n",
        got(200, "ab")
    ),
    ("HTTP/1.1 200 OK\r\n\r\nab", got(200, "ab", keepsAlive: false)),
    ("HTTP/1.1 200 OK\r\n\r\n", got(200, "", keepsAlive: false)),
    ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", got(200, "a", keepsAlive: false)),
    (
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
        got(200, "a", keepsAlive: false)
    ),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        got(204, "")
    ),
    ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", got(204, "")),
    ("HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", got(304, "")),
]

private func got(
    _ status: Int, _ body: String, keepsAlive: Bool = true, leftOver: Int = 0
) -> Answer {
    .response(status, body, keepsAlive: keepsAlive, leftOver: leftOver)
}

private let badResponses: [(text: String, kind: HTTPWireError.Kind)] = [
    ("", .truncated),
    ("HTTP/1.1 200 OK\r\n", .truncated),
    ("HTTP/1.1 100 Continue\r\n\r\n", .truncated),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", .truncated),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", .truncated),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", .truncated),
    ("SSH-2.0-OpenSSH_9.2\r\n", .malformed),
    ("HTTP/1.1 20 OK\r\n\r\n", .malformed),
    ("HTTP/1.1 2000 OK\r\n\r\n", .malformed),
    ("HTTP/1.1 099 OK\r\n\r\n", .malformed),
    ("HTTP/1.1  200 OK\r\n\r\n", .malformed),
    ("HTTP/1.1 200 O\u{1}K\r\n\r\n", .malformed),
    ("HTTP/2.0 200 OK\r\n\r\n", .unsupportedVersion),
    ("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", .malformed),
    ("HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", .malformed),
    ("HTTP/1.1 101 Up\r\n\r\n", .malformed),
    (String(repeating: "HTTP/1.1 100 C\r\n\r\n", count: Limit.interimResponsesMax + 1), .malformed),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", .malformed),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        .malformed
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", .malformed),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", .unsupportedCoding),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", .malformed),
    ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", .bodyTooLarge),
    ("HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "x", count: 101), .bodyTooLarge),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", .bodyTooLarge),
    (
        "HTTP/1.1 200 OK\r\nX: " + String(repeating: "x", count: Limit.responseHeadMax),
        .headTooLarge
    ),
    (
        "HTTP/1.1 200 OK\r\n" + String(repeating: "X: 1\r\n", count: Limit.responseHeadersMax + 1),
        .headTooLarge
    ),
]

@Suite struct ResponseParserTests {
    @Test(arguments: goodResponses)
    fileprivate func `a valid response is accepted, however it is split`(
        text: String, answer: Answer
    ) {
        for cut in 0...text.utf8.count { #expect(receive(text, cutAt: cut) == answer) }
    }

    @Test(arguments: badResponses)
    fileprivate func `an invalid or truncated response is rejected`(
        text: String, kind: HTTPWireError.Kind
    ) {
        #expect(receive(text) == .failed(kind))
        #expect(receive(text, cutAt: text.utf8.count / 2) == .failed(kind))
    }

    @Test func `the response to HEAD has no body, whatever its length says`() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        #expect(receive(text, method: "HEAD") == got(200, ""))
    }

    @Test func `a tunnel's bytes are not parsed, a refused tunnel has a body`() {
        #expect(
            receive("HTTP/1.1 200 OK\r\n\r\nabc", method: "CONNECT") == got(200, "", leftOver: 3))
        let refused = "HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\na"
        #expect(receive(refused, method: "CONNECT") == got(403, "a"))
    }

    @Test func `header fields are those of the final response`() throws {
        var parser = ResponseParser(method: "GET", bodyMax: 10)
        let text =
            "HTTP/1.1 103 A\r\nX: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nY: 2\r\n\r\n"
        let response = try #require(try parser.parse(Array(text.utf8).span).response)
        #expect(response.headers["x"] == nil)
        #expect(response.headers["y"] == "2")
    }
}
