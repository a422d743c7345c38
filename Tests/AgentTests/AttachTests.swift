import Agent
import Base
import Testing
import VolumeCore

/// Attachments that go wrong.
@Suite struct AttachTests {
    private static let away = EC2Failure.unanswered(reason: "no route", mayHaveApplied: false)
    private static let third = InstanceID(literal: "i-0aaaaaaaaaaaaaaaa")

    private func attachment(
        as name: String, to instance: InstanceID = Fixture.here,
        _ state: VolumeAttachment.State = .attaching
    ) -> VolumeAttachment {
        VolumeAttachment(volume: Fixture.id, instance: instance, device: name, state: state)
    }

    /// EC2 shows the volume attached here under that name, and its device has not appeared.
    private func attach(_ fixture: Fixture, as name: String) {
        fixture.cloud.volumes[Fixture.id]?.state = .inUse
        fixture.cloud.volumes[Fixture.id]?.attachments = [attachment(as: name)]
    }

    private func mount(_ fixture: Fixture) async -> (error: OperationError?, time: Duration) {
        await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
    }

    private func calls(_ fixture: Fixture, of action: String) -> Int {
        fixture.cloud.calls(of: action).count
    }

    // MARK: Detachments under way

    @Test func `a device that is still here while its volume is detached is not mounted`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            fixture.cloud.latency.detach = .seconds(100)
            // DetachVolume is accepted 15 s later; its end is awaited for 50 s, and again after 2
            // s.
            try await fixture.sleep(.seconds(66))
            #expect(try await manager.get(Fixture.name).phase == "attached")
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.everMounted.count == 2)
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.map(\.state) == [.attached])
        // Whether this instance runs need not be known.
        #expect(calls(fixture, of: "DescribeInstances") == 0)
    }

    @Test func `the result at the deadline is reported, and nothing more begins`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.latency.detach = .seconds(70)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("wait for \(Fixture.id) to come") == true)
            #expect(
                fixture.cloud.calls(of: "DetachVolume") == [
                    "DetachVolume \(Fixture.id) \(Fixture.other)"
                ])
        }
    }

    // MARK: Whose attachment it is

    @Test func `a stuck attachment that was made by hand is not ended, but reported`() throws {
        let fixture = Fixture(Fixture.xfs)
        attach(fixture, as: "/dev/sdf")
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("detach it by hand") == true)
            try await fixture.sleep(.seconds(60))
        }
        #expect(calls(fixture, of: "DetachVolume") == 0)
        #expect(calls(fixture, of: "DeleteTags") == 0)
    }

    @Test func `a lease of an earlier run is dropped even if the Mount fails`() throws {
        let fixture = Fixture(Fixture.xfs)
        attach(fixture, as: "/dev/sdf")
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.here)"
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = await self.mount(fixture)
            try await fixture.sleep(.seconds(10))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
    }

    @Test func `an attachment with only its mark is the plugin's, and is released`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.mark()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    /// The record of a run that ended before the device appeared, without the permission for tags.
    private func recorded(as name: String) -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        var record = VolumeRecord(
            id: Fixture.id, name: Fixture.name, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = true
        fixture.state.records = [record]
        fixture.state.owner = StateOwner(instance: Fixture.here, boot: "first")
        attach(fixture, as: name)
        return fixture
    }

    @Test(arguments: [("/dev/sdf", true), ("/dev/sdh", false)])
    func `an attachment belongs to an earlier run if its name is the recorded one`(
        name: String, isOurs: Bool
    ) throws {
        let fixture = recorded(as: name)
        try fixture.run { manager in
            try await manager.start()
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[Fixture.id]?.attachments = [
                self.attachment(as: name, .attached)
            ]
            _ = try await call.value
            #expect(try await manager.get(Fixture.name).attachedAs == name)
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect((fixture.cloud.volumes[Fixture.id]?.state == .available) == isOurs)
        #expect((calls(fixture, of: "DetachVolume") == 1) == isOurs)
    }

    @Test func `an answer that does not know this instance ends no attachment`() throws {
        let fixture = recorded(as: "/dev/sdf")
        fixture.cloud.unknownInstances = [Fixture.here]
        try fixture.run { manager in
            try await manager.start()
            for _ in 1...2 {
                let error = await #expect(throws: OperationError.self) {
                    try await manager.learnAttachments()
                }
                #expect(error?.description.contains("knows no such instance") == true)
                try await fixture.sleep(.seconds(6))
            }
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdf")
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `an attachment that EC2 shows late is this plugin's also after a second attempt`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        fixture.cloud.lostAnswers = ["AttachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(300))
            fixture.cloud.staleDescriptions = [:]
            _ = try await call.value
            #expect(self.calls(fixture, of: "AttachVolume") > 1)
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdf")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    // MARK: Answers that are lost, old or refusals

    @Test func `a response that gives a volume another one's name is outdated`() throws {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        try fixture.run { manager in
            try await manager.create("\(other)", options: [:])
            _ = try await manager.mount("\(other)", id: "a")
            let name = try await manager.get("\(other)").attachedAs
            var old = try #require(fixture.cloud.volumes[Fixture.id])
            old.attachments = [
                VolumeAttachment(
                    volume: Fixture.id, instance: Fixture.here, device: name, state: .attached)
            ]
            fixture.cloud.staleDescriptions[Fixture.id] = old
            try await manager.create(Fixture.name, options: [:])
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(100))
            fixture.cloud.staleDescriptions = [:]
            let begin = fixture.now
            _ = try await mount.value
            #expect(fixture.now - begin < Limit.attachmentCheckInterval)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }

    @Test func `EC2 is asked to attach once the state says so, or after a second`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            hang.begin()
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(900))
            #expect(fixture.cloud.calls(of: "AttachVolume").isEmpty)
            try await fixture.sleep(.milliseconds(200))
            #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
            hang.recover()
            _ = try await mount.value
        }
    }

    /// The Mount ends before EC2 can tell that the volume is attached, and so does the next one.
    @Test func `an attachment whose response was lost is released, whatever follows`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        fixture.cloud.lostDevices = [Fixture.id]
        fixture.cloud.lostAnswers = ["AttachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["DescribeVolumes"] = [Self.away]
            #expect(await self.mount(fixture).error?.reason == .cloud)
            try await fixture.sleep(.seconds(7))
            fixture.cloud.refusals["AttachVolume"] = [Self.away]
            #expect(await self.mount(fixture).error?.reason == .cloud)
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a rejected attachment occupies no name, and nothing is released`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .refused(code: "CustomerKeyHasBeenRevoked", message: "no", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            #expect(await self.mount(fixture).error?.reason == .cloud)
            let info = try await manager.get(Fixture.name)
            #expect(info.phase == "detached" && info.attachedAs == nil)
            try await fixture.sleep(.seconds(60))
        }
        #expect(calls(fixture, of: "DetachVolume") == 0)
    }

    @Test func `of names that are in use the next is tried without another look`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.otherDeviceNames = ["/dev/sdf", "/dev/sdg"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(
            fixture.cloud.calls.prefix(4) == [
                "DescribeVolumes \(Fixture.id)", "AttachVolume \(Fixture.id) /dev/sdf",
                "AttachVolume \(Fixture.id) /dev/sdg", "AttachVolume \(Fixture.id) /dev/sdh",
            ])
    }

    @Test func `if all names are taken, a Mount is rejected at once`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.otherDeviceNames = DeviceNames.all
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            let (error, time) = await self.mount(fixture)
            #expect(error?.reason == .limitReached && time < .seconds(1))
            #expect(error?.description.contains("all 63 device names") == true)
        }
        #expect(calls(fixture, of: "AttachVolume") == 0)
    }

    @Test func `a name that was stuck is used again when there is no other`() throws {
        let fixture = Fixture(Fixture.xfs)
        let second = VolumeID(literal: "vol-00000000000000001")
        fixture.cloud.add(second, Fixture.xfs)
        fixture.cloud.otherDeviceNames = Array(DeviceNames.all.dropFirst(2))
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            try await manager.create("\(second)", options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(30))
            fixture.cloud.lostDevices = []
            _ = try await call.value
            _ = try await manager.mount("\(second)", id: "a")
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdg")
            #expect(try await manager.get("\(second)").attachedAs == "/dev/sdf")
        }
    }

    @Test func `a slow device is waited for, and one outdated response ends nothing`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.device = .seconds(20)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let free = fixture.cloud.volumes[Fixture.id]
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(4_500))
            fixture.cloud.staleDescriptions[Fixture.id] = free
            try await fixture.sleep(.seconds(1))
            fixture.cloud.staleDescriptions = [:]
            _ = try await call.value
        }
        #expect(calls(fixture, of: "AttachVolume") == 1)
    }

    @Test func `a volume that was attached by another name meanwhile is an error soon`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.volumes[Fixture.id]?.attachments[0].device = "/dev/sdz"
            let (error, time) = try await call.value
            #expect(error?.description.contains("attached here as /dev/sdz") == true)
            #expect(time < .seconds(15))
        }
    }

    @Test(arguments: [true, false])
    func `the error for a revoked attachment names the key, unless another host has it`(
        isFree: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        fixture.cloud.volumes[Fixture.id]?.kmsKeyID = "arn:aws:kms:k"
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.volumes[Fixture.id]?.attachments = []
            fixture.cloud.volumes[Fixture.id]?.state = .available
            if !isFree {
                fixture.cloud.volumes[Fixture.id]?.attachments = [
                    self.attachment(as: "/dev/sdf", to: Fixture.other, .attached)
                ]
            }
            let error = try await call.value.error?.description ?? ""
            #expect(error.contains("kms:CreateGrant") == isFree)
            #expect(error.contains("arn:aws:kms:k") == isFree)
        }
    }

    @Test func `an attachment that was only looked up takes no other host's lease`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.other)"
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            var old = fixture.cloud.volumes[Fixture.id]
            old?.attachments = [self.attachment(as: "/dev/sdf", .attached)]
            fixture.cloud.staleDescriptions[Fixture.id] = old
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.staleDescriptions = [:]
            #expect(
                try await call.value.error?.description.contains("\(Fixture.other)") == true)
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags == [Lease.tag: "\(Fixture.other)"])
        #expect(calls(fixture, of: "CreateTags") == 0)
    }

    @Test func `a look that is older than the attachment has it neither ended nor made again`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            fixture.cloud.staleDescriptions = [:]
            _ = try await call.value
        }
        #expect(calls(fixture, of: "AttachVolume") == 1)
        #expect(calls(fixture, of: "DescribeVolumes") < 10)
    }

    @Test func `after a loss the volume is attached again without waiting for the old attachment`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(.seconds(5))
            #expect(await self.mount(fixture).time < .seconds(3))
        }
    }

    /// At its limit the instance is described once more, and somebody attaches the volume
    /// meanwhile.
    @Test func `a volume whose device appears just before the attachment is mounted`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.otherVolumes = [VolumeID(literal: "vol-0000000000000000f")]
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: 1, isShared: false)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(1))
            fixture.cloud.otherVolumes = []
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(10))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
            _ = try await call.value
        }
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `an outdated look after a lost response loses nothing`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        fixture.cloud.lostDevices = [Fixture.id]
        fixture.cloud.lostAnswers = ["AttachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.milliseconds(30))
            fixture.cloud.refusals["AttachVolume"] = [Self.away]
            #expect(try await call.value.error?.reason == .cloud)
            fixture.cloud.staleDescriptions = [:]
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    // MARK: What another host has taken

    @Test func `a volume that another host has taken is not here, and its name is free`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
            try await fixture.cloud.detachByHand(Fixture.id)
            try await fixture.sleep(.seconds(10))
            let before = self.calls(fixture, of: "DetachVolume")
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            fixture.cloud.volumes[Fixture.id]?.tags = [Lease.tag: "\(Fixture.other)"]
            #expect(await self.mount(fixture).error?.reason == .unusableVolume)
            let info = try await manager.get(Fixture.name)
            #expect(info.attachedAs == nil && info.phase == "detached")
            try await fixture.sleep(.seconds(700))
            #expect(self.calls(fixture, of: "DetachVolume") == before)
        }
    }

    @Test func `a lingering volume that another host has taken is let go at the first look`() throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
            fixture.cloud.move(Fixture.id, to: Fixture.other)
            let (error, time) = await self.mount(fixture)
            #expect(error?.description.contains("mounted on \(Fixture.other)") == true)
            #expect(time < Limit.leaseWaitMax + .milliseconds(1_500))
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `the names of a Multi-Attach volume on other instances are not looked up`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
        fixture.cloud.volumes[Fixture.id]?.attachments += [
            attachment(as: "/dev/sdz", to: Fixture.other, .attached)
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            let before = self.calls(fixture, of: "DescribeInstances")
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(self.calls(fixture, of: "DescribeInstances") == before)
        }
    }

    @Test func `a name that the volume no longer has is free for another`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        let second = VolumeID(literal: "vol-00000000000000001")
        fixture.cloud.add(second, Fixture.xfs)
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter {
            $0 != "/dev/sdf" && $0 != "/dev/sdh"
        }
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            try await manager.create("\(second)", options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
            // Somebody detaches it, and attaches it by another name.
            fixture.cloud.volumes[Fixture.id]?.attachments = [
                self.attachment(as: "/dev/sdh", .attached)
            ]
            _ = try await manager.mount(Fixture.name, id: "b")
            _ = try await manager.mount("\(second)", id: "a")
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdh")
            #expect(try await manager.get("\(second)").attachedAs == "/dev/sdf")
        }
    }

    @Test func `each Mount warns of deletion with the instance, and how to prevent it`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Fixture.id]?.attachments[0].deleteOnTermination = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let warnings = { fixture.log.lines(with: "DeleteOnTermination=false").count }
            let before = warnings()
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(warnings() == before + 1)
        }
    }

    // MARK: Where names alone tell, as on Xen

    private static let foreign = BlockDevice(
        path: "/dev/xvdf", number: DeviceNumber(major: 202, minor: 80))

    @Test func `a name whose node another disk has is not used`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.host.foreignNodes = ["/dev/sdf": Self.foreign]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdg")
        }
        #expect(
            fixture.cloud.calls(of: "AttachVolume") == ["AttachVolume \(Fixture.id) /dev/sdg"])
    }

    @Test func `the node of the remembered name is not mounted if EC2 reports another`()
        throws
    {
        let fixture = recorded(as: "/dev/sdh")
        fixture.host.foreignNodes = ["/dev/sdf": Self.foreign]
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Fixture.id]?.attachments = [attachment(as: "/dev/sdh", .attached)]
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdh")
        }
        #expect(fixture.host.mounts[Fixture.mountpoint]?.source != Self.foreign.path)
    }

    @Test func `a volume that the instance boots from is not mounted`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[Fixture.id]?.attachments = [
                self.attachment(as: "/dev/sda1", .attached)
            ]
            fixture.cloud.rootDeviceNames[Fixture.here] = "/dev/sda1"
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("root volume of \(Fixture.here)") == true)
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `a lost call's name is asked for again after EC2 refused the second call`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .unanswered(reason: "reset", mayHaveApplied: true),
            .refused(code: "InternalError", message: "no", requestID: "r"),
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("InternalError") == true)
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdf")
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        let names = fixture.cloud.calls(of: "AttachVolume").map { $0.suffix(8) }
        #expect(names == ["/dev/sdf", "/dev/sdf", "/dev/sdf"])
    }

    @Test func `the name of a lost call is no other volume's before that call is explained`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter { $0 != "/dev/sdf" }
        fixture.cloud.refusals["AttachVolume"] = [
            .unanswered(reason: "reset", mayHaveApplied: true),
            .refused(code: "UnsupportedOperation", message: "no", requestID: "r"),
        ]
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            try await manager.create("\(other)", options: [:])
            _ = await self.mount(fixture)
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdf")
            // It is the only free name, so a look has to find out first that nothing has it.
            let begin = fixture.now
            _ = try await manager.mount("\(other)", id: "b")
            #expect(fixture.now - begin < .seconds(8))
            #expect(try await manager.get(Fixture.name).attachedAs == nil)
            #expect(try await manager.get("\(other)").attachedAs == "/dev/sdf")
        }
    }

    /// An old look had shown the volume free, so only the answer to the next call tells.
    @Test func `an attachment by a lost call is released though no later look was answered`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let throttled = EC2Failure.refused(
            code: "RequestLimitExceeded", message: "slow down", requestID: "r")
        fixture.cloud.lostAnswers = ["AttachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let free = fixture.cloud.volumes[Fixture.id]
            fixture.cloud.refusals["DescribeVolumes"] = [throttled]
            _ = await self.mount(fixture)
            try await fixture.sleep(.seconds(6))
            fixture.cloud.staleDescriptions[Fixture.id] = free
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            while self.calls(fixture, of: "AttachVolume") < 2 {
                try await fixture.sleep(.milliseconds(10))
            }
            fixture.cloud.staleDescriptions = [:]
            fixture.cloud.refusals["DescribeVolumes"] = [throttled]
            guard case .failure = await call.result else {
                Issue.record("the volume was mounted")
                return
            }
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a name is free again once EC2 has refused the volume that a look showed free`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .unanswered(reason: "reset", mayHaveApplied: true),
            .refused(code: "UnsupportedOperation", message: "no", requestID: "r"),
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["DescribeVolumes"] = [
                .refused(code: "RequestLimitExceeded", message: "slow down", requestID: "r")
            ]
            _ = await self.mount(fixture)
            try await fixture.sleep(.seconds(6))
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("UnsupportedOperation") == true)
            #expect(try await manager.get(Fixture.name).attachedAs == nil)
        }
    }

    @Test func `a refused volume keeps no device name`() throws {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter { $0 != "/dev/sdf" }
        fixture.cloud.refusals["AttachVolume"] = [
            .refused(code: "UnsupportedOperation", message: "no", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            try await manager.create("\(other)", options: [:])
            let (error, _) = await self.mount(fixture)
            #expect(error?.description.contains("UnsupportedOperation") == true)
            _ = try await manager.mount("\(other)", id: "b")
            #expect(try await manager.get("\(other)").attachedAs == "/dev/sdf")
        }
    }

    @Test func `a name that EC2 did not get twice is not asked for again after a refusal`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .unanswered(reason: "reset", mayHaveApplied: true),
            .refused(
                code: "InvalidParameterValue", message: "/dev/sdf is already in use",
                requestID: "r"),
            .refused(code: "VolumeInUse", message: "already attached", requestID: "r"),
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        let names = fixture.cloud.calls(of: "AttachVolume").map { $0.suffix(8) }
        #expect(names == ["/dev/sdf", "/dev/sdf", "/dev/sdg", "/dev/sdh"])
    }
}
