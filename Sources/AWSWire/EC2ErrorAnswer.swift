package import Base
import XML

extension EC2Answer {
    /// Parses a response with an error status: EC2's own `<Response><Errors>`, the
    /// `<ErrorResponse>` that other AWS front ends send, or whatever a proxy or load balancer put
    /// there. If the response names no code, the code is its status, `503`.
    package static func refusal(status: Int, body: [UInt8], requestIDHeader: String?) -> EC2Failure
    {
        let root = try? XMLElement.parse(body)
        let error = root?.descendant("Error") ?? root
        let requestID = ["RequestID", "RequestId", "requestId"].lazy
            .compactMap { root?.descendant($0)?.text }.first { !$0.isEmpty }
        let named = error?.text(of: "Code") ?? error?.text(of: "code")
        let message = error?.text(of: "Message") ?? error?.text(of: "message")
        // After the first line of the message, AWS may quote the signed headers, including the
        // session token.
        let text = message.map { $0.prefix { !$0.isNewline } }.map(String.init)
        return .refused(
            code: named.map { oneLine($0, max: 128) } ?? String(status),
            message: oneLine(
                text ?? (named == nil ? unexplained(body) : ""), max: Limit.ec2MessageMax),
            requestID: oneLine(requestID ?? requestIDHeader ?? "", max: 128))
    }

    private static func unexplained(_ body: [UInt8]) -> String {
        let excerpt = String(decoding: body.prefix(200), as: UTF8.self)
        return body.isEmpty ? "no error document" : "no error document, but: \(excerpt)"
    }
}

/// Makes a text fit for one log line: replaces control characters by spaces, and cuts it at `max`
/// characters.
private func oneLine(_ text: String, max: Int) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(max) {
        let isControl = scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        scalars.append(isControl ? " " : scalar)
    }
    return String(scalars)
}
