/// The parameters of a Query API request, from its form body.
package struct QueryParameters: Sendable, Equatable {
    private var values: [String: String]

    package init(_ values: [String: String]) { self.values = values }

    /// Decodes `application/x-www-form-urlencoded`; nil if the encoding is invalid.
    package init?(form: [UInt8]) {
        values = [:]
        for pair in form.split(separator: UInt8(ascii: "&")) {
            let parts = pair.split(
                separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = decode(parts[0]) else { return nil }
            guard let value = parts.count > 1 ? decode(parts[1]) : "" else { return nil }
            values[name] = value
        }
    }

    package subscript(_ name: String) -> String? { values[name] }

    /// All but these.
    func without(_ names: Set<String>) -> QueryParameters {
        QueryParameters(values.filter { !names.contains($0.key) })
    }

    /// The members `name.1`, `name.2`, … in the order of their numbers.
    package func list(_ name: String) -> [String] {
        indices(name).compactMap { values["\(name).\($0)"] }
    }

    /// The numbers that follow `name.`, ascending.
    package func indices(_ name: String) -> [Int] {
        var found: Set<Int> = []
        for key in values.keys where key.hasPrefix(name + ".") {
            let rest = key.dropFirst(name.count + 1).prefix { $0 != "." }
            if let index = Int(rest) { found.insert(index) }
        }
        return found.sorted()
    }

    /// Nil if it is absent; throws if it is neither `true` nor `false`.
    func flag(_ name: String) throws(APIError) -> Bool? {
        guard let text = values[name] else { return nil }
        switch text.lowercased() {
        case "true": return true
        case "false": return false
        default: throw .invalidValue(text, for: name, "Expecting a boolean value.")
        }
    }

    func integer(_ name: String) throws(APIError) -> Int? {
        guard let text = values[name] else { return nil }
        guard let number = Int(text) else {
            throw .invalidValue(text, for: name, "Expecting an integer value.")
        }
        return number
    }

    /// The volumes that a Describe action is to describe, all on one page; empty for a search.
    func namedVolumes() throws(APIError) -> [String] {
        let named = list("VolumeId")
        guard named.isEmpty || values["MaxResults"] == nil else {
            throw APIError(
                "InvalidParameterCombination",
                "The parameter volumeSet cannot be used with the parameter maxResults")
        }
        return named
    }

    func required(_ name: String) throws(APIError) -> String {
        guard let value = values[name], !value.isEmpty else {
            throw .missingParameter(name.prefix(1).lowercased() + name.dropFirst())
        }
        return value
    }
}

private func decode(_ bytes: ArraySlice<UInt8>) -> String? {
    var decoded: [UInt8] = []
    var rest = bytes
    while let byte = rest.popFirst() {
        switch byte {
        case UInt8(ascii: "+"): decoded.append(UInt8(ascii: " "))
        case UInt8(ascii: "%"):
            guard let high = rest.popFirst().flatMap(hexadecimal),
                let low = rest.popFirst().flatMap(hexadecimal)
            else { return nil }
            decoded.append(high << 4 | low)
        default: decoded.append(byte)
        }
    }
    return String(validating: decoded, as: UTF8.self)
}

private func hexadecimal(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}
