import Base
import JSON

/// An error in the configuration or in a control request: one line that names the member.
struct InputError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Reads an object's members, and rejects unknown ones: a misspelt member is an error and does not
/// silently get a default.
struct ObjectReader {
    private let name: String
    private let members: JSONObject
    private var unread: Set<String>

    init(_ value: JSONValue, _ name: String) throws(InputError) {
        guard case .object(let members) = value else { throw InputError("\(name): not an object") }
        self.name = name
        self.members = members
        unread = Set(members.names)
    }

    /// Call this after reading every known member.
    func finish() throws(InputError) {
        if let member = unread.min() { throw InputError("\(name): unknown member \(member)") }
    }

    mutating func value(_ member: String) -> JSONValue? {
        unread.remove(member)
        return if case .some(.null) = members[member] { nil } else { members[member] }
    }

    mutating func string(_ member: String) throws(InputError) -> String? {
        guard let value = value(member) else { return nil }
        guard let text = value.string else { throw wrong(member, "a string") }
        return text
    }

    mutating func requiredString(_ member: String) throws(InputError) -> String {
        guard let text = try string(member) else { throw wrong(member, "there, and a string") }
        return text
    }

    mutating func integer(
        _ member: String, in range: ClosedRange<Int>
    ) throws(InputError) -> Int? {
        guard let value = value(member) else { return nil }
        guard let number = value.integer.map({ Int($0) }), range.contains(number) else {
            throw wrong(member, "an integer in \(range)")
        }
        return number
    }

    mutating func number(_ member: String) throws(InputError) -> Double? {
        switch value(member) {
        case nil: return nil
        case .integer(let number): return Double(number)
        case .real(let number): return number
        default: throw wrong(member, "a number")
        }
    }

    mutating func bool(_ member: String) throws(InputError) -> Bool? {
        guard let value = value(member) else { return nil }
        guard let flag = value.bool else { throw wrong(member, "true or false") }
        return flag
    }

    mutating func array(_ member: String) throws(InputError) -> [JSONValue]? {
        guard let value = value(member) else { return nil }
        guard let elements = value.array else { throw wrong(member, "an array") }
        return elements
    }

    mutating func strings(_ member: String) throws(InputError) -> [String: String] {
        guard let value = value(member) else { return [:] }
        var reader = try ObjectReader(value, "\(name).\(member)")
        var strings: [String: String] = [:]
        for key in value.object?.names ?? [] {
            strings[key] = try reader.requiredString(key)
        }
        return strings
    }

    mutating func integers(_ member: String) throws(InputError) -> [String: Int]? {
        guard let value = value(member) else { return nil }
        var reader = try ObjectReader(value, "\(name).\(member)")
        var integers: [String: Int] = [:]
        for key in value.object?.names ?? [] {
            integers[key] = try reader.integer(key, in: 0...Int.max)
        }
        return integers
    }

    mutating func choice<T: RawRepresentable<String> & CaseIterable>(
        _ member: String, _ type: T.Type
    ) throws(InputError) -> T? {
        guard let text = try string(member) else { return nil }
        guard let choice = T(rawValue: text) else {
            throw wrong(member, "one of " + T.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return choice
    }

    func wrong(_ member: String, _ expected: String) -> InputError {
        InputError("\(name).\(member): must be \(expected)")
    }
}
