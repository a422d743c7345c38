import Base
package import JSON
package import VolumeCore

// The state files' documents: `{"version":1,"volumes":[{"id":…,"options":{…},…}]}`.

/// Why a state file's document is none that this version wrote.
package struct StateError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
}

package func stateDocument(of records: [VolumeRecord]) -> JSONValue {
    ["version": 1, "volumes": .array(records.map(\.json))]
}

/// The same of what is mounted alone, with its counts: `"counts":{"ID":2},"unanswered":["ID"]`.
package func mountsDocument(of records: [VolumeRecord]) -> JSONValue {
    let mounted = records.filter { !$0.mounts.isEmpty }
    return ["version": 1, "volumes": .array(mounted.map(\.jsonWithCounts))]
}

/// The records of both documents together. `saved` is nil where it could not be understood: then
/// what is mounted is known all the same, with its options.
package func merged(_ saved: [VolumeRecord]?, mounted: [VolumeRecord]) -> [VolumeRecord] {
    guard var records = saved else { return mounted }
    let counts = Dictionary(mounted.map { ($0.id, $0.mounts) }, uniquingKeysWith: { $1 })
    for index in records.indices {
        records[index].mounts = counts[records[index].id] ?? MountCounts()
    }
    return records
}

package func records(from document: JSONValue) throws(StateError) -> [VolumeRecord] {
    guard let version = document["version"]?.integer else {
        throw StateError(description: "it has no version")
    }
    guard version == 1 else {
        throw StateError(description: "it is of version \(version), and this program reads 1")
    }
    guard let volumes = document["volumes"]?.array else {
        throw StateError(description: "it has no volumes")
    }
    var records: [VolumeRecord] = []
    for volume in volumes { records.append(try VolumeRecord(json: volume)) }
    return records
}

extension VolumeRecord {
    fileprivate var json: JSONValue {
        var members: JSONObject = [
            "id": .string("\(id)"),
            "name": .string(name),
            "options": .object(JSONObject(options.dictionary.mapValues { .string($0) })),
            "createdAt": .integer(createdAt),
            "hasLease": .bool(hasLease),
            "isOurs": .bool(isOurs),
            "isFormatting": .bool(isFormatting),
            "isRemoved": .bool(isRemoved),
        ]
        members["deviceName"] = deviceName.map { .string($0) }
        return .object(members)
    }

    fileprivate var jsonWithCounts: JSONValue {
        var members = json.object ?? [:]
        members["counts"] = .object(
            JSONObject(mounts.counts.mapValues { .integer(Int64($0)) }))
        members["unanswered"] = .array(mounts.unanswered.sorted().map { .string($0) })
        return .object(members)
    }

    private static func counts(in json: JSONValue) -> MountCounts {
        let counts = json["counts"]?.object?.compactMapValues { $0.integer.map { Int($0) } }
        let unanswered = json["unanswered"]?.array?.compactMap(\.string)
        return MountCounts(counts ?? [:], unanswered: Set(unanswered ?? []))
    }

    fileprivate init(json: JSONValue) throws(StateError) {
        guard let id = json["id"]?.string.flatMap({ VolumeID($0) }) else {
            throw StateError(description: "a volume has no id")
        }
        guard let name = json["name"]?.string, let hasLease = json["hasLease"]?.bool,
            let isRemoved = json["isRemoved"]?.bool, let createdAt = json["createdAt"]?.integer,
            let options = json["options"]?.object?.compactMapValues(\.string)
        else { throw StateError(description: "the entry of \(id) is incomplete") }
        do {
            self.init(
                id: id, name: name, options: try VolumeOptions(options), createdAt: createdAt,
                mounts: Self.counts(in: json), deviceName: json["deviceName"]?.string,
                hasLease: hasLease, isRemoved: isRemoved)
            // Versions that did not tell apart noted a name of what they attached, as a rule.
            isOurs = json["isOurs"]?.bool ?? (deviceName != nil)
            isFormatting = json["isFormatting"]?.bool ?? false
        } catch { throw StateError(description: "the options of \(id): \(error)") }
    }
}
