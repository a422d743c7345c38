package import HTTPWire

/// A parser's result for some bytes, in a form that tests compare.
package enum Outcome: Equatable, CustomStringConvertible {
    case requests([Received])
    case refused(Int, after: [Received])

    package var description: String {
        switch self {
        case .requests(let requests): "\(requests)"
        case .refused(let status, let requests): "\(status) after \(requests)"
        }
    }
}

package struct Received: Equatable {
    package var method: String
    package var target: String
    package var headers: [String]
    package var body: [UInt8]
    package var keepsAlive: Bool

    package init(_ request: HTTPRequest, keepsAlive: Bool) {
        method = request.method
        target = request.target
        headers = request.headers.map { "\($0.name): \($0.value)" }
        body = request.body
        self.keepsAlive = keepsAlive
    }
}

/// Feeds `pieces` one after the other, as a server would, and returns the requests in order.
///
/// `bufferedMax` is the maximum number of bytes that had to be kept for the parser.
package func parse(_ pieces: [ArraySlice<UInt8>], bufferedMax: inout Int) -> Outcome {
    var parser = RequestParser()
    var buffer: [UInt8] = []
    var received: [Received] = []
    for piece in pieces {
        buffer += piece
        bufferedMax = max(bufferedMax, buffer.count)
        while true {
            let step: RequestParser.Step
            do { step = try parser.parse(buffer.span) } catch {
                return .refused(error.status, after: received)
            }
            buffer.removeFirst(step.consumed)
            guard let request = step.request else { break }
            received.append(Received(request, keepsAlive: parser.keepsAlive))
            if !parser.keepsAlive || buffer.isEmpty { break }
        }
        if let last = received.last, !last.keepsAlive { break }
    }
    return .requests(received)
}

package func parse(_ text: String) -> Outcome { parse(Array(text.utf8)) }

package func parse(_ bytes: [UInt8]) -> Outcome {
    var bufferedMax = 0
    return parse([bytes[...]], bufferedMax: &bufferedMax)
}

/// The status with which `text` is rejected; nil if it is accepted.
package func refusal(_ text: String) -> Int? {
    if case .refused(let status, _) = parse(text) { status } else { nil }
}

/// `bytes`, split at the ascending positions `cuts`.
package func pieces(_ bytes: [UInt8], cutAt cuts: [Int]) -> [ArraySlice<UInt8>] {
    let bounds = [0] + cuts + [bytes.count]
    return zip(bounds, bounds.dropFirst()).map { bytes[$0..<$1] }
}
