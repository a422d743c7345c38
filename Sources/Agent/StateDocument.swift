package import Base
package import JSON
package import VolumeCore

// The documents of the state files. A state file is
//
//     {"version":1,"instance":"i-…","boot":"…","generation":"…","volumes":[
//     {"id":…},
//     {"id":…}
//     ]}
//
// JSON with one record per line, so that each record can be read, kept or replaced without parsing
// the others. The journal has the same lines, without commas: first `{"follows":"…"}`, the
// generation of the document that it follows; then records that replace those of the same volume,
// `{"forget":"vol-…"}`, and `{"instance":…,"boot":…}` if these have changed.

/// Why a text is not a state document.
package struct StateError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
}

/// A state file's contents, split into lines and parsed no further.
package struct StateDocument: Sendable {
    /// All members except `volumes`; those of a newer version are written back unchanged.
    package var header: JSONObject
    /// The records' texts, in the file's order; nil for one that was replaced or forgotten.
    private var lines: [ArraySlice<UInt8>?] = []
    private var places: [VolumeID: Int] = [:]
    /// Texts that are not JSON. They are not written back, so the reader of the file must keep a
    /// copy.
    package private(set) var damaged: [ArraySlice<UInt8>] = []

    package init() { header = ["version": 1] }

    package init(parsing bytes: [UInt8]) throws {
        if let (head, lines) = Self.lines(of: bytes) {
            header = head
            for line in lines { add(line) }
        } else {
            guard var members = try JSONValue.parse(bytes).object else {
                throw StateError(description: "it is not a JSON object")
            }
            guard let volumes = members["volumes"]?.array else {
                throw StateError(description: "it has no volumes")
            }
            members["volumes"] = nil
            header = members
            for volume in volumes { add(volume.serialised()[...]) }
        }
        guard let version = header["version"]?.integer else {
            throw StateError(description: "it has no version")
        }
        guard version == 1 else {
            throw StateError(description: "it is of version \(version), and this program reads 1")
        }
    }

    /// Nil if the document is not laid out in lines.
    private static func lines(
        of bytes: [UInt8]
    ) -> (header: JSONObject, lines: [ArraySlice<UInt8>])? {
        var lines = wholeLines(of: bytes)
        guard lines.last?.elementsEqual("]}".utf8) == true,
            lines[0].suffix(opening.count).elementsEqual(opening),
            var header = try? JSONValue.parse(lines[0] + Array("]}".utf8)).object
        else { return nil }
        header["volumes"] = nil
        lines.removeLast()
        lines.removeFirst()
        return (header, lines.map { $0.last == UInt8(ascii: ",") ? $0.dropLast() : $0 })
    }

    /// The complete lines, without their line ends.
    private static func wholeLines(of bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        var start = 0
        let span = bytes.span
        for index in span.indices where span[index] == newline {
            lines.append(bytes[start..<index])
            start = index + 1
        }
        return lines
    }

    private static let newline = UInt8(ascii: "\n")
    private static let opening = Array(#""volumes":["#.utf8)

    private mutating func add(_ line: ArraySlice<UInt8>) {
        if let id = RecordText(line)?.id {
            put(line, of: id)
        } else if let json = try? JSONValue.parse(Array(line)) {
            if let id = json["id"]?.string.flatMap({ VolumeID($0) }) {
                put(line, of: id)
            } else {
                lines.append(line)
            }
        } else {
            damaged.append(line)
        }
    }

    package mutating func put(_ line: ArraySlice<UInt8>, of id: VolumeID) {
        if let place = places[id] {
            lines[place] = line
        } else {
            places[id] = lines.count
            lines.append(line)
        }
    }

    package mutating func forget(_ id: VolumeID) {
        if let place = places.removeValue(forKey: id) { lines[place] = nil }
    }

    package mutating func apply(_ changes: [SavedChange]) {
        for change in changes {
            switch change {
            case .put(let record): put(record.savedText[...], of: record.id)
            case .forget(let id): forget(id)
            }
        }
    }

    /// The whole document.
    package var bytes: [UInt8] {
        var bytes = JSONValue.object(header).serialised()
        bytes.removeLast()
        bytes += Array(",".utf8) + Self.opening
        var isFirst = true
        for case let line? in lines {
            if !isFirst { bytes.append(UInt8(ascii: ",")) }
            isFirst = false
            bytes.append(Self.newline)
            bytes += line
        }
        return bytes + Array("\n]}\n".utf8)
    }

    package var owner: StateOwner? {
        get {
            header["boot"]?.string.map {
                StateOwner(
                    instance: header["instance"]?.string.flatMap { InstanceID($0) }, boot: $0)
            }
        }
        set {
            header["boot"] = newValue.map { .string($0.boot) }
            header["instance"] = newValue?.instance.map { .string("\($0)") }
        }
    }

    /// The generation that a journal must name to follow this document.
    package var generation: String? {
        get { header["generation"]?.string }
        set { header["generation"] = newValue.map { .string($0) } }
    }

    /// The records, without those that do not name their volume.
    package var state: SavedState {
        var state = SavedState(owner: owner)
        for case let line? in lines {
            let text = RecordText(line)
            if let text, text.isAtRest {
                state.resting.append(RestingRecord(id: text.id, name: text.name, text: line))
            } else if let json = try? JSONValue.parse(Array(line)),
                let record = VolumeRecord(saved: json)
            {
                state.records.append(record)
            } else if let text {
                // The record is damaged in the middle: parsing it detects this, and keeps it.
                state.resting.append(RestingRecord(id: text.id, name: text.name, text: line))
            }
        }
        return state
    }

    /// How many records do not name their volume.
    package var nameless: Int { lines.count { $0 != nil } - places.count }
}

// MARK: The journal

extension StateDocument {
    /// The first line of a journal that follows a document.
    package static func journalHead(_ generation: String) -> [UInt8] {
        line(["follows": .string(generation)])
    }

    package static func journal(
        of changes: [SavedChange], owner: StateOwner?
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        if let owner {
            var members: JSONObject = ["boot": .string(owner.boot)]
            members["instance"] = owner.instance.map { .string("\($0)") }
            bytes += line(members)
        }
        for change in changes {
            switch change {
            case .put(let record): bytes += record.savedText + [newline]
            case .forget(let id): bytes += line(["forget": .string("\(id)")])
            }
        }
        return bytes
    }

    private static func line(_ members: JSONObject) -> [UInt8] {
        JSONValue.object(members).serialised() + [newline]
    }

    /// Applies a journal. Returns the size of its complete lines in bytes; anything after them was
    /// written incompletely. Nil if it follows another document.
    package mutating func apply(journal bytes: [UInt8]) -> Int? {
        let lines = Self.wholeLines(of: bytes)
        guard let generation, let head = lines.first,
            head.elementsEqual(Self.journalHead(generation).dropLast())
        else { return nil }
        var whole = head.count + 1
        for line in lines.dropFirst() {
            guard applyLine(line) else { break }
            whole += line.count + 1
        }
        return whole
    }

    private mutating func applyLine(_ line: ArraySlice<UInt8>) -> Bool {
        if let id = RecordText(line)?.id {
            put(line, of: id)
            return true
        }
        guard let json = try? JSONValue.parse(Array(line)), json.object != nil else { return false }
        if let id = json["id"]?.string.flatMap({ VolumeID($0) }) {
            put(line, of: id)
        } else if let id = json["forget"]?.string.flatMap({ VolumeID($0) }) {
            forget(id)
        } else if json["boot"] != nil {
            header["boot"] = json["boot"]
            header["instance"] = json["instance"]
        }
        return true
    }
}

/// The information in the beginning and end of a record's text, in the layout that this program
/// writes. Parsing all of it takes fifty times as long.
struct RecordText {
    let id: VolumeID
    let name: String
    /// Where the options begin.
    private let optionsStart: Int
    private let text: ArraySlice<UInt8>

    /// Nil if the text has another layout.
    init?(_ text: ArraySlice<UInt8>) {
        var place = text.startIndex
        guard let id = Self.string(after: Self.beforeID, in: text, at: &place),
            let id = VolumeID(id),
            let name = Self.string(after: Self.beforeName, in: text, at: &place),
            VolumeName.isValid(name), Self.passes(Self.behindName, in: text, at: &place),
            text.last == UInt8(ascii: "}")
        else { return nil }
        self.id = id
        self.name = name
        self.text = text
        optionsStart = place
    }

    /// Whether the record contains nothing else: no device, no lease, no other name, nothing from a
    /// newer version.
    var isAtRest: Bool {
        var place = text.endIndex - Self.ending.count
        return place >= optionsStart && Self.passes(Self.ending, in: text, at: &place)
    }

    /// The name of a resting record without options other than the volume's id. Most records are of
    /// this kind, and need not be parsed. Nil for others.
    var plainNaming: VolumeNaming? {
        var options = VolumeOptions()
        var place = optionsStart
        if Self.passes(Self.beforeVolumeID, in: text, at: &place) {
            guard Self.passes(Array("\(id)\"".utf8), in: text, at: &place) else { return nil }
            options.volumeID = id
        }
        let end = text.endIndex - Self.ending.count
        guard Self.passes(Self.beforeCreatedAt, in: text, at: &place), place < end, isAtRest else {
            return nil
        }
        return Int64(String(decoding: text[place..<end], as: UTF8.self)).map {
            VolumeNaming(name: name, options: options, createdAt: $0)
        }
    }

    private static let beforeID = Array(#"{"id":""#.utf8)
    private static let beforeName = Array(#","name":""#.utf8)
    private static let behindName = Array(#","options":{"#.utf8)
    private static let beforeVolumeID = Array(#""volume-id":""#.utf8)
    private static let beforeCreatedAt = Array(#"},"createdAt":"#.utf8)
    private static let ending = Array(
        #","hasLease":false,"isFormatting":false,"isRemoved":false}"#.utf8)

    /// Whether `expected` is at the position, which then moves behind it.
    private static func passes(
        _ expected: [UInt8], in text: ArraySlice<UInt8>, at place: inout Int
    ) -> Bool {
        guard text.endIndex - place >= expected.count else { return false }
        for index in expected.indices where text[place + index] != expected[index] {
            return false
        }
        place += expected.count
        return true
    }

    /// The string after `head`; the position moves behind it.
    private static func string(
        after head: [UInt8], in text: ArraySlice<UInt8>, at place: inout Int
    ) -> String? {
        guard passes(head, in: text, at: &place) else { return nil }
        var end = place
        let last = min(text.endIndex, place + Limit.volumeNameMax + 1)
        while end < last, text[end] != UInt8(ascii: "\"") { end += 1 }
        guard end < last else { return nil }
        defer { place = end + 1 }
        return String(decoding: text[place..<end], as: UTF8.self)
    }
}

// MARK: What is mounted

/// The records of mounted volumes, with their counts.
package func mountsDocument(of records: [VolumeRecord], owner: StateOwner) -> [UInt8] {
    var document = StateDocument()
    document.owner = owner
    for record in records where !record.mounts.isEmpty {
        document.put(record.savedTextWithCounts[...], of: record.id)
    }
    return document.bytes
}

extension SavedState {
    /// Adds what the other file says about mounted volumes. `saved` is nil if the first file could
    /// not be understood; mounted volumes are then still known, with their options.
    ///
    /// Counts from another boot belong to mounts that no longer exist.
    package init(_ saved: SavedState?, mounted: SavedState?, boot: String) {
        let counted = mounted?.records ?? []
        self = saved ?? SavedState(owner: mounted?.owner, records: counted)
        guard let mounted, mounted.owner == nil || mounted.owner?.boot == boot else {
            for index in records.indices { records[index].mounts = MountCounts() }
            return
        }
        // After a boot this file is written first.
        if let owner = mounted.owner { self.owner = owner }
        let counts = Dictionary(counted.map { ($0.id, $0) }, uniquingKeysWith: { $1 })
        guard !counts.isEmpty else { return }
        wake { counts[$0] != nil }
        for index in records.indices {
            guard let mounted = counts[records[index].id] else { continue }
            records[index].mounts = mounted.mounts
            guard records[index].naming(mounted.name) != nil else { continue }
            records[index].name = mounted.name
            records[index].options = mounted.options
        }
    }

    /// Parses the requested resting records.
    private mutating func wake(_ isMeant: (VolumeID) -> Bool) {
        records += resting.filter { isMeant($0.id) }.map(VolumeRecord.init)
        resting.removeAll { isMeant($0.id) }
    }
}

extension VolumeRecord {
    /// Parses a resting record. A record that cannot be understood is kept, but cannot be used.
    package init(_ resting: RestingRecord) {
        if let naming = RecordText(resting.text)?.plainNaming {
            self.init(id: resting.id, names: [naming])
            return
        }
        let bytes = Array(resting.text)
        if let json = try? JSONValue.parse(bytes), let record = VolumeRecord(saved: json) {
            self = record
        } else {
            self.init(
                id: resting.id,
                names: [
                    VolumeNaming(
                        name: resting.name, options: VolumeOptions(), createdAt: 0,
                        flaw: "it is not valid JSON")
                ])
            verbatim = bytes
        }
    }
}
