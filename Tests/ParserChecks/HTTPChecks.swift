import Base
import HTTPWire
import TestSupport

/// Splitting makes no difference, memory stays within the limit, and a request that was accepted is
/// the same after it was serialised and parsed again.
func brokenRequest(_ bytes: [UInt8]) -> String? {
    let whole = parse(bytes)
    for cuts in [Array(0..<bytes.count), someCuts(of: bytes)] {
        var bufferedMax = 0
        let pieces = pieces(bytes, cutAt: cuts)
        guard parse(pieces, bufferedMax: &bufferedMax) == whole else {
            return "split at \(cuts), the requests differ"
        }
        let pieceMax = pieces.map(\.count).max() ?? 0
        guard bufferedMax <= Limit.requestHeadMax + pieceMax else {
            return "split at \(cuts), \(bufferedMax) bytes are kept"
        }
    }
    var parser = RequestParser()
    var rest = bytes[...]
    while let step = try? parser.parse(rest.span), let request = step.request {
        if let broken = broken(by: request) { return broken }
        rest = rest.dropFirst(step.consumed)
        guard parser.keepsAlive, !rest.isEmpty else { break }
    }
    return nil
}

private func broken(by request: HTTPRequest) -> String? {
    var printed: [UInt8] = []
    guard (try? request.serialise(into: &printed, host: "")) != nil else {
        return "an accepted request cannot be serialised"
    }
    var parser = RequestParser()
    let again: HTTPRequest?
    do { again = try parser.parse(printed.span).request } catch {
        // Serialising adds up to two fields.
        return error.kind == .headTooLarge ? nil : "a serialised request is refused: \(error)"
    }
    guard let again, again.method == request.method, again.target == request.target,
        again.body == request.body
    else { return "a serialised request has another method, target or body" }
    return fields(again.headers, but: "host") == fields(request.headers, but: "host")
        && again.headers["host"] == request.headers["host"] ?? ""
        ? nil : "a serialised request has other fields"
}

/// The same for responses, to GET and to HEAD.
func brokenResponse(_ bytes: [UInt8]) -> String? {
    for method in ["GET", "HEAD"] {
        let whole = response(to: method, in: [bytes[...]])
        for cuts in [Array(0..<bytes.count), someCuts(of: bytes)] {
            let split = response(to: method, in: pieces(bytes, cutAt: cuts))
            guard isSame(whole, split) else { return "split at \(cuts), the responses differ" }
        }
        guard case .success(let response?) = whole else { continue }
        if let broken = broken(by: response, to: method) { return broken }
    }
    return nil
}

private func broken(by answer: HTTPResponse, to method: String) -> String? {
    var printed: [UInt8] = []
    do {
        try answer.serialise(into: &printed, method: method, closing: false, date: nil)
    } catch {
        return "an accepted response cannot be serialised"
    }
    let again = response(to: method, in: [printed[...]])
    if case .failure(let error) = again, error.kind == .headTooLarge { return nil }
    return isSame(again, .success(answer)) ? nil : "a serialised response differs"
}

/// The response in `pieces`, after which the connection ends; nil if it is incomplete.
private func response(
    to method: String, in pieces: [ArraySlice<UInt8>]
) -> Result<HTTPResponse?, HTTPWireError> {
    var parser = ResponseParser(method: method, bodyMax: Limit.requestBodyMax)
    var buffer: [UInt8] = []
    for piece in pieces {
        buffer += piece
        do {
            let step = try parser.parse(buffer.span)
            if let response = step.response { return .success(response) }
            buffer.removeFirst(step.consumed)
        } catch {
            return .failure(error)
        }
    }
    return .success(try? parser.finish())
}

private func isSame(
    _ left: Result<HTTPResponse?, HTTPWireError>, _ right: Result<HTTPResponse?, HTTPWireError>
) -> Bool {
    switch (left, right) {
    case (.failure(let left), .failure(let right)): left == right
    case (.success(nil), .success(nil)): true
    case (.success(let left?), .success(let right?)):
        left.status == right.status && left.body == right.body
            && fields(left.headers) == fields(right.headers)
    default: false
    }
}

/// Requests and responses agree on a chunked body, and it is the same when it is sent as one chunk.
func brokenChunks(_ bytes: [UInt8]) -> String? {
    let inRequest = body(chunkedIn: bytes)
    let head = Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
    let inResponse = response(to: "GET", in: [(head + bytes)[...]]).map { $0?.body }
    guard inRequest == inResponse else { return "a request and a response differ" }
    guard case .success(let whole?) = inRequest else { return nil }
    let size = Array("\(String(whole.count, radix: 16))\r\n".utf8)
    let last = Array("0\r\n\r\n".utf8)
    let chunk = whole.isEmpty ? [] : size + whole + Array("\r\n".utf8)
    return body(chunkedIn: chunk + last) == .success(whole) ? nil : "in one chunk, it differs"
}

private func body(chunkedIn bytes: [UInt8]) -> Result<[UInt8]?, HTTPWireError> {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    var parser = RequestParser()
    do {
        return .success(try parser.parse((Array(head.utf8) + bytes).span).request?.body)
    } catch {
        return .failure(error)
    }
}

/// The fields that serialising keeps.
private func fields(_ headers: HTTPHeaders, but name: String = "") -> [String] {
    let generated = ["connection", "content-length", "transfer-encoding", name]
    return headers.filter { !generated.contains($0.name.lowercased()) }
        .map { "\($0.name): \($0.value)" }
}

/// One to four positions that depend on the bytes alone, in order.
private func someCuts(of bytes: [UInt8]) -> [Int] {
    let seed = bytes.reduce(0xCBF2_9CE4_8422_2325 as UInt64) {
        ($0 ^ UInt64($1)) &* 0x100_0000_01B3
    }
    var random = SeededGenerator(seed: seed)
    return (0..<Int.random(in: 1...4, using: &random)).map { _ in
        Int.random(in: 0...bytes.count, using: &random)
    }.sorted()
}
