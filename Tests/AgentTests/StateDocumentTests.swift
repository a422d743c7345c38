import Agent
import Base
import JSON
import Testing
import VolumeCore

@Suite struct StateDocumentTests {
    @Test func `records come back from the disk as they were`() throws {
        let kept = [
            VolumeRecord(
                id: Fixture.id, options: VolumeOptions(readOnly: true), createdAt: 7,
                deviceName: "/dev/sdf", hasLease: true, isRemoved: true),
            VolumeRecord(id: .init(literal: "vol-1a2b3c4d"), createdAt: 8),
        ]
        let bytes = stateDocument(of: kept).serialised()
        #expect(try records(from: JSONValue.parse(bytes)) == kept)
    }

    private static let mounted = VolumeRecord(
        id: Fixture.id, name: "data", options: VolumeOptions(readOnly: true), createdAt: 7,
        mounts: MountCounts(["a": 2, "b": 1], unanswered: ["b"]))
    private static let idle = VolumeRecord(id: .init(literal: "vol-1a2b3c4d"), createdAt: 8)

    private func written(_ document: JSONValue) throws -> [VolumeRecord] {
        try records(from: JSONValue.parse(document.serialised()))
    }

    @Test func `counts come back beside what they are of`() throws {
        let all = [Self.mounted, Self.idle]
        let saved = try written(stateDocument(of: all))
        #expect(merged(saved, mounted: try written(mountsDocument(of: all))) == all)
    }

    @Test func `without the one file what is mounted is known, with its options and counts`() throws
    {
        let all = [Self.mounted, Self.idle]
        #expect(merged(nil, mounted: try written(mountsDocument(of: all))) == [Self.mounted])
    }

    @Test func `counts of what has been forgotten bring it not back`() throws {
        let mounted = try written(mountsDocument(of: [Self.mounted]))
        #expect(merged([Self.idle], mounted: mounted) == [Self.idle])
    }

    @Test(arguments: [
        "{}", "[]", #"{"version":2,"volumes":[]}"#, #"{"version":1}"#,
        #"{"version":1,"volumes":[{}]}"#, #"{"version":1,"volumes":[{"id":"../x"}]}"#,
        #"{"version":1,"volumes":[{"id":"vol-1a2b3c4d"}]}"#,
    ])
    func `a document that this version did not write is refused`(text: String) throws {
        let document = try JSONValue.parse(Array(text.utf8))
        #expect(throws: StateError.self) { try records(from: document) }
    }
}
