import Agent
import Base
import Testing
import VolumeCore

@Suite struct LeaseTests {
    private func lease(_ fixture: Fixture) -> String? {
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag]
    }

    /// A volume that the other instance has, with its lease.
    private func taken(_ policy: TakeoverPolicy = .unlessMounted) -> Fixture {
        let fixture = Fixture(takeover: policy)
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.other)"
        return fixture
    }

    @Test func `a volume has a lease while it is mounted, and 2 s longer`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(self.lease(fixture) == "\(Fixture.here)")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.milliseconds(1_900))
            #expect(self.lease(fixture) != nil)
            try await fixture.sleep(.milliseconds(200))
            #expect(self.lease(fixture) == nil)
        }
    }

    @Test func `a volume mounted on a running instance is refused, and that instance named`() throws
    {
        let fixture = taken()
        let error = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(error?.description.contains("\(Fixture.other)") == true)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a lease that is dropped a moment later is waited for`() throws {
        let fixture = taken()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = nil
            _ = try await call.value
        }
        #expect(lease(fixture) == "\(Fixture.here)")
    }

    @Test(arguments: [InstanceDescription.State.stopped, .terminated])
    func `the lease of an instance that is down is ignored, without force`(
        state: InstanceDescription.State
    ) throws {
        let fixture = taken()
        fixture.cloud.instanceStates[Fixture.other] = state
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(lease(fixture) == "\(Fixture.here)")
        #expect(
            fixture.cloud.calls(of: "DetachVolume") == [
                "DetachVolume \(Fixture.id) \(Fixture.other)"
            ])
    }

    @Test func `a volume is taken by force from an instance that is down and keeps it`() throws {
        let fixture = taken()
        fixture.cloud.instanceStates[Fixture.other] = .stopped
        fixture.cloud.stuckDetachments = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(
            fixture.cloud.calls(of: "DetachVolume") == [
                "DetachVolume \(Fixture.id) \(Fixture.other)",
                "DetachVolume \(Fixture.id) \(Fixture.other) by force",
            ])
    }

    @Test func `with takeover never nothing is forced, also from an instance that is down`() throws
    {
        let fixture = Fixture(takeover: .never)
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.instanceStates[Fixture.other] = .stopped
        fixture.cloud.volumes[Fixture.id]?.attachments[0].state = .detaching
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a volume is never taken by force from a running instance`() throws {
        let fixture = taken(.always)
        fixture.cloud.stuckDetachments = [Fixture.id]
        let error = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(error?.description.contains("being detached from \(Fixture.other)") == true)
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
    }

    @Test func `a look that is older than the attachment does not make a volume forgotten`() throws
    {
        let fixture = Fixture(Fixture.xfs)
        let unanswered = EC2Failure.unanswered(reason: "no route", mayHaveApplied: false)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.lostDevices = [Fixture.id]
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            fixture.cloud.refusals["AttachVolume"] = []
            _ = try? await manager.mount(Fixture.name, id: "a")
            fixture.cloud.refusals["AttachVolume"] = [unanswered]
            _ = try? await manager.mount(Fixture.name, id: "b")
            fixture.cloud.staleDescriptions = [:]
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.isEmpty == true)
    }

    @Test func `always takes a mounted volume, never takes none`() throws {
        let always = taken(.always)
        try always.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        let never = Fixture(takeover: .never)
        never.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        try never.run { manager in
            try await manager.create(Fixture.name, options: [:])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(never.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a lease that an instance left behind blocks nobody`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.other)"
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(lease(fixture) == "\(Fixture.here)")
    }

    @Test func `without the permission for tags, volumes are mounted without a lease`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let refusal = EC2Failure.refused(
            code: "UnauthorizedOperation", message: "no", requestID: "r")
        fixture.cloud.refusals["CreateTags"] = [refusal, refusal]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            for expected in [nil, nil, "\(Fixture.here)"] {
                _ = try await manager.mount(Fixture.name, id: "a")
                #expect(self.lease(fixture) == expected)
                #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
                try await manager.unmount(Fixture.name, id: "a")
            }
        }
    }

    @Test func `a lingering volume that is being taken is not mounted over the taker`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(60))
        let error = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(10))
            // The other host looks, and takes the volume without a lease.
            try await fixture.cloud.detachByHand(Fixture.id)
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(2_100))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.other)"
            guard case .failure(let error) = await call.result else { return "mounted" }
            return "\(error)"
        }
        #expect(error.contains("\(Fixture.other)"))
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `a lease that was not looked at again is sure to no later Mount`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(60))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(10))
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            // The first look is over, and the lease is being written.
            try await fixture.sleep(.milliseconds(25))
            fixture.cloud.refusals["DescribeVolumes"] = [
                .unanswered(reason: "no route", mayHaveApplied: false)
            ]
            guard case .failure = await call.result else {
                Issue.record("it was mounted")
                return
            }
            let before = fixture.cloud.calls(of: "DescribeVolumes").count
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.cloud.calls(of: "DescribeVolumes").count == before + 2)
        }
    }

    @Test func `a Mount that meets the dropping of the lease writes it again`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            // From then on DeleteTags takes 20 ms to arrive.
            try await fixture.sleep(.milliseconds(2_010))
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(self.lease(fixture) == "\(Fixture.here)")
        }
    }

    @Test func `with DETACH_AFTER never the lease is dropped all the same`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: nil)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(10))
        }
        #expect(lease(fixture) == nil)
    }
}

@Suite struct LossTests {
    @Test func `the loss of a mounted device is reported, and the next use is fresh`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(.seconds(5))
            #expect(try await manager.get(Fixture.name).device == "lost")
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(try await manager.get(Fixture.name).phase == "mounted")
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    /// No tag and no record says any more who made the attachment.
    @Test(arguments: [true, false])
    func
        `an attachment whose device was lost and has come back is still this plugin's, or another's`(
            isOurs: Bool
        ) throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = isOurs
        fixture.state.records = [record]
        if isOurs { fixture.mark() }
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.cloud.loseDevice(of: Fixture.id)
            try await fixture.sleep(.seconds(1))
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            fixture.cloud.bringDevice(of: Fixture.id)
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == (isOurs ? 1 : 0))
        #expect(fixture.cloud.volumes[Fixture.id]?.state == (isOurs ? .available : .inUse))
    }

    @Test func `a device that is stuck attaching is attached by another name, once`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(30))
            fixture.cloud.lostDevices = []
            _ = try await call.value
        }
        #expect(
            fixture.cloud.calls(of: "AttachVolume") == [
                "AttachVolume \(Fixture.id) /dev/sdf", "AttachVolume \(Fixture.id) /dev/sdg",
            ])
    }
}

@Suite struct UnreadableDeviceTests {
    @Test func `a volume is mounted, and none detached, while a device is unidentified`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.host.hasUnreadableDevice = true
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
            #expect(fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] != nil)
            _ = try await manager.mount(Fixture.name, id: "b")
            try await manager.unmount(Fixture.name, id: "b")
            fixture.host.hasUnreadableDevice = false
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.isEmpty == true)
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
    }

    @Test func `the loss of a device during a failing unmount is detected`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.unmountTime = .seconds(5)
            fixture.host.busyUnmounts = 1
            let unmounting = fixture.start { try await $0.unmount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(1))
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            _ = await unmounting.result
            fixture.host.unmountTime = .zero
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(try await manager.get(Fixture.name).phase == "mounted")
            #expect(
                fixture.host.mounts[Fixture.mountpoint]?.device
                    == fixture.cloud.device(of: Fixture.id)?.number)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }
}

@Suite struct AttachedByHandTests {
    /// Attached by this plugin in this run, detached by somebody, and attached again by hand.
    @Test func `a volume that was attached by hand since then is not detached`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(6))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[Fixture.id]?.attachments[0].device = "/dev/sdz"
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
    }
}
