import Agent
import Base
import Testing
import VolumeCore

/// What Create and Remove accept, and what remains of a removed volume.
@Suite struct DefinitionTests {
    private static let option = ["volume-id": Fixture.name]

    private func refusal(
        _ fixture: Fixture, _ call: @escaping @Sendable (VolumeManager) async throws -> Void
    ) throws -> OperationError {
        try #require(
            try fixture.run { manager in
                await #expect(throws: OperationError.self) { try await call(manager) }
            })
    }

    @Test func `options are taken up to a size`() throws {
        let fixture = Fixture()
        let name = "mount-options"
        let most = Limit.volumeOptionsMax - name.utf8.count
        let text =
            String(repeating: "noatime,", count: most / 8) + String(repeating: ",", count: most % 8)
        let error = try refusal(fixture) {
            try await $0.create(Fixture.name, options: [name: text + ","])
        }
        #expect(error.reason == .limitReached && error.found.contains("2049 bytes"))
        #expect(fixture.cloud.calls.isEmpty)
        try fixture.run { try await $0.create(Fixture.name, options: [name: text]) }
    }

    @Test func `an instance knows as many names as are allowed, and no more`() throws {
        let fixture = Fixture()
        let idle = VolumeRecord(id: VolumeID(literal: "vol-1a2b3c4d"), name: "n", createdAt: 1)
        let text = idle.savedText[...]
        fixture.state.resting = (1...Limit.volumeNamesMax).map { number in
            let digits = String(0x1000_0000 + number, radix: 16)
            return RestingRecord(
                id: VolumeID("vol-" + digits) ?? idle.id, name: "n\(number)", text: text)
        }
        try fixture.run { try await $0.start() }
        let error = try refusal(fixture) { try await $0.create("one-more", options: Self.option) }
        #expect(error.reason == .limitReached)
        #expect(error.found == "100000 names of volumes are known, as many as are allowed")
        #expect(fixture.cloud.calls.isEmpty)
    }

    @Test func `a volume's names are bounded, which its error says`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            for number in 1...Limit.namesPerVolumeMax {
                try await manager.create("n\(number)", options: Self.option)
            }
        }
        let error = try refusal(fixture) { try await $0.create("one-more", options: Self.option) }
        #expect(error.found == "the volume has 64 names, as many as are allowed")
    }

    /// Its text is written back unchanged, and would not contain the new name.
    @Test func `a volume whose record is not understood gets no other name`() throws {
        let fixture = Fixture()
        var record = VolumeRecord(id: Fixture.id, name: "a", createdAt: 1)
        record.names[0].flaw = "its hasLease is missing or of another kind"
        record.verbatim = #"{"id":"\#(Fixture.name)","name":"a"}"#
        fixture.state.records = [record]
        try fixture.run { try await $0.start() }
        let error = try refusal(fixture) { try await $0.create("b", options: Self.option) }
        #expect(error.found.contains("its hasLease is missing"))
        #expect(error.advice?.contains("docker volume rm a") == true)
    }

    @Test func `beside a name that alone is not understood there can be others`() throws {
        let fixture = Fixture()
        var record = VolumeRecord(id: Fixture.id, name: "a", createdAt: 1)
        record.names[0].flaw = "there is no such option"
        fixture.state.records = [record]
        try fixture.run { manager in
            try await manager.start()
            try await manager.create("b", options: Self.option)
            #expect(await manager.list().map(\.problem) == ["there is no such option", nil])
        }
    }

    // MARK: Root volumes

    @Test func `a volume that another instance boots from is not created`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.attachments[0].device = "/dev/xvda"
        fixture.cloud.rootDeviceNames[Fixture.other] = "/dev/xvda"
        fixture.cloud.instanceStates[Fixture.other] = .stopped
        let error = try refusal(fixture) { try await $0.create(Fixture.name, options: [:]) }
        #expect(error.description.contains("root"))
        #expect(try fixture.run { await $0.list().isEmpty })
    }

    @Test func `a volume with a name of this plugin's is not looked up as a root volume`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        try fixture.run { try await $0.create(Fixture.name, options: [:]) }
        #expect(fixture.cloud.calls.count == 1)
    }

    // MARK: Use

    @Test func `a name whose Mount is in progress is not removed, even if another is mounted`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            for name in ["a", "b"] { try await manager.create(name, options: Self.option) }
            _ = try await manager.mount("b", id: "x")
            let hang = fixture.host.hang(of: Fixture.id)
            hang.begin()
            let mount = fixture.start { try await $0.mount("a", id: "y") }
            try await fixture.sleep(.seconds(1))
            await #expect(throws: OperationError.self) { try await manager.remove("a") }
            hang.recover()
            _ = try await mount.value
            #expect(await manager.list().map(\.name) == ["a", "b"])
        }
    }

    @Test func `no name is removed if it is unknown which one is mounted`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            for name in ["a", "b"] { try await manager.create(name, options: Self.option) }
            _ = try await manager.mount("b", id: "x")
            try await fixture.sleep(.seconds(1))
        }
        fixture.state.records[0].mounts = MountCounts(["x": 1])
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            for name in ["a", "b"] {
                await #expect(throws: OperationError.self) { try await manager.remove(name) }
            }
        }
    }

    @Test func `once a name's last mount is gone it can be removed though another is mounted`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            for name in ["a", "b"] { try await manager.create(name, options: Self.option) }
            _ = try await manager.mount("a", id: "x")
            try await manager.unmount("a", id: "x")
            _ = try await manager.mount("b", id: "y")
            try await manager.remove("a")
            await #expect(throws: OperationError.self) { try await manager.remove("b") }
            _ = try await manager.mount("b", id: "z")
            try await manager.unmount("b", id: "y")
            await #expect(throws: OperationError.self) { try await manager.remove("b") }
        }
    }

    // MARK: After a Remove

    @Test func `a volume that was removed and created again is looked up again`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            try await manager.remove(Fixture.name)
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `a volume removed while it is unmounted is no other one until that has ended`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.tagsForbidden = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            let hang = fixture.host.hang(of: Fixture.id)
            hang.begin()
            let unmount = fixture.start { try await $0.unmount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            try await manager.remove(Fixture.name)
            try await manager.create(Fixture.name, options: [:])
            #expect(try await manager.get(Fixture.name).phase == "unmounting")
            hang.recover()
            try await unmount.value
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.count == 1)
        }
    }

    /// If EC2 cannot be asked at the next start, only the record says so.
    @Test func `a volume whose record was lost is the plugin's again once it is created`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    // MARK: Mounts that nobody waits for any more

    @Test func `an abandoned mount is joined by a Mount with the same options`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(10))
            cut.cancel()
            _ = try? await cut.value
            try await fixture.sleep(.seconds(5))
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.everMounted.count == 1)
    }

    @Test func `a Mount that joins an abandoned one has its outcome`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .refused(code: "CustomerKeyHasBeenRevoked", message: "revoked", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(1))
            cut.cancel()
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }
}
