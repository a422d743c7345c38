import Agent
import Base
import Testing
import VolumeCore

/// The owner of the stored state: an image of an instance contains that instance's state.
@Suite struct OriginTests {
    /// The state of an instance that has attached volumes under all names.
    private func full() -> [VolumeRecord] {
        DeviceNames.all.enumerated().map { index, name in
            var record = VolumeRecord(
                id: Self.volume(index), name: "v\(index)", createdAt: 1,
                mounts: MountCounts(["x": 1]), deviceName: name, hasLease: true)
            record.isFormatting = true
            record.isOurs = true
            return record
        }
    }

    private static func volume(_ index: Int) -> VolumeID {
        let digits = String(index + 1, radix: 16)
        return VolumeID("vol-" + String(repeating: "0", count: 17 - digits.count) + digits)
            ?? Fixture.id
    }

    private func fixture(
        of instance: InstanceID, detachAfter: Duration? = nil
    ) -> Fixture {
        let fixture = Fixture(detachAfter: detachAfter)
        fixture.state.records = full()
        fixture.state.owner = StateOwner(instance: instance, boot: "an earlier one")
        return fixture
    }

    private func attachElsewhere(_ fixture: Fixture) {
        for index in DeviceNames.all.indices {
            fixture.cloud.add(Self.volume(index), Fixture.xfs, attachedTo: Fixture.other)
            fixture.cloud.volumes[Self.volume(index)]?.tags[Lease.tag] = "\(Fixture.other)"
        }
    }

    @Test(arguments: [Duration.seconds(15), nil])
    func `only the names of another instance's state are used`(
        detachAfter: Duration?
    ) throws {
        let fixture = fixture(of: Fixture.other, detachAfter: detachAfter)
        attachElsewhere(fixture)
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            #expect(await manager.list().count == 63)
            #expect(await manager.list().allSatisfy { $0.mounts == 0 && $0.attachedAs == nil })
            try await fixture.sleep(.seconds(100))
            #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
            #expect(fixture.cloud.calls(of: "DeleteTags").isEmpty)
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
        }
        #expect(fixture.state.copies == ["\(Fixture.other)"])
        #expect(fixture.state.owner == StateOwner(instance: Fixture.here, boot: "first"))
        #expect(fixture.state.records.count == 64)
    }

    /// As if the image were of a machine that differs from this one only in its id.
    @Test func `in the same boot too the instance's id decides`() throws {
        let fixture = fixture(of: Fixture.other, detachAfter: .seconds(15))
        fixture.state.owner?.boot = "first"
        attachElsewhere(fixture)
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(100))
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.cloud.calls(of: "DeleteTags").isEmpty)
    }

    @Test func `nothing is done until the metadata service identifies the instance`() throws {
        let fixture = fixture(of: Fixture.other, detachAfter: .seconds(15))
        attachElsewhere(fixture)
        let away = OperationError(.cloud, doing: "find out which instance this is", found: "503")
        fixture.cloud.hostError = away
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().count == 63)
            try await fixture.sleep(.seconds(60))
            await #expect(throws: away) { try await manager.mount("v0", id: "x") }
            try await manager.unmount("v0", id: "x")
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.calls.isEmpty)
            // What an earlier boot has saved is not lost in the meantime.
            #expect(fixture.state.owner?.instance == Fixture.other)
            #expect(fixture.state.records.allSatisfy { $0.deviceName != nil })
            fixture.cloud.hostError = nil
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.state.owner?.instance == Fixture.here)
    }

    @Test func `after a stop and start, attachments are released and counts dropped`()
        throws
    {
        let fixture = fixture(of: Fixture.here, detachAfter: .seconds(15))
        for (index, name) in DeviceNames.all.enumerated() {
            fixture.cloud.add(Self.volume(index), Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[Self.volume(index)]?.attachments[0].device = name
        }
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().allSatisfy { $0.mounts == 0 })
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(100))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 63)
        #expect(fixture.state.records.allSatisfy { $0.deviceName == nil && !$0.hasLease })
    }

    @Test func `devices that disappeared while the instance was stopped keep no name`() throws {
        let fixture = fixture(of: Fixture.here)
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            // One look may be older than an attachment; a second one is not.
            try await fixture.sleep(.seconds(10))
            #expect(await manager.list().allSatisfy { $0.attachedAs == nil })
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    /// For example without ec2:DescribeInstances.
    @Test func `a name that only a record claims is released when a Mount needs it`() throws {
        let fixture = fixture(of: Fixture.here)
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
            let name = try await manager.get(Fixture.name).attachedAs
            #expect(await manager.list().filter { $0.attachedAs == name }.count == 1)
            #expect(await manager.list().filter { $0.attachedAs != nil }.count == 63)
        }
    }

    @Test func `if the names run out, the volume unused for longest makes room`() throws {
        let fixture = Fixture(detachAfter: nil)
        try fixture.run { manager in
            for index in 0...DeviceNames.all.count {
                fixture.cloud.add(Self.volume(index), Fixture.xfs)
                let name = "\(Self.volume(index))"
                try await manager.create(name, options: [:])
                _ = try await manager.mount(name, id: "x")
                try await manager.unmount(name, id: "x")
            }
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
    }

    @Test func `a state without an owner belongs to this instance`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
            try await fixture.sleep(.seconds(1))
        }
        fixture.state.owner = nil
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(try await manager.get(Fixture.name).mounts == 1)
        }
    }
}
