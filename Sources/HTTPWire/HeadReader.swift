/// Splits a message's head into lines while its bytes arrive piecemeal.
///
/// It stores no bytes: the caller passes the head from its start each time, and the reader
/// remembers how far it has looked, so even a head that arrives byte by byte is scanned only once.
struct LineReader {
    private let sizeMax: Int
    private var lineStart = 0
    private var scanned = 0

    init(sizeMax: Int) { self.sizeMax = sizeMax }

    /// The size of the lines that were returned, including line ends.
    var size: Int { lineStart }

    /// Whether the first line has not arrived yet.
    var isAtStart: Bool { lineStart == 0 }

    /// The next line's bytes without its CRLF, or nil if its end has not arrived yet.
    ///
    /// A line ends with CRLF: a bare LF is rejected (RFC 9112 section 2.2 leaves the choice to the
    /// recipient).
    mutating func next(in input: Span<UInt8>) throws(HTTPWireError) -> Range<Int>? {
        let end = min(input.count, sizeMax)
        guard let feed = input.firstIndex(of: 0x0A, in: scanned..<max(scanned, end)) else {
            scanned = max(scanned, end)
            guard input.count < sizeMax else {
                throw HTTPWireError(
                    isAtStart ? .targetTooLong : .headTooLarge, "more than \(sizeMax) bytes of head"
                )
            }
            return nil
        }
        guard feed > lineStart, input[feed - 1] == 0x0D else {
            throw HTTPWireError(.malformed, "a line of the head does not end with CRLF")
        }
        let line = lineStart..<feed - 1
        lineStart = feed + 1
        scanned = lineStart
        return line
    }
}

/// The fields of a head, and what they say about the message's framing and connection.
struct FieldSection {
    private let fieldsMax: Int
    private(set) var headers = HTTPHeaders()
    private(set) var contentLength: Int?
    private(set) var hostCount = 0
    private(set) var hasTransferEncoding = false
    /// Whether chunked is the last transfer coding, and whether it is the only one.
    private(set) var endsChunked = false
    private(set) var codingsCount = 0
    private(set) var closes = false
    private(set) var expectsContinue = false
    private(set) var hasOtherExpectation = false

    init(fieldsMax: Int) { self.fieldsMax = fieldsMax }

    /// Adds the field line in `line`, RFC 9112 section 5.
    ///
    /// Rejects anything but a token before the colon: thus white space there, and a line that
    /// continues the previous one (obs-fold), because it begins with white space.
    mutating func parse(_ line: Range<Int>, in input: Span<UInt8>) throws(HTTPWireError) {
        guard headers.count < fieldsMax else {
            throw HTTPWireError(.headTooLarge, "more than \(fieldsMax) header fields")
        }
        var colon = line.lowerBound
        while colon < line.upperBound, isTokenByte(input[colon]) { colon &+= 1 }
        guard colon > line.lowerBound, colon < line.upperBound, input[colon] == 0x3A else {
            throw HTTPWireError(.malformed, "a header field has no valid name")
        }
        let name = line.lowerBound..<colon
        let value = input.trimmed(colon + 1..<line.upperBound)
        guard input.isFieldValue(value) else {
            throw HTTPWireError(.malformed, "a header field's value has a control character")
        }
        headers.append(name: name, value: value)
        try note(name, value, in: input)
    }

    /// Ends the section: `head` contains the bytes that the ranges of the lines refer to.
    mutating func finish(head: Span<UInt8>) { headers.adopt(head) }

    private mutating func note(
        _ name: Range<Int>, _ value: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) {
        switch name.count {
        case 4 where input.equals(name, "host"):
            hostCount += 1
            try checkHost(value, in: input)
        case 6 where input.equals(name, "expect"):
            if input.equals(value, "100-continue") {
                expectsContinue = true
            } else {
                hasOtherExpectation = true
            }
        case 10 where input.equals(name, "connection"):
            forEachElement(of: value, in: input) { if input.equals($0, "close") { closes = true } }
        case 14 where input.equals(name, "content-length"):
            guard contentLength == nil else {
                throw HTTPWireError(.malformed, "more than one Content-Length")
            }
            contentLength = try parseContentLength(value, in: input)
        case 17 where input.equals(name, "transfer-encoding"):
            hasTransferEncoding = true
            try noteCodings(value, in: input)
        default: break
        }
    }

    /// A host is empty or consists of characters that RFC 3986 allows in an authority.
    private func checkHost(
        _ value: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) {
        let isHost = input.allSatisfy(in: value) {
            $0 > 0x20 && $0 < 0x7F && $0 != 0x2F && $0 != 0x3F && $0 != 0x23 && $0 != 0x40
                && $0 != 0x5C && $0 != 0x22 && $0 != 0x3C && $0 != 0x3E
        }
        if !isHost { throw HTTPWireError(.malformed, "Host is not a host") }
    }

    /// One or more digits. A number that does not fit into an `Int` is valid, but too large.
    private func parseContentLength(
        _ value: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) -> Int {
        guard !value.isEmpty, input.allSatisfy(in: value, isDigit) else {
            throw HTTPWireError(.malformed, "Content-Length is not a number")
        }
        var length = 0
        for index in value {
            let (product, overflow) = length.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(Int(input[index] &- 0x30))
            if overflow || carry { return .max }
            length = sum
        }
        return length
    }

    private mutating func noteCodings(
        _ value: Range<Int>, in input: Span<UInt8>
    ) throws(HTTPWireError) {
        var wasChunked = endsChunked
        var isRepeated = false
        var count = 0
        forEachElement(of: value, in: input) {
            if wasChunked { isRepeated = true }
            wasChunked = input.equals($0, "chunked")
            count += 1
        }
        // Chunked must be the last coding and must be applied only once (RFC 9112 section 6.1).
        if isRepeated { throw HTTPWireError(.malformed, "a transfer coding after chunked") }
        endsChunked = wasChunked
        codingsCount += count
    }

    /// The non-empty elements of a comma-separated list (RFC 9110 section 5.6.1).
    private func forEachElement(
        of value: Range<Int>, in input: Span<UInt8>, _ body: (Range<Int>) -> Void
    ) {
        var start = value.lowerBound
        while start < value.upperBound {
            let comma = input.firstIndex(of: 0x2C, in: start..<value.upperBound) ?? value.upperBound
            let element = input.trimmed(start..<comma)
            if !element.isEmpty { body(element) }
            start = comma + 1
        }
    }
}
