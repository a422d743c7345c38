import Base
package import JSON
package import VolumeCore

// A record as JSON: `{"id":…,"name":…,"options":{…},…}`, The options of its first name are next to
// its own members, because a volume once had only one name; `otherNames` has its other names.

extension VolumeRecord {
    /// The saved form. Members that this version does not know are written back unchanged.
    package var savedText: [UInt8] {
        verbatim ?? JSONValue.object(saved(names)).serialised()
    }

    /// The same with the counts. The name that it is mounted by comes first, so that its options
    /// are where every version reads them.
    package var savedTextWithCounts: [UInt8] {
        let order = names.filter { $0.name == name } + names.filter { $0.name != name }
        var members = saved(order)
        members["mountedAs"] = .string(name)
        members["counts"] = .object(
            JSONObject(mounts.counts.mapValues { .integer(Int64($0)) }))
        members["unanswered"] = .array(mounts.unanswered.sorted().map { .string($0) })
        members["mountedNames"] = .array(mounts.names.sorted().map { .string($0) })
        return JSONValue.object(members).serialised()
    }

    private func saved(_ names: [VolumeNaming]) -> JSONObject {
        var members: JSONObject = ["id": .string("\(id)")]
        let first = names.first ?? VolumeNaming(name: name, options: options, createdAt: 0)
        members.merge(first.members)
        members["hasLease"] = .bool(hasLease)
        members["isFormatting"] = .bool(isFormatting)
        members["isRemoved"] = .bool(isRemoved)
        members["deviceName"] = deviceName.map { .string($0) }
        if isOurs || deviceName != nil { members["isOurs"] = .bool(isOurs) }
        if isOwnershipDue { members["isOwnershipDue"] = true }
        if names.count > 1 {
            members["otherNames"] = .array(
                names.dropFirst().map { .object($0.members.merged(with: $0.kept)) })
        }
        return members.merged(with: first.kept).merged(with: others)
    }

    private static let known: Set<String> = [
        "id", "name", "options", "createdAt", "hasLease", "isFormatting", "isRemoved", "deviceName",
        "isOurs", "isOwnershipDue", "otherNames", "mountedAs", "counts", "unanswered",
        "mountedNames",
    ]

    /// Parses a saved record. A record that is not understood is kept unchanged under its name, but
    /// cannot be used. Nil if it does not even name its volume.
    package init?(saved json: JSONValue) {
        guard let members = json.object, let id = json["id"]?.string.flatMap({ VolumeID($0) })
        else { return nil }
        do { try self.init(id, understanding: members) } catch {
            let named = json["name"]?.string.flatMap { VolumeName.isValid($0) ? $0 : nil }
            self.init(
                id: id,
                names: [
                    VolumeNaming(
                        name: named ?? "\(id)", options: VolumeOptions(),
                        createdAt: json["createdAt"]?.integer ?? 0, flaw: "\(error)")
                ])
            verbatim = JSONValue.object(members).serialised()
        }
        mounts = Self.counts(in: json)
        if let name = json["mountedAs"]?.string, let naming = naming(name) {
            self.name = name
            options = naming.options
        }
    }

    private init(_ id: VolumeID, understanding json: JSONObject) throws(StateError) {
        guard let hasLease = json["hasLease"]?.bool else { throw Self.lacks("hasLease") }
        guard let isRemoved = json["isRemoved"]?.bool else { throw Self.lacks("isRemoved") }
        var names = [try VolumeNaming(understanding: json, keeping: ["options"])]
        let others = json["otherNames"] ?? []
        guard let others = others.array else { throw Self.lacks("otherNames") }
        for other in others {
            guard let members = other.object else { throw Self.lacks("otherNames") }
            names.append(try VolumeNaming(understanding: members, keeping: members.names))
        }
        self.init(id: id, names: isRemoved ? [] : names)
        self.hasLease = hasLease
        deviceName = json["deviceName"]?.string
        // Versions without this member usually recorded a device name only for what they attached.
        isOurs = json["isOurs"]?.bool ?? (deviceName != nil)
        isFormatting = json["isFormatting"]?.bool ?? false
        isOwnershipDue = json["isOwnershipDue"]?.bool ?? false
        let unknown = json.names.filter { !Self.known.contains($0) }
        self.others = unknown.isEmpty ? nil : text(of: json.only(unknown))
    }

    private static func lacks(_ member: String) -> StateError {
        StateError(description: "its \(member) is missing or of another kind")
    }

    private static func counts(in json: JSONValue) -> MountCounts {
        let counts = json["counts"]?.object?.compactMapValues { $0.integer.map { Int($0) } }
        let unanswered = json["unanswered"]?.array?.compactMap(\.string)
        let names = json["mountedNames"]?.array?.compactMap(\.string)
        return MountCounts(
            counts ?? [:], unanswered: Set(unanswered ?? []), names: Set(names ?? []))
    }
}

extension VolumeNaming {
    /// Options that are not understood are in `kept`; where there are none, none must be saved: the
    /// next run would take them for the default ones.
    fileprivate var members: JSONObject {
        var members: JSONObject = ["name": .string(name)]
        if flaw == nil {
            members["options"] = .object(
                JSONObject(options.dictionary.mapValues { .string($0) }))
        }
        members["createdAt"] = .integer(createdAt)
        return members
    }

    /// - Parameter kept: the members to keep if the options are not understood. If they are
    ///   understood, the members that this version does not know are kept.
    fileprivate init(
        understanding json: JSONObject, keeping kept: [String]
    ) throws(StateError) {
        guard let name = json["name"]?.string, VolumeName.isValid(name) else {
            throw StateError(description: "its name is missing or invalid")
        }
        guard let createdAt = json["createdAt"]?.integer else {
            throw StateError(description: "its createdAt is missing or of another kind")
        }
        self.init(name: name, options: VolumeOptions(), createdAt: createdAt)
        do {
            options = try VolumeOptions(saved: json["options"])
            let unknown = kept.filter { !["name", "options", "createdAt"].contains($0) }
            if !unknown.isEmpty { self.kept = text(of: json.only(unknown)) }
        } catch {
            flaw = "\(error)"
            self.kept = text(of: json.only(kept))
        }
    }
}

extension VolumeOptions {
    fileprivate init(saved json: JSONValue?) throws {
        guard let members = json?.object else {
            throw StateError(description: "its options are missing or of another kind")
        }
        let options = try members.mapValues { value throws(StateError) in
            if let text = value.string { return text }
            throw StateError(description: "an option's value is not a string")
        }
        try self.init(options)
    }
}

private func text(of members: JSONObject) -> String {
    String(decoding: JSONValue.object(members).serialised(), as: UTF8.self)
}

extension JSONObject {
    fileprivate func only(_ names: [String]) -> JSONObject {
        var some: JSONObject = [:]
        for name in names { some[name] = self[name] }
        return some
    }

    fileprivate mutating func merge(_ other: JSONObject) {
        for (name, value) in other.members { self[name] = value }
    }

    /// With its own members replaced by those of an object that was kept as text.
    fileprivate func merged(with text: String?) -> JSONObject {
        guard let text, let kept = try? JSONValue.parse(Array(text.utf8)).object else {
            return self
        }
        var all = self
        all.merge(kept)
        return all
    }
}
