import Base
import Testing
import VolumeCore

@testable import Agent

/// How long a volume is remembered, and what is reported about it.
@Suite struct RememberingTests {
    private func phase(_ manager: VolumeManager) async throws -> String {
        try await manager.get(Fixture.name).phase
    }

    @Test func `the phase of a volume that is only attached is attached`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            #expect(try await self.phase(manager) == "detached")
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(try await self.phase(manager) == "mounted")
            try await manager.unmount(Fixture.name, id: "a")
            #expect(try await self.phase(manager) == "attached")
        }
    }

    @Test func `the phase of a mounted volume without a device is lost`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            let end = fixture.now + .seconds(5)
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(until: end)
            #expect(try await self.phase(manager) == "lost")
        }
    }

    @Test func `a volume that is removed is on the disk no more, and a later start knows nothing`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            #expect(fixture.state.records.count == 1)
            try await manager.remove(Fixture.name)
        }
        #expect(fixture.state.records.isEmpty)
    }

    /// Its lease must still be dropped, if necessary by the next run.
    @Test func `a removed volume takes no memory`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            try await manager.remove(Fixture.name)
            #expect(await manager.volumes.ids.isEmpty)
        }
    }

    @Test func `a removed volume with a lease stays on disk until that is dropped`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await manager.remove(Fixture.name)
            let record = try #require(fixture.state.records.first)
            #expect(record.isRemoved && record.hasLease && !record.isOurs)
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.state.records.isEmpty)
    }

    @Test func `a forgotten volume loses its unfinished work too`() throws {
        let fixture = Fixture(.blank)
        try fixture.run { manager in
            // It is created, and then cannot be mounted with that option.
            try await manager.create(
                Fixture.name, options: ["fs-type": "ext4", "mount-options": "inode64"])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            #expect(fixture.state.records.first?.isFormatting == true)
            try await manager.remove(Fixture.name)
            try await fixture.sleep(.seconds(60))
            #expect(fixture.state.records.isEmpty)
            // What somebody else has begun since does not belong to this plugin.
            fixture.cloud.content[Fixture.id] = .unfinished(type: "xfs")
            try await manager.create(Fixture.name, options: [:])
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
            #expect(error?.description.contains("interrupted") == true)
        }
        #expect(fixture.host.formatted.count == 1)
    }

    @Test func `a volume that is created again while it is released stays known`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await manager.remove(Fixture.name)
            // It is being detached, and disappears while the Create is saved.
            try await fixture.sleep(.seconds(16))
            #expect(fixture.cloud.volumes[Fixture.id]?.attachments.first?.state == .detaching)
            hang.begin()
            let create = fixture.start { try await $0.create(Fixture.name, options: [:]) }
            try await fixture.sleep(.seconds(5))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
            hang.recover()
            try await create.value
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.state.records.map(\.id) == [Fixture.id])
    }

    @Test func `at a start nothing is done for a volume of which only names are known`() throws {
        let fixture = Fixture(Fixture.xfs)
        let used = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(used, Fixture.xfs)
        try fixture.run { manager in
            for name in ["a", "b"] {
                try await manager.create(name, options: ["volume-id": Fixture.name])
            }
            try await manager.create("\(used)", options: [:])
            _ = try await manager.mount("\(used)", id: "a")
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { try await $0.start() }
        let known = fixture.log.lines(with: "known from an earlier run")
        #expect(known.count == 1 && known[0].contains("\(used)"))
    }

    /// It is attached, so it is not forgotten at once; its unchanged saved text would bring its
    /// name back.
    @Test func `a removed name that was not understood does not come back`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.mark()
        var record = VolumeRecord(id: Fixture.id, name: "a", createdAt: 1)
        record.names[0].flaw = "there is no such option"
        record.verbatim = Array("{}".utf8)
        fixture.state.records = [record]
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await manager.remove("a")
            let record = try #require(fixture.state.records.first)
            #expect(record.isRemoved && record.verbatim == nil)
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.state.records.isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }
}
