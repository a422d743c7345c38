import Base

/// Parses a connection's requests, one after the other, from bytes that arrive piecemeal.
///
/// It keeps no copy of an incomplete head: the caller keeps the bytes and passes them again
/// together with new ones. So the parser of an idle connection holds no memory.
package struct RequestParser: Sendable {
    /// The result of one call of `parse`.
    package struct Step {
        /// How many bytes of the input were consumed.
        package var consumed: Int
        /// The request, once it is complete.
        package var request: HTTPRequest?
    }

    private enum State {
        case head
        case body(BodyReader)
    }

    private let bodyMax: Int
    private var state = State.head
    private var skippedEmptyLine = false
    private var lines = LineReader(sizeMax: Limit.requestHeadMax)
    private var fields = FieldSection(fieldsMax: Limit.requestHeadersMax)
    private var request = HTTPRequest(method: "", target: "")
    private var minorVersion = 1

    /// Whether another request may follow the last returned one on this connection.
    package private(set) var keepsAlive = true

    /// Whether the client waits for a 100 (Continue) before it sends the body of the request that
    /// is being parsed. Cleared by `sentContinue`.
    package private(set) var awaitsContinue = false

    /// Whether bytes of an incomplete request were consumed.
    package private(set) var isWithinRequest = false

    package init(bodyMax: Int = Limit.requestBodyMax) { self.bodyMax = bodyMax }

    /// The method of the request that is being parsed or was returned last, once its first line is
    /// known.
    package private(set) var method = ""

    package mutating func sentContinue() { awaitsContinue = false }

    /// Consumes what it can of `input`, the bytes that have arrived and were not consumed yet.
    ///
    /// After it returned a request, the rest of the input belongs to the next one. After an error
    /// the connection cannot continue: the server sends the error and closes it.
    package mutating func parse(_ input: Span<UInt8>) throws(HTTPWireError) -> Step {
        var consumed = 0
        if case .head = state {
            consumed = skipEmptyLine(input)
            let head = try parseHead(input.extracting(droppingFirst: consumed))
            guard let head else { return Step(consumed: consumed, request: nil) }
            consumed += head
        }
        guard case .body(var reader) = state else { preconditionFailure("the head is parsed") }
        consumed += try reader.read(input.extracting(droppingFirst: consumed), into: &request.body)
        guard reader.isDone else {
            if !request.body.isEmpty { awaitsContinue = false }
            state = .body(reader)
            isWithinRequest = true
            return Step(consumed: consumed, request: nil)
        }
        return Step(consumed: consumed, request: finish())
    }

    private mutating func finish() -> HTTPRequest {
        let finished = request
        keepsAlive = minorVersion >= 1 && !fields.closes
        awaitsContinue = false
        isWithinRequest = false
        state = .head
        skippedEmptyLine = false
        lines = LineReader(sizeMax: Limit.requestHeadMax)
        fields = FieldSection(fieldsMax: Limit.requestHeadersMax)
        request = HTTPRequest(method: "", target: "")
        return finished
    }

    /// One empty line before a request is ignored: some clients send one after a body (RFC 9112
    /// section 2.2).
    private mutating func skipEmptyLine(_ input: Span<UInt8>) -> Int {
        guard !skippedEmptyLine, lines.isAtStart, input.count >= 2, input[0] == 0x0D,
            input[1] == 0x0A
        else { return 0 }
        skippedEmptyLine = true
        lines = LineReader(sizeMax: Limit.requestHeadMax)
        return 2
    }

    /// The head's size if it is complete.
    private mutating func parseHead(_ input: Span<UInt8>) throws(HTTPWireError) -> Int? {
        while true {
            let isFirst = lines.isAtStart
            guard let line = try lines.next(in: input) else { return nil }
            if isFirst {
                try parseRequestLine(line, in: input)
            } else if !line.isEmpty {
                try fields.parse(line, in: input)
            } else {
                fields.finish(head: input.extracting(first: lines.size))
                request.headers = fields.headers
                state = .body(try bodyReader())
                return lines.size
            }
        }
    }

    private mutating func parseRequestLine(
        _ line: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) {
        guard let methodEnd = input.firstIndex(of: 0x20, in: line), methodEnd > line.lowerBound,
            input.allSatisfy(in: line.lowerBound..<methodEnd, isTokenByte)
        else { throw HTTPWireError(.malformed, "the request line has no valid method") }
        let rest = methodEnd + 1..<line.upperBound
        guard let targetEnd = input.firstIndex(of: 0x20, in: rest) else {
            throw HTTPWireError(.malformed, "the request line has no version")
        }
        let version = targetEnd + 1..<line.upperBound
        guard let (major, minor) = parseVersion(version, in: input) else {
            throw HTTPWireError(.malformed, "the request line has no valid version")
        }
        guard major == 1 else {
            throw HTTPWireError(.unsupportedVersion, "HTTP/\(major).\(minor) is not supported")
        }
        minorVersion = minor
        method = input.string(line.lowerBound..<methodEnd)
        request.method = method
        guard let target = requestTarget(rest.lowerBound..<targetEnd, method: method, in: input)
        else { throw HTTPWireError(.malformed, "the request line has no valid target") }
        request.target = target
    }

    /// How the body is framed, RFC 9112 section 6.3; rejects ambiguous framing.
    private mutating func bodyReader() throws(HTTPWireError) -> BodyReader {
        guard fields.hostCount == 1 || minorVersion == 0 && fields.hostCount == 0 else {
            throw HTTPWireError(.malformed, "there is not exactly one Host")
        }
        if fields.hasOtherExpectation {
            throw HTTPWireError(.unmetExpectation, "only 100-continue can be expected")
        }
        let reader = try fields.hasTransferEncoding ? chunkedReader() : lengthReader()
        awaitsContinue = fields.expectsContinue && minorVersion >= 1 && !reader.isDone
        return reader
    }

    private func chunkedReader() throws(HTTPWireError) -> BodyReader {
        guard minorVersion >= 1, fields.contentLength == nil, fields.endsChunked else {
            throw HTTPWireError(.malformed, "Transfer-Encoding leaves the body's end in doubt")
        }
        guard fields.codingsCount == 1 else {
            throw HTTPWireError(.unsupportedCoding, "the only supported transfer coding is chunked")
        }
        return .chunked(ChunkedDecoder(bodyMax: bodyMax))
    }

    private func lengthReader() throws(HTTPWireError) -> BodyReader {
        let length = fields.contentLength ?? 0
        guard length <= bodyMax else {
            throw HTTPWireError(.bodyTooLarge, "more than \(bodyMax) bytes of body")
        }
        return .length(remaining: length)
    }
}

/// The numbers of `HTTP/1.1`, RFC 9112 section 2.3.
func parseVersion(_ range: Range<Int>, in input: Span<UInt8>) -> (major: Int, minor: Int)? {
    let start = range.lowerBound
    guard range.count == 8, input[start] == 0x48, input[start + 1] == 0x54,
        input[start + 2] == 0x54, input[start + 3] == 0x50, input[start + 4] == 0x2F,
        isDigit(input[start + 5]), input[start + 6] == 0x2E, isDigit(input[start + 7])
    else { return nil }
    return (Int(input[start + 5] - 0x30), Int(input[start + 7] - 0x30))
}

/// The target in origin form (RFC 9112 section 3.2); nil if it is not one of the four forms.
///
/// The absolute form is converted to the origin form, because this server has only one authority.
/// CONNECT's authority form is kept.
private func requestTarget(
    _ range: Range<Int>, method: String, in input: Span<UInt8>
) -> String? {
    // Visible ASCII without `#`: a fragment is never sent.
    guard !range.isEmpty, input.allSatisfy(in: range, { $0 > 0x20 && $0 < 0x7F && $0 != 0x23 })
    else { return nil }
    if input[range.lowerBound] == 0x2F || method == "CONNECT" { return input.string(range) }
    if method == "OPTIONS", range.count == 1, input[range.lowerBound] == 0x2A { return "*" }
    let schemes: [StaticString] = ["http://", "https://"]
    for scheme in schemes {
        let start = range.lowerBound + scheme.utf8CodeUnitCount
        guard start < range.upperBound, input.equals(range.lowerBound..<start, scheme) else {
            continue
        }
        var pathStart = start
        while pathStart < range.upperBound, input[pathStart] != 0x2F, input[pathStart] != 0x3F {
            pathStart += 1
        }
        guard pathStart > start else { return nil }
        let target = input.string(pathStart..<range.upperBound)
        if target.isEmpty { return method == "OPTIONS" ? "*" : "/" }
        return target.first == "?" ? "/" + target : target
    }
    return nil
}
