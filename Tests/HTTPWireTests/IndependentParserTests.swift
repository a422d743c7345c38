import Foundation
import HTTPWire
import ParserChecks
import TestSupport
import Testing

private let python = "/usr/bin/python3"

private let hasH11 = (try? Tool.run(python, ["-c", "import h11"])) != nil

/// The first request that a parser found in a connection's bytes.
private enum Verdict: Equatable {
    case taken(method: String, target: String, body: String, fields: String, rest: String)
    case refused
    case incomplete
}

@Suite struct IndependentParserTests {
    /// Where this parser intentionally rejects what h11 accepts.
    private static let stricter: Set<String> = [
        // RFC 9112 section 2.2 lets a recipient accept a bare LF as the end of a line, and 5.2 an
        // obs-fold as a space. Repeated equal lengths may be rejected (RFC 9110 section 8.6).
        "a line of the head does not end with CRLF",
        "a header field has no valid name",
        "more than one Content-Length",
        // In chunked bodies h11 also accepts a bare LF.
        "a trailer field is malformed",
        "a chunk's size line has a bare CR",
        "a chunk's size is followed by something other than an extension",
        // h11 treats any version as 1.1, and accepts control characters other than NUL, CR and LF.
        "a header field's value has a control character",
        // Left to the application by h11.
        "the request line has no valid target",
        "Host is not a host",
        "only 100-continue can be expected",
        "Transfer-Encoding leaves the body's end in doubt",
    ]

    /// The case that matters for security: two parsers that both accept a message but read it
    /// differently. h11 accepts what is accepted here, with the same parts and the same end.
    @Test(.enabled(if: hasH11, "python3-h11 is not installed"), arguments: [11, 12] as [UInt64])
    func `accepted requests are parsed as by h11, and rejected only for named reasons`(
        seed: UInt64
    ) throws {
        var random = SeededGenerator(seed: seed)
        let messages = (0..<3_000).map { _ in mutated(&random) }
        let verdicts = try judge(messages)
        var takenCount = 0
        for (message, theirs) in zip(messages, verdicts) {
            let (ours, reason) = verdict(on: message)
            switch (ours, theirs) {
            case (.taken, .refused) where hasSpaceBeforeExtension(message): break
            case (.taken, _):
                takenCount += 1
                #expect(ours == theirs, "seed \(seed): \(text(message))")
            case (.refused, .taken):
                let isStricter =
                    reason.hasSuffix("is not supported") || Self.stricter.contains(reason)
                #expect(isStricter, "seed \(seed): \(text(message)) \(reason)")
            case (.incomplete, .taken):
                Issue.record("seed \(seed): not complete: \(text(message))")
            case (.refused, _), (.incomplete, _): break
            }
        }
        #expect(takenCount > 300)
    }
}

private func text(_ bytes: [UInt8]) -> String {
    String(decoding: bytes, as: UTF8.self).debugDescription
}

private func verdict(on message: [UInt8]) -> (Verdict, reason: String) {
    var parser = RequestParser()
    var consumed = 0
    do {
        while true {
            let step = try parser.parse(message.span.extracting(droppingFirst: consumed))
            consumed += step.consumed
            if let request = step.request {
                let fields = request.headers.map { field in
                    let name = field.name.lowercased()
                    // h11 lowers the case of this one's value.
                    let value = name == "transfer-encoding" ? field.value.lowercased() : field.value
                    return "\(name):\(value)"
                }
                return (
                    .taken(
                        method: request.method, target: request.target,
                        body: String(decoding: request.body, as: UTF8.self),
                        fields: fields.joined(separator: "\n"),
                        rest: String(decoding: message[consumed...], as: UTF8.self)), ""
                )
            }
            if step.consumed == 0 { return (.incomplete, "") }
        }
    } catch { return (.refused, error.reason) }
}

private func judge(_ messages: [[UInt8]]) throws -> [Verdict] {
    let folder = try TemporaryFolder()
    let input = folder.path + "/messages"
    let lines = messages.map { $0.map { String(Int($0) + 256, radix: 16).dropFirst() }.joined() }
    try lines.joined(separator: "\n").write(toFile: input, atomically: true, encoding: .utf8)
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/h11_judge.py"
    let output = try Tool.run("sh", ["-c", "exec \(python) '\(script)' < '\(input)'"])
    return output.split(separator: "\n").map { line in
        let words = line.split(separator: " ")
        guard words.first == "taken" else {
            return words.first == "refused" ? .refused : .incomplete
        }
        let parts = words.dropFirst().map { decoded($0.dropFirst()) }
        return .taken(
            method: parts[0], target: normalised(parts[1], parts[0]), body: parts[2],
            fields: parts[3], rest: parts[4])
    }
}

/// RFC 9112 section 7.1.1 has a recipient skip white space before a chunk extension; h11 does not.
private func hasSpaceBeforeExtension(_ message: [UInt8]) -> Bool {
    zip(message, message.dropFirst()).contains { ($0 == 0x20 || $0 == 0x09) && $1 == 0x3B }
}

/// h11 keeps the absolute form.
private func normalised(_ target: String, _ method: String) -> String {
    guard target.lowercased().hasPrefix("http://") else { return target }
    let rest = target.dropFirst(7).drop { $0 != "/" && $0 != "?" }
    if rest.isEmpty { return method == "OPTIONS" ? "*" : "/" }
    return rest.hasPrefix("?") ? "/" + rest : String(rest)
}

private func decoded(_ hexadecimal: Substring) -> String {
    var bytes: [UInt8] = []
    var digits = hexadecimal.utf8.makeIterator()
    while let high = digits.next(), let low = digits.next() {
        bytes.append(UInt8(value(high) << 4 | value(low)))
    }
    return String(decoding: bytes, as: UTF8.self)
}

private func value(_ digit: UInt8) -> Int { Int(digit) - (digit < 0x3A ? 0x30 : 0x57) }
