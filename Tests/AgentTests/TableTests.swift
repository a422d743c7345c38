import Agent
import Base
import Testing
import VolumeCore

@Suite struct TableTests {
    @Test func `Create can be repeated`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            try await manager.create(Fixture.name, options: [:])
            #expect(await manager.list().map(\.name) == [Fixture.name])
        }
        #expect(fixture.cloud.calls.count == 1)
    }

    @Test func `a repeated Create too answers well only once the record is on the disk`() throws {
        let fixture = Fixture()
        let full = OperationError(.system, doing: "write volumes.json", found: "ENOSPC")
        fixture.state.saveError = full
        try fixture.run { manager in
            for _ in 1...2 {
                await #expect(throws: full) {
                    try await manager.create(Fixture.name, options: [:])
                }
            }
            fixture.state.saveError = nil
            try await manager.create(Fixture.name, options: [:])
            try await manager.create(Fixture.name, options: [:])
        }
        #expect(fixture.state.records.map(\.id) == [Fixture.id] && fixture.state.saves == 1)
    }

    // MARK: What cannot be saved

    private static let full = OperationError(.system, doing: "write volumes.json", found: "ENOSPC")

    /// What a daemon that starts now would report for each name.
    private func nextStart(_ fixture: Fixture) throws -> [VolumeManager.Info] {
        fixture.restart()
        return try fixture.run { manager in
            try await manager.start()
            return await manager.list()
        }
    }

    @Test(arguments: [false, true])
    func `a Create that could not be saved has not been, now and after the next start`(
        isWritten: Bool
    ) throws {
        let fixture = Fixture()
        try fixture.run { manager in
            fixture.state.saveError = Self.full
            fixture.state.writesBeforeItFails = isWritten
            await #expect(throws: Self.full) {
                try await manager.create("a", options: ["volume-id": Fixture.name])
            }
            #expect(await manager.list().isEmpty)
            await #expect(throws: OperationError.self) { try await manager.mount("a", id: "x") }
            fixture.state.saveError = nil
            try await fixture.sleep(.seconds(60))
        }
        #expect(try nextStart(fixture).isEmpty)
    }

    @Test(arguments: [false, true])
    func `options whose change could not be saved are unchanged`(isWritten: Bool) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            fixture.state.saveError = Self.full
            fixture.state.writesBeforeItFails = isWritten
            await #expect(throws: Self.full) {
                try await manager.create(Fixture.name, options: [:])
            }
            fixture.state.saveError = nil
            try await fixture.sleep(.seconds(60))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "x")
            #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == true)
        }
    }

    @Test(arguments: [false, true])
    func `a Remove that could not be saved has not been, now and after the next start`(
        isWritten: Bool
    ) throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.state.saveError = Self.full
            fixture.state.writesBeforeItFails = isWritten
            await #expect(throws: Self.full) { try await manager.remove(Fixture.name) }
            #expect(await manager.list().map(\.name) == [Fixture.name])
            fixture.state.saveError = nil
            try await fixture.sleep(.seconds(60))
        }
        #expect(try nextStart(fixture).map(\.name) == [Fixture.name])
    }

    @Test func `Creates at once each have the outcome of their own save`() throws {
        let fixture = Fixture()
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, .blank)
        try fixture.run { manager in
            fixture.state.saveError = Self.full
            let first = fixture.start { try await $0.create(Fixture.name, options: [:]) }
            let same = fixture.start { try await $0.create(Fixture.name, options: [:]) }
            let second = fixture.start { try await $0.create("\(other)", options: [:]) }
            var refused = 0
            for call in [first, same, second] {
                do { try await call.value } catch { refused += 1 }
            }
            #expect(await manager.list().count == 0 && refused == 3)
            fixture.state.saveError = nil
            let again = fixture.start { try await $0.create(Fixture.name, options: [:]) }
            try await manager.create("\(other)", options: [:])
            try await again.value
        }
        #expect(try nextStart(fixture).count == 2)
    }

    @Test func `what could not be saved in the background is saved later`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.state.saveError = Self.full
            _ = try? await manager.mount(Fixture.name, id: "x")
            try await fixture.sleep(.seconds(100))
            fixture.state.saveError = nil
            try await fixture.sleep(.seconds(40))
            let name = try await manager.get(Fixture.name).attachedAs
            #expect(fixture.state.records.map(\.deviceName) == [name])
        }
    }

    @Test(arguments: ["", "../x", "vol-x", "vol-0123456789abcdef0/../x", "v\u{0}", "*"])
    func `a name that is no volume id changes nothing`(name: String) throws {
        let fixture = Fixture()
        try fixture.run { manager in
            await #expect(throws: OperationError.self) {
                try await manager.create(name, options: [:])
            }
            await #expect(throws: OperationError.self) { try await manager.mount(name, id: "a") }
            await #expect(throws: OperationError.self) { try await manager.unmount(name, id: "a") }
            await #expect(throws: OperationError.self) { try await manager.remove(name) }
            await #expect(throws: OperationError.self) { try await manager.get(name) }
            #expect(await manager.list().isEmpty)
        }
        #expect(fixture.cloud.calls.isEmpty && fixture.state.saves == 0)
    }

    @Test func `an alias is the volume that its option names`() throws {
        let fixture = Fixture()
        let option = ["volume-id": Fixture.name]
        try fixture.run { manager in
            try await manager.create("data.db", options: option)
            try await manager.create("data.db", options: option)
            #expect(try await manager.mount("data.db", id: "a") == Fixture.mountpoint)
            #expect(await manager.list().map(\.name) == ["data.db"])
            await #expect(throws: OperationError.self) { try await manager.get(Fixture.name) }
            try await manager.unmount("data.db", id: "a")
            try await manager.remove("data.db")
            try await manager.create(Fixture.name, options: [:])
        }
    }

    @Test(arguments: ["data.db", "vol-1a2b3c4d"])
    func `a name says which volume is meant, and only one`(name: String) throws {
        let fixture = Fixture()
        _ = try fixture.run { manager in
            await #expect(throws: OperationError.self) {
                let options = name == "data.db" ? [:] : ["volume-id": Fixture.name]
                try await manager.create(name, options: options)
            }
        }
        #expect(fixture.cloud.calls.isEmpty)
    }

    @Test func `a volume that EC2 does not know is not created`() throws {
        let fixture = Fixture()
        let error = try fixture.run { manager in
            await #expect(throws: OperationError.self) {
                try await manager.create("vol-1a2b3c4d", options: [:])
            }
        }
        #expect(error?.reason == .noSuchVolume)
        #expect(fixture.state.records.isEmpty)
    }

    @Test func `a volume of another zone is not created`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, .blank, zone: "eu-west-1b")
        try fixture.run { manager in
            await #expect(throws: OperationError.self) {
                try await manager.create(Fixture.name, options: [:])
            }
            await #expect(throws: OperationError.self) { try await manager.get(Fixture.name) }
        }
    }

    @Test func `Remove is refused while mounted, and deletes nothing`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            await #expect(throws: OperationError.self) { try await manager.remove(Fixture.name) }
            try await manager.unmount(Fixture.name, id: "a")
            try await manager.remove(Fixture.name)
            #expect(await manager.list().isEmpty)
            // It is still released, and can be created again.
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.formatted == [Fixture.id])
    }

    @Test func `Get and Path give a mountpoint only while mounted, and ask EC2 nothing`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            #expect(try await manager.path(Fixture.name) == nil)
            _ = try await manager.mount(Fixture.name, id: "a")
            let calls = fixture.cloud.calls.count
            #expect(try await manager.get(Fixture.name).mountpoint == Fixture.mountpoint)
            #expect(try await manager.path(Fixture.name) == Fixture.mountpoint)
            #expect(fixture.cloud.calls.count == calls)
        }
    }

    @Test func `a new daemon keeps the mounts and the counts of the old one`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(try await manager.get(Fixture.name).mountpoint == Fixture.mountpoint)
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    @Test func `counts without a mount, as after a reboot, are dropped`() throws {
        let fixture = Fixture()
        fixture.state.records = [
            VolumeRecord(id: Fixture.id, createdAt: 1, mounts: MountCounts(["a": 2]))
        ]
        try fixture.run { manager in
            try await manager.start()
            #expect(try await manager.get(Fixture.name).mounts == 0)
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    @Test func `a volume that lingered is released by a new daemon, after the linger`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(10))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
            try await fixture.sleep(.seconds(10))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        }
    }

    /// As after `docker plugin rm`: the plugin's mounts disappear, the container keeps its own.
    @Test func `a container that outlives the plugin keeps its volume until it ends`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create("data", options: ["volume-id": Fixture.name])
            _ = try await manager.mount("data", id: "a")
            try await fixture.sleep(.seconds(1))
            try await fixture.host.unmount(Fixture.mountpoint, of: Fixture.id)
        }
        fixture.host.held = [Fixture.id]
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().map(\.name) == ["data"])
            try await fixture.sleep(.seconds(60))
            // A second container comes and goes, and then the first one.
            _ = try await manager.mount("data", id: "b")
            try await manager.unmount("data", id: "b")
            try await fixture.sleep(.seconds(60))
            let volume = fixture.cloud.volumes[Fixture.id]
            #expect(volume?.state == .inUse && volume?.tags[Lease.tag] == "\(Fixture.here)")
            fixture.host.held = []
            try await manager.unmount("data", id: "a")
            try await fixture.sleep(.seconds(20))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        }
        #expect(fixture.host.formatted == [Fixture.id])
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `a mount without a record is adopted and released`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        fixture.state.records = []
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().isEmpty)
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.host.mounts.isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a volume whose record is lost can be created by another name`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create("data", options: ["volume-id": Fixture.name])
            _ = try await manager.mount("data", id: "a")
        }
        fixture.state.records = []
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await manager.create("data", options: ["volume-id": Fixture.name])
            _ = try await manager.mount("data", id: "b")
            #expect(try await manager.get("data").mounts == 1)
        }
    }

    /// While it had the lease of this running instance, no other could take it.
    @Test(arguments: [Duration.zero, .seconds(4), .seconds(20)])
    func `a volume that this plugin attached is released even without a record`(
        lag: Duration
    ) throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        try fixture.run { manager in
            if lag == .zero { fixture.mark() }
            try await manager.start()
            try await manager.learnAttachments()
            // EC2's first response was older than the mark.
            try await fixture.sleep(lag)
            fixture.mark()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `tags that were copied from another volume make none the plugin's`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Fixture.id]?.tags = [
            Lease.tag: "\(Fixture.here)",
            AttachmentMark.tag: "\(Fixture.here) vol-0aaaaaaaaaaaaaaaa /dev/sdf",
        ]
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            try await fixture.sleep(.seconds(60))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a volume that somebody else attached here is left alone`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
    }
}
