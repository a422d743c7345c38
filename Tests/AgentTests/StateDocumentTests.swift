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

    @Test func `counts come back, and what is not understood is none`() throws {
        let record = VolumeRecord(
            id: Fixture.id, createdAt: 7, mounts: MountCounts(["a": 2, "b": 1], unanswered: ["b"]))
        let document = try JSONValue.parse(countsDocument(of: [record]).serialised())
        #expect(counts(of: Fixture.id, in: document) == record.mounts)
        #expect(counts(of: .init(literal: "vol-1a2b3c4d"), in: document).isEmpty)
        #expect(counts(of: Fixture.id, in: ["\(Fixture.id)": ["counts": ["a": "x"]]]).isEmpty)
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
