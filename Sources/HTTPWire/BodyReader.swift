/// Reads a message's body according to the framing in its head.
enum BodyReader {
    case length(remaining: Int)
    case chunked(ChunkedDecoder)
    /// A response's body that ends with the connection.
    case untilClose(max: Int)

    static var empty: BodyReader { .length(remaining: 0) }

    /// Whether the body is complete. Never true for a body that ends with the connection.
    var isDone: Bool {
        switch self {
        case .length(let remaining): remaining == 0
        case .chunked(let decoder): decoder.isDone
        case .untilClose: false
        }
    }

    /// Appends the body's bytes in `input` to `body`, and returns how many bytes it consumed.
    mutating func read(
        _ input: Span<UInt8>, into body: inout [UInt8]
    ) throws(HTTPWireError) -> Int {
        switch self {
        case .length(let remaining):
            let count = min(remaining, input.count)
            if count > 0 { body.append(input.extracting(first: count)) }
            self = .length(remaining: remaining - count)
            return count
        case .chunked(var decoder):
            let count = try decoder.decode(input, into: &body)
            self = .chunked(decoder)
            return count
        case .untilClose(let max):
            guard input.count <= max - body.count else {
                throw HTTPWireError(.bodyTooLarge, "more than \(max) bytes of body")
            }
            body.append(input)
            return input.count
        }
    }
}
