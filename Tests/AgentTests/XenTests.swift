import Agent
import Base
import Testing
import VolumeCore

/// An instance where only EC2 knows which volume has a name.
@Suite struct XenTests {
    private static let stranger = VolumeID(literal: "vol-1a2b3c4d")

    private func fixture() -> Fixture {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        fixture.cloud.isXen = true
        return fixture
    }

    @Test func `a volume is found, mounted and released by its name`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint]?.source == "/dev/xvdf")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(700))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    /// A blank one would be formatted. While the lease is still there, and after it was dropped.
    @Test(arguments: [Duration.seconds(1), .seconds(10)])
    func `another volume under the remembered name is neither mounted nor formatted`(
        pause: Duration
    ) throws {
        let fixture = fixture()
        fixture.cloud.latency.detach = .milliseconds(100)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            // Somebody detaches one and attaches another.
            let end = fixture.now + pause
            try await fixture.cloud.detachByHand(Fixture.id)
            try await fixture.sleep(until: end)
            fixture.cloud.add(Self.stranger, .blank, attachedTo: Fixture.here)
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.formatted.isEmpty)
        #expect(fixture.cloud.content[Self.stranger] == .blank)
        #expect(fixture.host.mounts[Fixture.mountpoint]?.source == "/dev/xvdg")
    }

    /// Somebody attached it under another name, and something holds it there.
    @Test func `a volume that is held under another name is not detached`() throws {
        let fixture = fixture()
        fixture.cloud.add(Self.stranger, .blank, attachedTo: Fixture.here)
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here, as: "/dev/sdg")
        fixture.mark()
        fixture.host.held = [Fixture.id]
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = true
        fixture.state.records = [record]
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(700))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(!fixture.log.lines(with: "is mounted in a mount namespace").isEmpty)
    }

    @Test func `a name whose node belongs to another disk is never recorded`() throws {
        var saves: [Int] = []
        for isForeign in [false, true] {
            let fixture = fixture()
            if isForeign {
                fixture.host.foreignNodes["/dev/sdf"] = BlockDevice(
                    path: "/dev/xvdf", number: DeviceNumber(major: 202, minor: 80))
            }
            try fixture.run { manager in
                try await manager.create(Fixture.name, options: [:])
                _ = try await manager.mount(Fixture.name, id: "a")
            }
            saves.append(fixture.state.saves)
        }
        #expect(saves[0] == saves[1])
    }

    /// The disk that has the name by then is the volume.
    @Test func `a lost answer to AttachVolume leads to the volume, not to another name`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let free = fixture.cloud.volumes[Fixture.id]
            fixture.cloud.lostAnswers = ["AttachVolume"]
            fixture.cloud.refusals["DescribeVolumes"] = [
                .unanswered(reason: "reset", mayHaveApplied: false)
            ]
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.staleDescriptions[Fixture.id] = free
            let mount = fixture.start { _ = try await $0.mount(Fixture.name, id: "a") }
            while fixture.cloud.calls(of: "AttachVolume").count < 2 {
                try await fixture.sleep(.milliseconds(10))
            }
            fixture.cloud.staleDescriptions = [:]
            try await mount.value
            #expect(fixture.host.mounts[Fixture.mountpoint]?.source == "/dev/xvdf")
        }
        let names = fixture.cloud.calls(of: "AttachVolume").map { $0.suffix(8) }
        #expect(Set(names) == ["/dev/sdf"])
    }
}
