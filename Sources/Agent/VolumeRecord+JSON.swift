package import Base
package import JSON
package import VolumeCore

// The state file's document: `{"version":1,"volumes":[{"id":…,"options":{…},…}]}`.

/// Why a state file's document is none that this version wrote.
package struct StateError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
}

package func stateDocument(of records: [VolumeRecord]) -> JSONValue {
    ["version": 1, "volumes": .array(records.map(\.json))]
}

/// The counts' document: `{"vol-…":{"counts":{"ID":2},"unanswered":["ID"]}}`.
package func countsDocument(of records: [VolumeRecord]) -> JSONValue {
    var members: [String: JSONValue] = [:]
    for record in records where !record.mounts.isEmpty {
        members["\(record.id)"] = [
            "counts": .object(record.mounts.counts.mapValues { .integer(Int64($0)) }),
            "unanswered": .array(record.mounts.unanswered.sorted().map { .string($0) }),
        ]
    }
    return .object(members)
}

/// The counts of one volume in their document. What is not understood is no count.
package func counts(of id: VolumeID, in document: JSONValue) -> MountCounts {
    let entry = document["\(id)"]
    let counts = entry?["counts"]?.object?.compactMapValues { $0.integer.map { Int($0) } }
    let unanswered = entry?["unanswered"]?.array?.compactMap(\.string)
    return MountCounts(counts ?? [:], unanswered: Set(unanswered ?? []))
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
        var members: [String: JSONValue] = [
            "id": .string("\(id)"),
            "name": .string(name),
            "options": .object(options.dictionary.mapValues { .string($0) }),
            "createdAt": .integer(createdAt),
            "hasLease": .bool(hasLease),
            "isFormatting": .bool(isFormatting),
            "isRemoved": .bool(isRemoved),
        ]
        members["deviceName"] = deviceName.map { .string($0) }
        return .object(members)
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
                deviceName: json["deviceName"]?.string,
                hasLease: hasLease, isRemoved: isRemoved)
            isFormatting = json["isFormatting"]?.bool ?? false
        } catch { throw StateError(description: "the options of \(id): \(error)") }
    }
}
