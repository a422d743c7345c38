extension JSONValue {
    /// The document as compact UTF-8, with the members in their order.
    package func serialised() -> [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.bytes
    }

    private func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.literal("null")
        case .bool(let flag): writer.literal(flag ? "true" : "false")
        case .integer(let number): writer.literal(String(number))
        // JSON has no infinity.
        case .real(let number): writer.literal(String(number.isFinite ? number : 0))
        case .string(let text): writer.string(text)
        case .array(let values): writer.array { for value in values { value.write(to: &$0) } }
        case .object(let object):
            writer.object {
                for (name, value) in object.members {
                    $0.name(name)
                    value.write(to: &$0)
                }
            }
        }
    }
}
