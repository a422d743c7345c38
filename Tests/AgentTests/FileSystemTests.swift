import Agent
import Base
import Testing
import VolumeCore

/// What is remembered and logged about file systems that are created, checked and grown.
@Suite struct FileSystemTests {
    private static let ext4 = DeviceContent.fileSystem(type: "ext4", label: nil, uuid: nil)

    private func mount(
        _ fixture: Fixture, _ options: [String: String] = [:]
    ) throws -> VolumeRecord {
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: options)
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        return try #require(fixture.state.records.first)
    }

    @Test(arguments: [("uid", "5", "5:-:-"), ("gid", "6", "-:6:-"), ("mode", "0700", "-:-:700")])
    func `one of owner, group and mode is set alone`(
        option: String, value: String, deed: String
    ) throws {
        let fixture = Fixture(.blank)
        let record = try mount(fixture, [option: value])
        #expect(fixture.host.actions == ["own \(deed)"])
        // A daemon that is killed now must not overwrite what users change later.
        #expect(!record.isOwnershipDue && !record.isFormatting)
    }

    @Test func `owner and mode of a new file system are set only on request`() throws {
        let fixture = Fixture(.blank)
        _ = try mount(fixture)
        #expect(fixture.host.formatted == [Fixture.id] && fixture.host.actions.isEmpty)
    }

    @Test func `that a format was begun is on the disk before it begins`() throws {
        let fixture = Fixture(.blank)
        let hang = fixture.host.hang(of: Fixture.id)
        hang.begin(at: "mkfs")
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["uid": "5"])
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(5))
            let record = try #require(fixture.state.records.first)
            #expect(record.isFormatting && record.isOwnershipDue)
            hang.recover()
            _ = try await mount.value
        }
    }

    /// Once the file system was mounted, anything unfinished on it belongs to somebody else.
    @Test(arguments: [[:], ["uid": "5"]])
    func `that a format was begun is forgotten once its file system is mounted`(
        options: [String: String]
    ) throws {
        let fixture = Fixture(.blank)
        _ = try mount(fixture, options)
        try fixture.run { manager in
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.state.records.first?.isFormatting == false)
            fixture.cloud.content[Fixture.id] = .unfinished(type: "xfs")
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
            #expect(error?.description.contains("interrupted") == true)
        }
        #expect(fixture.host.formatted == [Fixture.id])
    }

    @Test func `an owner that is due is not set on a file system that is mounted read-only`() throws
    {
        let fixture = Fixture(.blank)
        fixture.host.failOwnership = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["uid": "5"])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            try await manager.create(Fixture.name, options: ["uid": "5", "read-only": "true"])
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.host.actions.isEmpty)
            try await manager.unmount(Fixture.name, id: "b")
            try await manager.create(Fixture.name, options: ["uid": "5"])
            _ = try await manager.mount(Fixture.name, id: "c")
            #expect(fixture.host.actions == ["own 5:-:-"])
        }
    }

    @Test func `a check and a growth are in the log, and only those that were`() throws {
        let fixture = Fixture(Self.ext4)
        fixture.host.unclean = [Fixture.id]
        fixture.host.ungrown = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            for id in ["a", "b"] {
                _ = try await manager.mount(Fixture.name, id: id)
                try await manager.unmount(Fixture.name, id: id)
            }
        }
        let checks = fixture.log.lines(with: "was checked before mounting")
        #expect(checks.count == 1 && checks[0].contains("result=repaired"))
        let growths = fixture.log.lines(with: "was grown to its device's size")
        #expect(growths.count == 1 && growths[0].contains("from_bytes=1073741824"))
        #expect(fixture.log.lines(with: "could not be grown").isEmpty)
        #expect(fixture.host.growthsAsked == 1)
    }

    @Test(arguments: [true, false])
    func `a journal that was not replayed is warned of`(isUnreplayed: Bool) throws {
        let fixture = Fixture(Fixture.xfs)
        if isUnreplayed { fixture.host.unreplayed = [Fixture.id] }
        _ = try mount(fixture, ["read-only": "true", "mount-options": "norecovery"])
        let warnings = fixture.log.lines(with: "the journal was not replayed")
        #expect(warnings.count == (isUnreplayed ? 1 : 0))
    }
}
