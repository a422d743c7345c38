import Base

/// Decodes the chunked transfer coding, RFC 9112 section 7.1, from bytes that arrive piecemeal.
///
/// Chunk extensions and trailers are checked, bounded by `Limit`, and dropped.
struct ChunkedDecoder: Sendable {
    private enum State {
        case size, afterSize, extensions, sizeEnd
        case data, dataEnd, dataFeed
        case trailerStart, trailerName, trailerValue, trailerFeed, end, done
    }

    private var state = State.size
    /// While reading a size: its value so far; while reading data: the remaining bytes of the
    /// chunk.
    private var remaining = 0
    private var sizeDigits = 0
    private var extensionBytes = 0
    private var trailerBytes = 0
    private let bodyMax: Int

    /// - Parameter bodyMax: The maximum total size of the chunks' data, in bytes.
    init(bodyMax: Int) { self.bodyMax = bodyMax }

    /// Whether the last chunk and the trailers have been read.
    var isDone: Bool {
        if case .done = state { true } else { false }
    }

    /// Appends the data in `input` to `body`, and returns how many bytes of `input` it consumed:
    /// all of them, unless the message ends earlier.
    mutating func decode(
        _ input: Span<UInt8>, into body: inout [UInt8]
    ) throws(HTTPWireError) -> Int {
        var position = 0
        while position < input.count, !isDone {
            if case .data = state {
                let count = min(remaining, input.count - position)
                body.append(input.extracting(position..<position + count))
                position += count
                remaining -= count
                if remaining == 0 { state = .dataEnd }
            } else {
                state = try step(input[position], body.count)
                position += 1
            }
        }
        return position
    }

    /// The state after `byte`, which is not chunk data.
    private mutating func step(
        _ byte: UInt8, _ received: Int
    ) throws(HTTPWireError) -> State {
        switch state {
        case .size: return try stepSize(byte, received)
        case .afterSize, .extensions: return try stepExtensions(byte)
        case .sizeEnd:
            guard byte == 0x0A else { throw malformed("a chunk's size line has a bare CR") }
            sizeDigits = 0
            return remaining == 0 ? .trailerStart : .data
        case .dataEnd:
            guard byte == 0x0D else { throw malformed("a chunk is longer than its size") }
            return .dataFeed
        case .dataFeed:
            guard byte == 0x0A else { throw malformed("a chunk does not end with CRLF") }
            return .size
        case .trailerStart, .trailerName, .trailerValue, .trailerFeed, .end:
            return try stepTrailer(byte)
        case .data, .done: preconditionFailure("not a state of single bytes")
        }
    }

    private mutating func stepSize(
        _ byte: UInt8, _ received: Int
    ) throws(HTTPWireError) -> State {
        guard let digit = hexadecimal(byte) else {
            guard sizeDigits > 0 else { throw malformed("a chunk has no size") }
            guard remaining <= bodyMax - received else {
                throw HTTPWireError(.bodyTooLarge, "more than \(bodyMax) bytes of body")
            }
            return try stepExtensions(byte)
        }
        sizeDigits += 1
        // 15 digits stay within an Int; leading zeros count, so that a size line is short.
        guard sizeDigits <= 15 else {
            throw HTTPWireError(.bodyTooLarge, "a chunk's size has more than 15 digits")
        }
        remaining = remaining << 4 | digit
        return .size
    }

    /// After the size: CR, or white space and a semicolon before extensions.
    private mutating func stepExtensions(_ byte: UInt8) throws(HTTPWireError) -> State {
        let inExtensions = if case .extensions = state { true } else { false }
        let atSize = if case .size = state { true } else { false }
        if byte == 0x0D, inExtensions || atSize { return .sizeEnd }
        extensionBytes += 1
        guard extensionBytes <= Limit.chunkExtensionsMax else {
            throw malformed("more than \(Limit.chunkExtensionsMax) bytes of chunk extensions")
        }
        if inExtensions, isFieldValueByte(byte) { return .extensions }
        if !inExtensions, byte == 0x3B { return .extensions }
        if !inExtensions, isWhitespace(byte) { return .afterSize }
        throw malformed("a chunk's size is followed by something other than an extension")
    }

    /// Trailer fields, which must have the same form as header fields.
    private mutating func stepTrailer(_ byte: UInt8) throws(HTTPWireError) -> State {
        trailerBytes += 1
        guard trailerBytes <= Limit.trailersMax else {
            throw HTTPWireError(.headTooLarge, "more than \(Limit.trailersMax) bytes of trailers")
        }
        switch state {
        case .trailerStart where byte == 0x0D: return .end
        case .trailerStart where isTokenByte(byte), .trailerName where isTokenByte(byte):
            return .trailerName
        case .trailerName where byte == 0x3A: return .trailerValue
        case .trailerValue where byte == 0x0D: return .trailerFeed
        case .trailerValue where isFieldValueByte(byte): return .trailerValue
        case .trailerFeed where byte == 0x0A: return .trailerStart
        case .end where byte == 0x0A: return .done
        default: throw malformed("a trailer field is malformed")
        }
    }

    private func malformed(_ reason: String) -> HTTPWireError { HTTPWireError(.malformed, reason) }

    private func hexadecimal(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte - 0x30)
        case 0x41...0x46: Int(byte - 0x41 + 10)
        case 0x61...0x66: Int(byte - 0x61 + 10)
        default: nil
        }
    }
}
