import Agent
import Base
import JSON
import Testing
import VolumeCore

@Suite struct StateDocumentTests {
    private static let owner = StateOwner(instance: Fixture.here, boot: "b")
    private static let small = VolumeID(literal: "vol-1a2b3c4d")
    private static let mounted: VolumeRecord = {
        var record = VolumeRecord(
            id: Fixture.id, name: "data", options: VolumeOptions(readOnly: true), createdAt: 7,
            mounts: MountCounts(["a": 2, "b": 1], unanswered: ["b"], names: ["data"]),
            deviceName: "/dev/sdf", hasLease: true)
        record.names.append(
            VolumeNaming(name: Fixture.name, options: VolumeOptions(), createdAt: 9))
        return record
    }()
    private static let idle = VolumeRecord(id: small, createdAt: 8)

    private func document(of records: [VolumeRecord]) -> StateDocument {
        var document = StateDocument()
        document.owner = Self.owner
        document.generation = "1"
        document.apply(records.map { .put($0) })
        return document
    }

    private func all(_ state: SavedState) -> [VolumeRecord] {
        state.records + state.resting.map(VolumeRecord.init)
    }

    private func parsed(_ text: String) throws -> StateDocument {
        try StateDocument(parsing: Array(text.utf8))
    }

    @Test func `records and their owner survive being saved`() throws {
        let removed = VolumeRecord(
            id: Fixture.id, createdAt: 0, deviceName: "/dev/sdf", hasLease: true, isRemoved: true)
        let state = try StateDocument(parsing: document(of: [removed, Self.idle]).bytes).state
        #expect(all(state) == [removed, Self.idle] && state.owner == Self.owner)
        #expect(state.resting.map(\.name) == ["\(Self.small)"])
    }

    @Test(arguments: [
        ["volume-id": "vol-1a2b3c4d"], ["fs-type": "ext4"], [:],
        ["volume-id": "vol-1a2b3c4d", "read-only": "true"],
    ])
    func `a record that rests is the same whether it was parsed or looked at`(
        options: [String: String]
    ) throws {
        let record = VolumeRecord(
            id: Self.small, name: "data", options: try VolumeOptions(options), createdAt: 1_234)
        let state = try StateDocument(parsing: document(of: [record]).bytes).state
        #expect(state.resting.map(VolumeRecord.init) == [record])
        #expect(VolumeRecord(saved: try JSONValue.parse(record.savedText)) == record)
    }

    private static let changes: [@Sendable (inout VolumeRecord) -> Void] = [
        { $0.isOurs = true }, { $0.deviceName = "/dev/sdf" }, { $0.hasLease = true },
        { $0.isFormatting = true }, { $0.isOwnershipDue = true }, { $0.names[0].createdAt = 9 },
    ]

    /// Without the first, for example, what this plugin attached would stay attached.
    @Test(arguments: changes.indices)
    func `every property of a volume survives being saved`(index: Int) throws {
        var record = Self.idle
        Self.changes[index](&record)
        #expect(all(try StateDocument(parsing: document(of: [record]).bytes).state) == [record])
    }

    @Test func `the document is JSON that the first version of it reads`() throws {
        var document = document(of: [Self.mounted, Self.idle])
        document.owner = nil
        let json = try JSONValue.parse(document.bytes)
        #expect(json["version"] == 1)
        #expect(json["volumes"]?.array?.map { $0["name"] } == ["data", .string("\(Self.small)")])
        for volume in json["volumes"]?.array ?? [] {
            #expect(volume["options"]?.object != nil && volume["createdAt"]?.integer != nil)
            #expect(volume["hasLease"]?.bool != nil && volume["isRemoved"]?.bool != nil)
        }
    }

    @Test func `a document of one line, as earlier versions wrote it, is read`() throws {
        let document = try parsed(
            #"{"version":1,"volumes":[{"id":"vol-1a2b3c4d","name":"vol-1a2b3c4d","options":{},"#
                + #""createdAt":8,"hasLease":false,"isFormatting":false,"isRemoved":false}]}"#)
        #expect(all(document.state) == [Self.idle] && document.state.owner == nil)
    }

    @Test func `counts survive with their volume and the name it is mounted by`() throws {
        var mounted = Self.mounted
        mounted.name = Fixture.name
        mounted.options = VolumeOptions()
        let counted = try StateDocument(
            parsing: mountsDocument(of: [mounted, Self.idle], owner: Self.owner))
        let saved = try StateDocument(parsing: document(of: [mounted, Self.idle]).bytes)
        let state = SavedState(saved.state, mounted: counted.state, boot: "b")
        #expect(state.records == [mounted] && state.resting.count == 1)
        // After a restart of the machine there is no such mount any more.
        let later = SavedState(saved.state, mounted: counted.state, boot: "c")
        #expect(later.records.map(\.mounts) == [MountCounts()])
    }

    @Test func `without one file, mounts are known with their options and counts`() throws {
        let counted = try StateDocument(
            parsing: mountsDocument(of: [Self.mounted, Self.idle], owner: Self.owner))
        let state = SavedState(nil, mounted: counted.state, boot: "b")
        #expect(all(state) == [Self.mounted] && state.owner == Self.owner)
    }

    @Test func `counts of a forgotten volume do not bring it back`() throws {
        let counted = try StateDocument(
            parsing: mountsDocument(of: [Self.mounted], owner: Self.owner))
        let saved = document(of: [Self.idle]).state
        #expect(all(SavedState(saved, mounted: counted.state, boot: "b")) == [Self.idle])
    }

    @Test(arguments: [
        "", "{", "[]", "{}", #"{"version":2,"volumes":[]}"#, #"{"version":1}"#,
        "{\"version\":1,\"volumes\":[\n{\"id\":\"vol-1a2b3c4d\"}\n",
    ])
    func `a text that is no state of this version is refused`(text: String) throws {
        #expect(throws: (any Error).self) { try parsed(text) }
    }

    // MARK: What is not understood

    private static let kept: [String] = [
        // A newer version's option, alone and beside what is known.
        #"{"id":"vol-1a2b3c4d","name":"x","options":{"colour":"red","read-only":"true"},"createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false}"#,
        // A member that this version does not know.
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1,"hasLease":true,"isFormatting":false,"isRemoved":false,"colour":{"of":["red",1.5,null]}}"#,
        // Members of another kind, or none.
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1,"hasLease":"maybe","isRemoved":false,"more":7}"#,
        #"{"id":"vol-1a2b3c4d"}"#,
        #"{"id":"vol-1a2b3c4d","name":"../x","options":7}"#,
        #"{"id":"vol-1a2b3c4d","name":"x","options":{"uid":5},"createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false}"#,
        // Of another name.
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false,"otherNames":[{"name":"y","options":{"colour":"red"},"createdAt":2,"since":3}]}"#,
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false,"otherNames":[{"name":"y","options":{},"createdAt":2,"since":3}]}"#,
        // Not even a volume.
        #"{"id":"../x","colour":"red"}"#, #"7"#,
        // An invalid name in an otherwise complete record; and a record that lacks almost
        // everything.
        #"{"id":"vol-1a2b3c4d","name":"../x","options":{},"createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false}"#,
        #"{"id":"vol-1a2b3c4d","name":"x","options":{}}"#,
        // Without options, which are not the default ones then.
        #"{"id":"vol-1a2b3c4d","name":"x","createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false}"#,
    ]

    @Test(arguments: kept)
    func `what is not understood is written back unchanged, and hides nothing`(
        text: String
    ) throws {
        let json = try JSONValue.parse(Array(text.utf8))
        let other = String(
            decoding: VolumeRecord(id: Fixture.id, createdAt: 1).savedText, as: UTF8.self)
        var read = try parsed(#"{"version":1,"new":[1],"volumes":[\#(text),\#(other)]}"#)
        #expect(all(read.state).map(\.id).contains(Fixture.id))
        // Even if it is saved because something about it has changed.
        for record in all(read.state) { read.apply([.put(record)]) }
        let written = try JSONValue.parse(read.bytes)
        #expect(written["volumes"]?.array?.first == json && written["new"] == [1])
        #expect(written["volumes"]?.array?.count == 2)
        let again = try StateDocument(parsing: read.bytes)
        #expect(again.bytes == read.bytes && again.state.owner == read.state.owner)
    }

    @Test(arguments: [0, 2, 3, 4, 5, 10, 11, 12])
    func `a name whose record is not understood is listed with the reason`(index: Int) throws {
        let read = try parsed(#"{"version":1,"volumes":[\#(Self.kept[index])]}"#)
        let record = try #require(all(read.state).first)
        #expect(record.names.count == 1 && record.names[0].flaw != nil)
        #expect(record.names[0].name == ([3, 4, 10].contains(index) ? "vol-1a2b3c4d" : "x"))
    }

    @Test func `a record's other names are found wherever they stand in it`() throws {
        let read = try parsed(
            #"{"version":1,"volumes":[{"id":"vol-1a2b3c4d","name":"x","#
                + #""otherNames":[{"name":"y","options":{},"createdAt":2}],"options":{},"#
                + #""createdAt":1,"hasLease":false,"isFormatting":false,"isRemoved":false}]}"#)
        #expect(read.state.records.first?.names.map(\.name) == ["x", "y"])
    }

    @Test func `members after the volumes in a document hide none of them`() throws {
        let record = String(decoding: Self.idle.savedText, as: UTF8.self)
        let read = try parsed(#"{"version":1,"volumes":[\#(record)],"more":["# + "\n7\n]}\n")
        #expect(all(read.state) == [Self.idle] && read.header["more"] == [7])
    }

    @Test func `of a volume's names only the one that is not understood cannot be used`() throws {
        let record = try #require(VolumeRecord(saved: JSONValue.parse(Array(Self.kept[6].utf8))))
        #expect(record.names.map { $0.flaw == nil } == [true, false])
    }

    @Test func `a line that is no JSON costs no other its record`() throws {
        let bytes = document(of: [Self.mounted, Self.idle]).bytes
        var lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { "\($0)" }
        lines[1] = #"{"id":"vol-0123"\#u{fffd}"# + ","
        let read = try parsed(lines.joined(separator: "\n") + "\n")
        #expect(all(read.state) == [Self.idle] && read.damaged.count == 1)
    }

    /// At rest, with a lease, and attached.
    private static let damaged: [String] = [
        #"{"id":"vol-1a2b3c4d","name":"x","options":{"uid":?},"createdAt":1234,"hasLease":false,"isFormatting":false,"isRemoved":false}"#,
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1234,"hasLease":fals?,"isFormatting":false,"isRemoved":false}"#,
        #"{"id":"vol-1a2b3c4d","name":"x","options":{},"createdAt":1234,"hasLease":true,"isFormatting":false,"isRemoved":false,"deviceName":?}"#,
    ]

    @Test(arguments: damaged)
    func `a record that is damaged between its ends is listed with the reason, and kept`(
        text: String
    ) throws {
        let other = VolumeRecord(id: Fixture.id, createdAt: 1)
        let line = String(decoding: other.savedText, as: UTF8.self)
        let read = try parsed("{\"version\":1,\"volumes\":[\n\(text),\n\(line)\n]}\n")
        var document = document(of: [Self.idle])
        let journal = StateDocument.journalHead("1") + Array("\(text)\n\(line)\n".utf8)
        #expect(document.apply(journal: journal) == journal.count)
        for read in [read, document] {
            let records = all(read.state)
            #expect(Set(records.map(\.id)) == [Fixture.id, Self.small] && read.damaged.isEmpty)
            let record = try #require(records.first { $0.id == Self.small })
            #expect(record.names.map(\.name) == ["x"])
            #expect(record.names.map(\.flaw) == ["it is not valid JSON"])
            #expect(String(decoding: read.bytes, as: UTF8.self).contains(text))
        }
    }

    @Test func `a damaged record that is not UTF-8 is saved byte by byte`() throws {
        let text = Array(Self.damaged[2].utf8).map { $0 == UInt8(ascii: "?") ? 0xff : $0 }
        let read = try StateDocument(
            parsing: Array("{\"version\":1,\"volumes\":[\n".utf8) + text + Array("\n]}\n".utf8))
        let record = try #require(all(read.state).first)
        #expect(record.names.map(\.flaw) == ["it is not valid JSON"] && record.savedText == text)
    }

    @Test func `a truncated line is neither a record nor a journal line`() throws {
        let text = Self.idle.savedText
        let ends = (1..<text.count).map { text.prefix($0) }.filter {
            ![UInt8(ascii: "}"), UInt8(ascii: ",")].contains($0.last)
        }
        let begins = (1..<text.count).map { text.dropFirst($0) }
        for part in ends + begins {
            let read = try StateDocument(
                parsing: Array("{\"version\":1,\"volumes\":[\n".utf8) + part + Array("\n]}\n".utf8))
            #expect(all(read.state).isEmpty && read.damaged.count == 1)
            var document = document(of: [Self.idle])
            let head = StateDocument.journalHead("1")
            #expect(document.apply(journal: head + part + [UInt8(ascii: "\n")]) == head.count)
            #expect(all(document.state) == [Self.idle])
        }
    }

    // MARK: What is mounted

    @Test func `counts that do not say of which boot they are hold`() throws {
        var counted = try StateDocument(
            parsing: mountsDocument(of: [Self.mounted], owner: Self.owner)
        ).state
        counted.owner = nil
        let saved = document(of: [Self.mounted]).state
        let state = SavedState(saved, mounted: counted, boot: "b")
        #expect(state.records.map(\.mounts) == [Self.mounted.mounts] && state.owner == Self.owner)
    }

    /// The counts are saved first after a boot.
    @Test func `the owner of the state comes from the last save in this boot`() throws {
        let last = StateOwner(instance: Fixture.other, boot: "c")
        let counted = try StateDocument(parsing: mountsDocument(of: [Self.mounted], owner: last))
        let saved = document(of: [Self.mounted]).state
        #expect(SavedState(saved, mounted: counted.state, boot: "c").owner == last)
    }

    @Test func `a volume mounted by a name that is no longer its is known by those that are`()
        throws
    {
        var renamed = Self.mounted
        renamed.names.removeFirst()
        let counted = try StateDocument(
            parsing: mountsDocument(of: [Self.mounted], owner: Self.owner))
        let saved = document(of: [renamed]).state
        let record = SavedState(saved, mounted: counted.state, boot: "b").records.first
        #expect(record?.mounts == Self.mounted.mounts)
        #expect(record?.name == Fixture.name && record?.options == VolumeOptions())
    }

    // MARK: The journal

    private var journal: [UInt8] {
        StateDocument.journalHead("1")
            + StateDocument.journal(
                of: [.put(Self.mounted)], owner: StateOwner(instance: nil, boot: "c"))
            + StateDocument.journal(of: [.forget(Self.small)], owner: nil)
    }

    @Test func `a journal's changes hold, and those alone that are whole`() throws {
        var mounted = Self.mounted
        mounted.mounts = MountCounts()
        let bytes = journal
        for size in 0...bytes.count {
            var document = document(of: [Self.idle])
            let whole = document.apply(journal: Array(bytes.prefix(size)))
            let records = all(document.state)
            switch bytes.prefix(size).count(where: { $0 == UInt8(ascii: "\n") }) {
            case 0: #expect(whole == nil && records == [Self.idle])
            case 1: #expect(records == [Self.idle] && document.owner == Self.owner)
            case 2: #expect(records == [Self.idle] && document.owner?.boot == "c")
            case 3: #expect(Set(records.map(\.id)) == [Fixture.id, Self.small])
            default: #expect(records == [mounted] && whole == size)
            }
        }
    }

    @Test(arguments: [String(repeating: "\0", count: 4000), "7", "null"])
    func `a line that was not synced and got damaged is ignored`(rest: String) throws {
        var document = document(of: [Self.idle])
        let torn = journal + Array("\(rest)\n".utf8)
        #expect(document.apply(journal: torn) == journal.count)
    }

    @Test func `a journal record that is not understood replaces the previous one`()
        throws
    {
        var document = document(of: [Self.idle])
        let text = Self.kept[3]
        let journal = StateDocument.journalHead("1") + Array("\(text)\n".utf8)
        #expect(document.apply(journal: journal) == journal.count)
        let written = try JSONValue.parse(document.bytes)["volumes"]?.array
        #expect(written == [try JSONValue.parse(Array(text.utf8))])
    }

    @Test func `a journal line of a newer version does not change the state's owner`() throws {
        var document = document(of: [Self.idle])
        let journal = StateDocument.journalHead("1") + Array("{\"later\":1}\n".utf8)
        #expect(document.apply(journal: journal) == journal.count)
        #expect(document.owner == Self.owner && all(document.state) == [Self.idle])
    }

    @Test func `a journal of another document changes nothing`() throws {
        var document = document(of: [Self.idle])
        document.generation = "2"
        #expect(document.apply(journal: journal) == nil)
        #expect(all(document.state) == [Self.idle])
    }
}
