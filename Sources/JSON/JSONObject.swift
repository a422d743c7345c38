/// An object's members, in the order in which they were parsed or set.
///
/// There are few of them: a linear search costs less than hashing the name.
package struct JSONObject: Sendable {
    package typealias Member = (name: String, value: JSONValue)

    package private(set) var members: [Member]

    /// For members that are known to have different names.
    init(unique members: [Member]) { self.members = members }

    /// The dictionary's entries, in the order of their keys.
    package init(_ entries: [String: JSONValue]) {
        members = entries.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    package subscript(name: String) -> JSONValue? {
        get { place(of: name).map { members[$0].value } }
        set {
            switch (place(of: name), newValue) {
            case (let place?, let value?): members[place].value = value
            case (let place?, nil): members.remove(at: place)
            case (nil, let value?): members.append((name, value))
            case (nil, nil): break
            }
        }
    }

    /// To JSON, names are equal if their characters are; to Swift, also if they only look the same,
    /// as the two forms of an accented letter do.
    private func place(of name: String) -> Int? {
        members.firstIndex { $0.name == name && $0.name.utf8.elementsEqual(name.utf8) }
    }

    package var names: [String] { members.map(\.name) }

    package func mapValues<T, E: Error>(
        _ transform: (JSONValue) throws(E) -> T
    ) throws(E) -> [String: T] {
        var values: [String: T] = [:]
        for member in members { values[member.name] = try transform(member.value) }
        return values
    }

    package func compactMapValues<T>(_ transform: (JSONValue) -> T?) -> [String: T] {
        mapValues(transform).compactMapValues { $0 }
    }
}

extension JSONObject: Equatable {
    /// The order has no meaning (RFC 8259, section 4).
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.members.count == right.members.count
            && left.members.allSatisfy { right[$0.name] == $0.value }
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    /// A duplicate name is a bug, and traps in debug builds.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self.init(unique: elements.map { ($0, $1) })
        assert(Set(names).count == members.count, "a member is duplicated")
    }
}
