import Agent
import Base
import Testing
import VolumeCore

/// What a daemon does with the state of an earlier one, or of another instance's.
@Suite struct RestartTests {
    private static let other = VolumeID(literal: "vol-0aaaaaaaaaaaaaaaa")
    private static let away = OperationError(
        .cloud, doing: "find out which instance this is", found: "503")

    private func record(
        isOurs: Bool, deviceName: String?, hasLease: Bool = false
    ) -> VolumeRecord {
        var record = VolumeRecord(
            id: Fixture.id, createdAt: 1, deviceName: deviceName, hasLease: hasLease)
        record.isOurs = isOurs
        return record
    }

    /// The volume is attached here as /dev/sdf, and the device is here.
    private func attached(_ records: [VolumeRecord]) -> Fixture {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.state.records = records
        return fixture
    }

    /// EC2 is attaching the volume here as /dev/sdf, and the device has not appeared.
    private func attaching(_ records: [VolumeRecord]) -> Fixture {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.attachments = [Self.attachment]
        fixture.state.records = records
        return fixture
    }

    private static var attachment: VolumeAttachment {
        VolumeAttachment(
            volume: Fixture.id, instance: Fixture.here, device: "/dev/sdf", state: .attaching)
    }

    private func detachments(_ fixture: Fixture) -> Int {
        fixture.cloud.calls(of: "DetachVolume").count
    }

    // MARK: Attachments

    @Test func `a volume attached by hand keeps its tags and its attachment`() throws {
        let fixture = attached([record(isOurs: false, deviceName: "/dev/sdf")])
        let tags = [Lease.tag: "\(Fixture.here)"]
        fixture.cloud.volumes[Fixture.id]?.tags = tags
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags == tags)
        #expect(fixture.cloud.calls(of: "DeleteTags").isEmpty && detachments(fixture) == 0)
    }

    @Test func `a name that only a record has does not block the volume that has it in EC2`()
        throws
    {
        var stale = VolumeRecord(id: Self.other, createdAt: 1, deviceName: "/dev/sdf")
        stale.isOurs = true
        let fixture = attached([stale])
        fixture.cloud.add(Self.other, Fixture.xfs)
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            let begin = fixture.now
            _ = try await manager.mount(Fixture.name, id: "a")
            // Before the other one is released.
            #expect(fixture.now - begin < .seconds(5))
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").isEmpty)
    }

    @Test func `the name of an ended attachment is free again, whoever made it`() throws {
        let fixture = Fixture()
        fixture.state.records = [record(isOurs: false, deviceName: "/dev/sdf")]
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(10))
            let info = try await manager.get(Fixture.name)
            #expect(info.attachedAs == nil && info.phase == "detached")
        }
    }

    @Test func `an attachment whose device has not appeared yet is released`() throws {
        let fixture = attaching([record(isOurs: true, deviceName: nil)])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(20))
        }
        #expect(detachments(fixture) == 1)
    }

    /// As after a loss of the records: a Create and a Mount come before EC2 lists the attachment.
    @Test func `an attachment that a failing Mount occupies is looked at again, and released`()
        throws
    {
        let fixture = attaching([])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["DescribeVolumes"] = [
                .unanswered(reason: "reset", mayHaveApplied: false)
            ]
            fixture.cloud.sendDelays["DescribeVolumes"] = .seconds(1)
            let mount = fixture.start { _ = try await $0.mount(Fixture.name, id: "a") }
            try await manager.learnAttachments()
            await #expect(throws: OperationError.self) { try await mount.value }
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
    }

    /// The records are lost, EC2 cannot list the attachments, and somebody removes the tags.
    @Test func `the check of the lease shows who attached a mounted volume`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        fixture.state.records = []
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(Limit.leaseCheckDelay + .seconds(1))
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
    }

    /// The mark is all that tells: a daemon with records would look at the name instead.
    @Test func `without records, the volume of a lost device is released too`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.cloud.loseDevice(of: Fixture.id)
            fixture.cloud.bringDevice(of: Fixture.id)
        }
        fixture.state.records = []
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(1))
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
    }

    /// Only the record says that the plugin attached it.
    @Test func `without tags, a removed volume is released by the next daemon`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: nil)
        fixture.cloud.tagsForbidden = true
        try fixture.run { manager in
            try await fixture.use(manager)
            try await manager.remove(Fixture.name)
        }
        let manager = fixture.observed(LogLines())
        try fixture.run {
            try await manager.start()
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
        #expect(fixture.state.records.isEmpty)
    }

    @Test func `an attachment that EC2 lists is not dropped for lack of a device`() throws {
        let fixture = attaching([record(isOurs: true, deviceName: "/dev/sdf")])
        let manager = fixture.observed(LogLines(), detachAfter: .seconds(60))
        try fixture.run {
            try await manager.start()
            for _ in 0..<2 {
                try await manager.learnAttachments()
                try await fixture.sleep(.seconds(5))
            }
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdf")
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
    }

    @Test func `two looks within a second may both be older than the attachment`() throws {
        let fixture = attaching([record(isOurs: true, deviceName: "/dev/sdf")])
        fixture.cloud.volumes[Fixture.id]?.attachments = []
        let manager = fixture.observed(LogLines(), detachAfter: .seconds(60))
        try fixture.run {
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(1))
            try await manager.learnAttachments()
            fixture.cloud.volumes[Fixture.id]?.attachments = [Self.attachment]
            try await fixture.sleep(.seconds(70))
        }
        #expect(detachments(fixture) == 1)
    }

    @Test func `a device that is here is proof of an attachment that EC2 does not list`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        let attachments = fixture.cloud.volumes[Fixture.id]?.attachments ?? []
        let manager = fixture.observed(LogLines(), detachAfter: .seconds(60))
        try fixture.run {
            fixture.cloud.volumes[Fixture.id]?.attachments = []
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(10))
            fixture.cloud.volumes[Fixture.id]?.attachments = attachments
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
    }

    private func free(_ fixture: Fixture) -> VolumeDescription? {
        var free = fixture.cloud.volumes[Fixture.id]
        free?.attachments = []
        free?.state = .available
        return free
    }

    @Test func `a look at the release that shows no attachment may be older than that`() throws {
        let fixture = attaching([record(isOurs: true, deviceName: "/dev/sdf")])
        try fixture.run { manager in
            try await manager.start()
            fixture.cloud.staleDescriptions[Fixture.id] = free(fixture)
            // The linger ends after 15 s.
            try await fixture.sleep(.seconds(16))
            #expect(!fixture.cloud.calls(of: "DescribeVolumes").isEmpty)
            fixture.cloud.staleDescriptions = [:]
            try await fixture.sleep(.seconds(20))
        }
        #expect(detachments(fixture) == 1)
    }

    @Test func `a device that is here is detached at the release, whatever the looks show`() throws
    {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            fixture.cloud.staleDescriptions[Fixture.id] = free(fixture)
            try await fixture.sleep(.seconds(60))
        }
        #expect(detachments(fixture) == 1)
        let marks = fixture.cloud.calls(of: "DeleteTags").filter {
            $0.hasSuffix(AttachmentMark.tag)
        }
        #expect(marks.count == 1)
    }

    @Test func `a mark that is seen late is taken note of, and then EC2 is asked no more`() throws {
        let fixture = attached([])
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(4))
            fixture.mark()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect(fixture.cloud.calls(of: "DescribeInstances").count == 2)
    }

    @Test func `if all is known, EC2 is asked once for attachments and for no volume`()
        throws
    {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        let leased = VolumeRecord(id: Self.other, createdAt: 1, hasLease: true)
        fixture.state.records.append(leased)
        fixture.cloud.add(Self.other, Fixture.xfs)
        fixture.cloud.otherVolumes = [VolumeID(literal: "vol-0bbbbbbbbbbbbbbbb")]
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            #expect(fixture.cloud.calls(of: "DescribeVolumes").isEmpty)
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "DescribeInstances").count == 1)
    }

    @Test func `a volume in no record that is found at the first look is no reason for a second`()
        throws
    {
        let fixture = attached([VolumeRecord(id: Self.other, createdAt: 1)])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect(fixture.cloud.calls(of: "DescribeInstances").count == 1)
    }

    @Test func `a mark that is seen after a release has ended begins another`() throws {
        let fixture = attached([record(isOurs: false, deviceName: nil, hasLease: true)])
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(4))
            fixture.mark()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a known volume whose mark is found keeps its name, and is released`() throws {
        let fixture = attached([record(isOurs: false, deviceName: nil)])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
            #expect(await manager.list().map(\.name) == [Fixture.name])
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect(fixture.state.records.map(\.id) == [Fixture.id])
    }

    @Test func `the lease is dropped once, however often attachments are looked up`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(5))
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        let leases = fixture.cloud.calls(of: "DeleteTags").filter { $0.hasSuffix(Lease.tag) }
        #expect(leases.count == 1)
    }

    @Test func `the lease is dropped once, also where the name is learned during the detachment`()
        throws
    {
        let fixture = attached([record(isOurs: true, deviceName: nil)])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            while detachments(fixture) == 0 { try await fixture.sleep(.milliseconds(100)) }
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        let leases = fixture.cloud.calls(of: "DeleteTags").filter { $0.hasSuffix(Lease.tag) }
        #expect(leases.count == 1)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `the linger counts from the start, whenever the device's name is learned`() throws {
        let fixture = attached([record(isOurs: true, deviceName: nil)])
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(10))
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(9))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a lease that no record mentions is dropped`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        fixture.mark()
        let manager = fixture.observed(LogLines(), detachAfter: nil)
        try fixture.run {
            try await manager.start()
            try await fixture.sleep(.seconds(10))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] == nil)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
    }

    /// All names are used, by attachments of an earlier run.
    private func full() -> Fixture {
        let fixture = Fixture(detachAfter: nil)
        let ids = (0..<63).compactMap { VolumeID("vol-0000\($0 + 1000)") }
        for (id, name) in zip(ids, DeviceNames.all) {
            fixture.cloud.add(id, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[id]?.attachments[0].device = name
            var record = VolumeRecord(id: id, createdAt: 1, deviceName: name)
            record.isOurs = true
            fixture.state.records.append(record)
        }
        return fixture
    }

    /// Nobody gives such an attachment back, so that its name would be free.
    @Test func `names of attachments by hand that have gone are free when a Mount needs one`()
        throws
    {
        let fixture = Fixture()
        for (index, name) in DeviceNames.all.enumerated() {
            guard let id = VolumeID("vol-0000\(index + 1000)") else { continue }
            fixture.state.records.append(
                VolumeRecord(id: id, createdAt: 1, deviceName: name))
        }
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
        }
    }

    /// As if the daemon had ended between AttachVolume and the mount.
    @Test func `the names of present devices do not count as free`()
        throws
    {
        let fixture = full()
        try fixture.run { manager in
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
            #expect(await manager.list().filter { $0.attachedAs != nil }.count == 63)
        }
        #expect(detachments(fixture) == 1)
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    // MARK: Mounts and counts

    /// The volume is mounted for `a`, and the daemon ends.
    private func mounted() throws -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(1))
        }
        return fixture
    }

    @Test(arguments: [true, false])
    func `a mount with a count is joined, and one without is mounted again`(
        isCounted: Bool
    ) throws {
        let fixture = try mounted()
        if !isCounted { fixture.state.records[0].mounts = MountCounts() }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.everMounted.count == (isCounted ? 1 : 2))
    }

    /// The run before was killed when EC2 had taken the lease, and before that was saved.
    @Test func `the lease of what somebody attached by hand is dropped with its mount`() throws {
        let fixture = attached([record(isOurs: false, deviceName: "/dev/sdf")])
        fixture.state.records[0].mounts = MountCounts(["a": 1])
        fixture.cloud.volumes[Fixture.id]?.tags = [Lease.tag: "\(Fixture.here)"]
        try fixture.run { manager in
            let device = try #require(
                try await fixture.host.find(Fixture.id, attachedAs: "/dev/sdf"))
            _ = try await fixture.host.mount(
                device, of: Fixture.id, type: "xfs", at: Fixture.mountpoint, access: .writable,
                options: [])
            try await manager.start()
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
        #expect(detachments(fixture) == 0)
    }

    @Test func `a mount of the volume outside the plugin's folder is ignored`() throws {
        let fixture = attached([])
        let elsewhere = "/srv/\(Fixture.id)"
        try fixture.run { manager in
            let device = try #require(
                try await fixture.host.find(Fixture.id, attachedAs: "/dev/sdf"))
            _ = try await fixture.host.mount(
                device, of: Fixture.id, type: "xfs", at: elsewhere, access: .writable, options: [])
            try await manager.start()
            try await manager.create(Fixture.name, options: [:])
            #expect(try await manager.get(Fixture.name).mountpoint == nil)
            try await fixture.sleep(.seconds(100))
        }
        #expect(fixture.host.mounts[elsewhere] != nil)
    }

    @Test func `counts without a mount are removed from disk too, and this is logged`() throws {
        let fixture = Fixture()
        fixture.state.records = [
            VolumeRecord(id: Fixture.id, createdAt: 1, mounts: MountCounts(["a": 2]))
        ]
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run { try await manager.start() }
        #expect(fixture.state.records.allSatisfy { $0.mounts.isEmpty })
        #expect(lines.with("that an earlier run counted no longer exist").count == 1)
    }

    @Test func `what was counted by a mount that is gone is given back`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        fixture.state.records[0].mounts = MountCounts(["a": 1])
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a volume that only lingered has no counts to drop`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run { try await manager.start() }
        #expect(lines.with("known from an earlier run").count == 1)
        #expect(lines.with("counted").isEmpty)
    }

    @Test(arguments: [true, false])
    func `a Mount that may be unanswered is reported with its ID, and no other`(
        wasAnswered: Bool
    ) throws {
        let fixture = try mounted()
        fixture.state.records[0].mounts = MountCounts(
            ["a": 1], unanswered: wasAnswered ? [] : ["a"])
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run { try await manager.start() }
        let told = lines.with("responses may not have been sent")
        #expect(told.count == (wasAnswered ? 0 : 1))
        #expect(told.allSatisfy { $0.contains("\"a\"") && $0.contains("\(Fixture.id)") })
    }

    @Test func `the folder that an earlier boot mounted in is removed`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        try fixture.run { try await $0.start() }
        #expect(fixture.host.unmountsAsked == [Fixture.mountpoint])
    }

    // MARK: Whose the state is

    @Test func `in the same boot a second container needs no metadata service`() throws {
        let fixture = try mounted()
        fixture.cloud.hostError = Self.away
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(try await manager.get(Fixture.name).mounts == 2)
        }
    }

    @Test func `until the state's owner is known, no release is tried`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf", hasLease: true)])
        fixture.state.owner = StateOwner(instance: Fixture.here, boot: "an earlier one")
        fixture.cloud.hostError = Self.away
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await manager.start()
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(lines.with("not released").isEmpty && fixture.cloud.calls.isEmpty)
    }

    @Test func `a mount without a count ends even before the state's owner is known`()
        throws
    {
        let fixture = try mounted()
        fixture.state.owner?.boot = "an earlier one"
        fixture.state.records[0].mounts = MountCounts()
        fixture.cloud.hostError = Self.away
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(70))
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `what lingers according to a state without an owner is released`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        try fixture.run { manager in
            try await manager.start()
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect(fixture.state.copies.isEmpty)
    }

    /// Its users elsewhere may have changed the owner, before somebody attached it here by hand.
    @Test func `a volume that is away at the start keeps its owner when it comes back`() throws {
        var due = VolumeRecord(
            id: Fixture.id, options: try VolumeOptions(["uid": "999"]), createdAt: 1,
            deviceName: "/dev/sdf")
        due.isOwnershipDue = true
        let fixture = Fixture(Fixture.xfs)
        fixture.state.records = [due]
        try fixture.run { manager in
            try await manager.start()
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.actions.isEmpty)
    }

    @Test func `to learn which instance this is takes no owner from a new file system`() throws {
        let fixture = Fixture(.blank)
        fixture.host.failOwnership = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["uid": "999"])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        fixture.state.owner = nil
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.actions == ["own 999:-:-"])
    }

    @Test func `mounts here stay counted, whoever owns the state`() throws {
        let fixture = try mounted()
        fixture.state.owner?.instance = Fixture.other
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            #expect(try await manager.get(Fixture.name).mounts == 1)
            try await fixture.sleep(.seconds(100))
        }
        #expect(fixture.state.copies == ["\(Fixture.other)"])
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `an attachment by hand is not this plugin's for another instance's record`() throws {
        let fixture = attached([record(isOurs: true, deviceName: "/dev/sdf")])
        fixture.state.owner = StateOwner(instance: Fixture.other, boot: "an earlier one")
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
        }
        #expect(detachments(fixture) == 0)
    }

    @Test func `what is mounted is taken up once, though whose the state is is learned later`()
        throws
    {
        let fixture = try mounted()
        fixture.state.owner?.boot = "an earlier one"
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await manager.start()
            try await manager.learnAttachments()
        }
        #expect(lines.with("known from an earlier run").count == 1)
    }

    @Test func `names that another instance's records claim are free once that is known`() throws {
        let fixture = full()
        fixture.state.owner = StateOwner(instance: Fixture.other, boot: "first")
        try fixture.run { manager in
            try await manager.start()
            // The first release asks whose they are.
            try await fixture.sleep(.seconds(5))
            for id in fixture.cloud.volumes.keys {
                fixture.cloud.volumes[id]?.attachments = []
                fixture.cloud.volumes[id]?.state = .available
            }
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "x")
        }
        #expect(fixture.state.copies.count == 1 && detachments(fixture) == 0)
    }

    /// What was unfinished there may be complete by now, and anybody's.
    @Test func `a volume that another instance was formatting is not formatted here`() throws {
        let fixture = Fixture(.unfinished(type: "xfs"))
        var record = record(isOurs: true, deviceName: "/dev/sdf", hasLease: true)
        record.isFormatting = true
        fixture.state.records = [record]
        fixture.state.owner = StateOwner(instance: Fixture.other, boot: "an earlier one")
        try fixture.run { manager in
            try await manager.start()
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(fixture.host.formatted.isEmpty)
    }
}
