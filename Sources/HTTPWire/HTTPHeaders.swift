/// The header fields of a message, in order; names are compared ignoring case.
///
/// Names and values are stored in one byte array, and a `String` is created only for a requested
/// field: the dozen fields of a request take two allocations.
package struct HTTPHeaders: Sendable {
    /// The positions of a field's name and value in `bytes`.
    private struct Field: Sendable {
        var nameStart: UInt32
        var nameEnd: UInt32
        var valueStart: UInt32
        var valueEnd: UInt32

        var name: Range<Int> { Int(nameStart)..<Int(nameEnd) }
        var value: Range<Int> { Int(valueStart)..<Int(valueEnd) }
    }

    private var bytes: [UInt8] = []
    private var fields: [Field] = []

    /// False once an invalid field was added: one whose name is not a token, or whose value has a
    /// control character such as CR, LF or NUL. Invalid headers are not serialised.
    package private(set) var isValid = true

    package init() {}

    package var count: Int { fields.count }
    package var isEmpty: Bool { fields.isEmpty }

    /// Appends a field, even if there is already one of that name.
    package mutating func append(_ name: String, _ value: String) {
        let nameStart = bytes.count
        bytes.append(contentsOf: name.utf8)
        let valueStart = bytes.count
        bytes.append(contentsOf: value.utf8)
        let name = nameStart..<valueStart
        let value = valueStart..<bytes.count
        let isField =
            !name.isEmpty && bytes[name].allSatisfy(isTokenByte)
            && bytes[value].allSatisfy(isFieldValueByte)
        if !isField { isValid = false }
        append(name: name, value: value)
    }

    /// The value of the first field of that name; setting it replaces every such field.
    package subscript(name: String) -> String? {
        get {
            guard let field = fields.first(where: { matches($0, name) }) else { return nil }
            return text(field.value)
        }
        set {
            fields = fields.filter { !matches($0, name) }
            if let newValue { append(name, newValue) }
        }
    }

    /// The values of every field of that name, in order.
    package func values(_ name: String) -> [String] {
        fields.filter { matches($0, name) }.map { text($0.value) }
    }

    package func contains(_ name: String) -> Bool { fields.contains { matches($0, name) } }

    private func matches(_ field: Field, _ name: String) -> Bool {
        let utf8 = name.utf8
        guard field.name.count == utf8.count else { return false }
        return zip(bytes[field.name], utf8).allSatisfy { lowercased($0) == lowercased($1) }
    }

    private func text(_ range: Range<Int>) -> String {
        String(decoding: bytes[range], as: UTF8.self)
    }

    /// Adds a field that is known to be valid, by its position in the bytes that `adopt` will
    /// provide.
    mutating func append(name: Range<Int>, value: Range<Int>) {
        if fields.isEmpty { fields.reserveCapacity(8) }
        fields.append(
            Field(
                nameStart: UInt32(name.lowerBound), nameEnd: UInt32(name.upperBound),
                valueStart: UInt32(value.lowerBound), valueEnd: UInt32(value.upperBound)))
    }
}

extension HTTPHeaders {
    /// Takes over the bytes that the ranges passed to `append(name:value:)` refer to.
    mutating func adopt(_ head: Span<UInt8>) {
        precondition(bytes.isEmpty)
        bytes.append(head)
    }

    /// Calls `body` with the bytes of each field's name and value, in order.
    func forEachField(_ body: (_ name: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>) -> Void) {
        for field in fields { body(bytes[field.name], bytes[field.value]) }
    }
}

extension HTTPHeaders: Sequence {
    package struct Iterator: IteratorProtocol {
        private let headers: HTTPHeaders
        private var position = 0

        fileprivate init(_ headers: HTTPHeaders) { self.headers = headers }

        package mutating func next() -> (name: String, value: String)? {
            guard position < headers.fields.count else { return nil }
            let field = headers.fields[position]
            position += 1
            return (headers.text(field.name), headers.text(field.value))
        }
    }

    package func makeIterator() -> Iterator { Iterator(self) }
}

extension HTTPHeaders: ExpressibleByDictionaryLiteral {
    package init(dictionaryLiteral elements: (String, String)...) {
        for (name, value) in elements { append(name, value) }
    }
}

extension HTTPHeaders: CustomStringConvertible {
    package var description: String {
        map { "\($0.name): \($0.value)" }.joined(separator: "\n")
    }
}
