import Base

/// Parses one response to a request of a known method, from bytes that arrive piecemeal.
///
/// Like `RequestParser`, it leaves an incomplete head to the caller.
package struct ResponseParser: Sendable {
    /// The result of one call of `parse`.
    package struct Step {
        /// How many bytes of the input were consumed.
        package var consumed: Int
        /// The response, once it is complete.
        package var response: HTTPResponse?
    }

    private enum State {
        case head
        case body(BodyReader)
        case done
    }

    private let method: String
    private let bodyMax: Int
    private var state = State.head
    private var lines = LineReader(sizeMax: Limit.responseHeadMax)
    private var fields = FieldSection(fieldsMax: Limit.responseHeadersMax)
    private var response = HTTPResponse(status: 0)
    private var minorVersion = 1
    private var interimCount = 0

    /// - Parameters:
    ///   - method: The method of the request, which decides whether a body follows.
    ///   - bodyMax: The maximum size of the body, in bytes.
    package init(method: String, bodyMax: Int) {
        self.method = method
        self.bodyMax = bodyMax
    }

    /// Whether the final response's head is complete.
    package var hasHead: Bool {
        if case .head = state { false } else { true }
    }

    /// Whether the connection can carry another request once the response is complete.
    package private(set) var keepsAlive = false

    /// Consumes what it can of `input`, the bytes that have arrived and were not consumed yet.
    ///
    /// Bytes after a complete response do not answer any request: the connection must not be used
    /// again.
    package mutating func parse(_ input: Span<UInt8>) throws(HTTPWireError) -> Step {
        var consumed = 0
        while case .head = state {
            guard let head = try parseHead(input.extracting(droppingFirst: consumed)) else {
                return Step(consumed: consumed, response: nil)
            }
            consumed += head
        }
        guard case .body(var reader) = state else { preconditionFailure("one response, parsed") }
        consumed += try reader.read(input.extracting(droppingFirst: consumed), into: &response.body)
        guard reader.isDone else {
            state = .body(reader)
            return Step(consumed: consumed, response: nil)
        }
        state = .done
        return Step(consumed: consumed, response: response)
    }

    /// Reports that the connection has ended; returns the response if its body ends with the
    /// connection.
    package mutating func finish() throws(HTTPWireError) -> HTTPResponse {
        guard case .body(.untilClose) = state else {
            throw HTTPWireError(.truncated, "the connection ended within the response")
        }
        state = .done
        return response
    }

    /// The head's size if it is complete. After an interim response the state is still `head`.
    private mutating func parseHead(_ input: Span<UInt8>) throws(HTTPWireError) -> Int? {
        while true {
            let isFirst = lines.isAtStart
            guard let line = try lines.next(in: input) else { return nil }
            if isFirst {
                try parseStatusLine(line, in: input)
            } else if !line.isEmpty {
                try fields.parse(line, in: input)
            } else {
                fields.finish(head: input.extracting(first: lines.size))
                let size = lines.size
                try endHead()
                return size
            }
        }
    }

    private mutating func endHead() throws(HTTPWireError) {
        if response.status / 100 == 1 {
            interimCount += 1
            guard response.status != 101, interimCount <= Limit.interimResponsesMax else {
                throw HTTPWireError(.malformed, "unexpected interim responses")
            }
        } else {
            response.headers = fields.headers
            state = .body(try bodyReader())
        }
        lines = LineReader(sizeMax: Limit.responseHeadMax)
        fields = FieldSection(fieldsMax: Limit.responseHeadersMax)
    }

    /// `HTTP/1.1 200 OK`; the reason is dropped; it may be missing, together with its space.
    private mutating func parseStatusLine(
        _ line: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) {
        let start = line.lowerBound
        guard line.count >= 12, let (major, minor) = parseVersion(start..<start + 8, in: input),
            input[start + 8] == 0x20, input.allSatisfy(in: start + 9..<start + 12, isDigit),
            line.count == 12 || input[start + 12] == 0x20,
            input.allSatisfy(in: start + 12..<line.upperBound, isFieldValueByte)
        else { throw HTTPWireError(.malformed, "the status line is malformed") }
        guard major == 1 else {
            throw HTTPWireError(.unsupportedVersion, "answered by HTTP/\(major).\(minor)")
        }
        minorVersion = minor
        response.status = (9..<12).reduce(0) { $0 * 10 + Int(input[start + $1] - 0x30) }
        guard response.status >= 100 else {
            throw HTTPWireError(.malformed, "the status line has no valid status")
        }
    }

    /// How the body is framed, RFC 9112 section 6.3.
    private mutating func bodyReader() throws(HTTPWireError) -> BodyReader {
        keepsAlive = minorVersion >= 1 && !fields.closes
        let isTunnel = method == "CONNECT" && response.status / 100 == 2
        if method == "HEAD" || response.status == 204 || response.status == 304 || isTunnel {
            return .empty
        }
        if fields.hasTransferEncoding {
            guard minorVersion >= 1, fields.contentLength == nil, fields.endsChunked else {
                throw HTTPWireError(.malformed, "Transfer-Encoding leaves the body's end in doubt")
            }
            guard fields.codingsCount == 1 else {
                throw HTTPWireError(
                    .unsupportedCoding, "the only supported transfer coding is chunked")
            }
            return .chunked(ChunkedDecoder(bodyMax: bodyMax))
        }
        guard let length = fields.contentLength else {
            keepsAlive = false
            return .untilClose(max: bodyMax)
        }
        guard length <= bodyMax else {
            throw HTTPWireError(.bodyTooLarge, "more than \(bodyMax) bytes of body")
        }
        return .length(remaining: length)
    }
}
