import Agent
import Base
import Testing
import VolumeCore

/// By which name a volume is asked for that may be attached here already.
@Suite struct AskedNameTests {
    private static let other = VolumeID(literal: "vol-0aaaaaaaaaaaaaaaa")

    /// The volume is attached here as /dev/sdf, its device is present, and there is a record of it.
    /// Another volume's lease is still to be dropped.
    private func attached(isOurs: Bool) -> Fixture {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.add(Self.other, Fixture.xfs)
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = isOurs
        fixture.state.records = [record]
        fixture.state.records.append(
            VolumeRecord(id: Self.other, createdAt: 1, hasLease: true))
        return fixture
    }

    /// Starts a Mount whose first look is older than the attachment. Returns while its AttachVolume
    /// is under way.
    private func mountAfterOldLook(
        _ fixture: Fixture, _ manager: VolumeManager
    ) async throws -> Task<String, any Error> {
        var free = fixture.cloud.volumes[Fixture.id]
        free?.attachments = []
        free?.state = .available
        fixture.cloud.staleDescriptions[Fixture.id] = free
        let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
        while fixture.cloud.calls(of: "AttachVolume").isEmpty {
            try await fixture.sleep(.milliseconds(1))
        }
        fixture.cloud.staleDescriptions = [:]
        return call
    }

    private func detachments(_ fixture: Fixture) -> Int {
        fixture.cloud.calls(of: "DetachVolume").count
    }

    /// This host may not write tags: its record alone says whose the attachment is.
    @Test func `a daemon killed while it asks for an attachment again knows the one there is`()
        throws
    {
        let fixture = attached(isOurs: true)
        let next = try fixture.run { manager in
            try await manager.start()
            _ = try await mountAfterOldLook(fixture, manager)
            return fixture.successor()
        }
        try next.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await next.sleep(.seconds(60))
        }
        #expect(next.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `an attachment by hand stays somebody else's after a look that was too old`() throws
    {
        let fixture = attached(isOurs: false)
        try fixture.run { manager in
            try await manager.start()
            _ = try await mountAfterOldLook(fixture, manager).value
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
        }
        #expect(detachments(fixture) == 0)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
    }

    @Test func `a name that another volume has by now is not asked for again`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .unanswered(reason: "connection reset", mayHaveApplied: true)
        ]
        fixture.cloud.latency.detach = .seconds(12)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(30))
            // It was not applied, and another instance has the volume before EC2 is asked.
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            // By then no look is older than the attachment that was asked for.
            try await fixture.sleep(.seconds(9))
            fixture.cloud.add(Self.other, Fixture.xfs, attachedTo: Fixture.here)
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "b")
            _ = try await call.value
        }
        let names = fixture.cloud.calls(of: "AttachVolume").map { $0.suffix(8) }
        #expect(names == ["/dev/sdf", "/dev/sdg"])
    }

    @Test func `a name whose volume was detached by hand and is attached by another is free again`()
        throws
    {
        let fixture = attached(isOurs: false)
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter {
            !["/dev/sdf", "/dev/sdg"].contains($0)
        }
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            fixture.cloud.add(Fixture.id, Fixture.xfs)
            fixture.cloud.loseDevice(of: Fixture.id)
            // EC2 is asked what it is like now.
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "b")
        }
        let names = fixture.cloud.calls(of: "AttachVolume").map { $0.suffix(8) }
        #expect(names == ["/dev/sdg", "/dev/sdf"])
    }
}
