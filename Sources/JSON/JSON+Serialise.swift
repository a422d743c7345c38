extension JSONValue {
    /// The document as compact UTF-8, members in their order.
    package func serialised() -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(256)
        write(to: &output)
        return output
    }

    private func write(to output: inout [UInt8]) {
        switch self {
        case .null: output.append(contentsOf: "null".utf8)
        case .bool(let flag): output.append(contentsOf: (flag ? "true" : "false").utf8)
        case .integer(let number): output.append(contentsOf: String(number).utf8)
        // JSON has no infinity.
        case .real(let number): output.append(contentsOf: String(number.isFinite ? number : 0).utf8)
        case .string(let text): output.append(quoting: text)
        case .array(let values):
            var mark = UInt8(ascii: "[")
            for value in values {
                output.append(mark)
                value.write(to: &output)
                mark = UInt8(ascii: ",")
            }
            output.append(contentsOf: (values.isEmpty ? "[]" : "]").utf8)
        case .object(let object):
            var mark = UInt8(ascii: "{")
            for (name, value) in object.members {
                output.append(mark)
                output.append(quoting: name)
                output.append(UInt8(ascii: ":"))
                value.write(to: &output)
                mark = UInt8(ascii: ",")
            }
            output.append(contentsOf: (object.members.isEmpty ? "{}" : "}").utf8)
        }
    }
}

extension [UInt8] {
    fileprivate mutating func append(quoting text: String) {
        append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { bytes in
            if bytes.contains(where: needsEscape) {
                for byte in bytes { appendEscaped(byte) }
            } else {
                append(contentsOf: bytes)
            }
        }
        append(UInt8(ascii: "\""))
    }

    private mutating func appendEscaped(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            append(UInt8(ascii: "\\"))
            append(byte)
        case _ where needsEscape(byte):
            let digits = Array("0123456789abcdef".utf8)
            append(contentsOf: "\\u00".utf8)
            append(digits[Int(byte >> 4)])
            append(digits[Int(byte & 15)])
        default: append(byte)
        }
    }
}

/// RFC 8259, section 7.
private func needsEscape(_ byte: UInt8) -> Bool {
    byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
}
