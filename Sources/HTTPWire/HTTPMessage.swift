/// An HTTP request, as a server receives it or a client sends it.
///
/// Content-Length, Transfer-Encoding and Connection belong to the wire: serialising generates them
/// from the body, and a received body is already decoded.
package struct HTTPRequest: Sendable {
    package var method: String
    /// The request target in origin form, `/path?query`, or `*`; percent-encoding is kept.
    package var target: String
    package var headers: HTTPHeaders
    package var body: [UInt8]

    package init(
        method: String, target: String, headers: HTTPHeaders = [:], body: [UInt8] = []
    ) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
    }

    /// The target without its query.
    package var path: Substring { target[..<(queryMark ?? target.endIndex)] }

    /// The part of the target after the first `?`; nil if there is none.
    package var query: Substring? { queryMark.map { target[target.index(after: $0)...] } }

    // Searches bytes: searching characters costs as much as parsing a whole head.
    private var queryMark: String.Index? {
        let bytes = target.utf8.span
        let mark = bytes.firstIndex(of: UInt8(ascii: "?"), in: 0..<bytes.count)
        return mark.map { target.utf8.index(target.startIndex, offsetBy: $0) }
    }
}

/// An HTTP response, as a server sends it or a client receives it.
///
/// Content-Length, Transfer-Encoding, Connection and Date belong to the wire, as in `HTTPRequest`.
package struct HTTPResponse: Sendable {
    package var status: Int
    package var headers: HTTPHeaders
    package var body: [UInt8]

    package init(status: Int, headers: HTTPHeaders = [:], body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    package init(status: Int, contentType: String, body: [UInt8]) {
        self.init(status: status, headers: ["Content-Type": contentType], body: body)
    }

    package init(status: Int, contentType: String = "text/plain; charset=utf-8", text: String) {
        self.init(status: status, contentType: contentType, body: Array(text.utf8))
    }

    package var contentType: String? { headers["content-type"] }
}
