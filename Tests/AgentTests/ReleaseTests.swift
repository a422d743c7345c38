import Base
import Testing
import VolumeCore

@testable import Agent

/// How an unused volume is released: which calls are made to EC2, when, and what is logged.
@Suite struct ReleaseTests {
    private static let other = VolumeID(literal: "vol-0aaaaaaaaaaaaaaaa")
    private static let mark = AttachmentMark.value(
        of: Fixture.id, on: Fixture.here, as: "/dev/sdf")
    private static let throttled = EC2Failure.refused(
        code: "RequestLimitExceeded", message: "slow down", requestID: "r")
    private static let forbidden = EC2Failure.refused(
        code: "UnauthorizedOperation", message: "no", requestID: "r")

    private func state(_ fixture: Fixture, _ id: VolumeID = Fixture.id) -> VolumeDescription.State?
    {
        fixture.cloud.volumes[id]?.state
    }

    @Test func `a release asks EC2 for three changes, after one look, and for nothing else`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            let before = fixture.cloud.calls.count
            try await fixture.sleep(.milliseconds(15_100))
            #expect(
                fixture.cloud.calls.dropFirst(before).sorted() == [
                    "DeleteTags \(Fixture.id) \(AttachmentMark.tag)",
                    "DeleteTags \(Fixture.id) \(Lease.tag)",
                    "DescribeVolumes \(Fixture.id)",
                    "DetachVolume \(Fixture.id) \(Fixture.here)",
                ])
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.calls.count == before + 4)
        }
        #expect(lines.with("warning ").isEmpty && lines.with("error ").isEmpty)
    }

    @Test func `without a linger the volume is free as soon as EC2 can make it`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .zero)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.milliseconds(2_200))
        }
        #expect(state(fixture) == .available)
    }

    @Test func `the permission for tags that is missing is not tried at a release`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(60))
        }
        #expect(state(fixture) == .available)
        #expect(fixture.cloud.calls(of: "DeleteTags").isEmpty)
    }

    @Test func `a metadata service that is away keeps no unused mount`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            cut.cancel()
            _ = await cut.result
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            fixture.cloud.hostError = OperationError(
                .cloud, doing: "find out which instance this is", found: "503")
            try await fixture.sleep(.seconds(70))
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    @Test func `a Mount that arrives while a release asks for its instance keeps the volume`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(14))
            fixture.cloud.hostTime = .seconds(2)
            try await fixture.sleep(.seconds(2))
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(60))
            #expect(try await manager.get(Fixture.name).phase == "mounted")
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(lines.with("not released yet").isEmpty)
    }

    // MARK: What EC2 answers

    @Test func `a throttled detachment is sent again after a pause, without a log line`() throws {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        fixture.cloud.refusals["DetachVolume"] = [Self.throttled, Self.throttled]
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.milliseconds(15_150))
            #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
            try await fixture.sleep(.seconds(3))
            #expect(fixture.cloud.calls(of: "DetachVolume").count == 3)
        }
        #expect(state(fixture) == .available)
        #expect(lines.with("not released yet").isEmpty)
    }

    @Test func `a detachment that EC2 always throttles is reported within a minute`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        fixture.cloud.refusals["DetachVolume"] = Array(repeating: Self.throttled, count: 1000)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(66))
        }
        let told = lines.with("not released yet")
        #expect(told.count == 1)
        #expect(told.first?.contains("RequestLimitExceeded") == true)
    }

    @Test func `a forbidden detachment is sent once, and reported with what to do`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        fixture.cloud.refusals["DetachVolume"] = [Self.forbidden]
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.milliseconds(15_500))
            let told = lines.with("not released yet")
            #expect(told.count == 1)
            for part in ["step=detach", "\(Fixture.id)", "UnauthorizedOperation", "DetachVolume"] {
                #expect(told.first?.contains(part) == true)
            }
            #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
            #expect(try await manager.get(Fixture.name).phase == "attached")
            try await fixture.sleep(.seconds(5))
        }
        #expect(state(fixture) == .available)
    }

    /// Else a Mount would take the device, which leaves.
    @Test func `a detachment that takes long stays one when a look shows it`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.detach = .seconds(600)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(20))
            #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
            fixture.host.held = [Fixture.id]
            let looks = fixture.cloud.calls(of: "DescribeVolumes").count
            try await fixture.sleep(.seconds(300))
            #expect(fixture.cloud.calls(of: "DescribeVolumes").count > looks)
            #expect(await manager.volumes[Fixture.id]?.state.expectsDeparture == true)
        }
    }

    /// By then the mark belongs to the next attachment.
    @Test(arguments: [false, true])
    func `a Mount after a release keeps its mark, however late that release removes its own`(
        isHeld: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        // The next attachment gets the name of the last one.
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter { $0 != "/dev/sdf" }
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(14))
            if isHeld { fixture.host.held = [Fixture.id] }
            fixture.cloud.sendDelays["DeleteTags"] = .seconds(10)
            try await fixture.sleep(.seconds(2))
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == (isHeld ? 0 : 1))
        #expect(fixture.cloud.volumes[Fixture.id]?.tags[AttachmentMark.tag] == Self.mark)
    }

    @Test func `the mark's removal delays no detachment`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(14))
            fixture.cloud.sendDelays["DeleteTags"] = .seconds(20)
            try await fixture.sleep(.milliseconds(3_100))
        }
        #expect(state(fixture) == .available)
    }

    // MARK: Whose the attachment is

    /// What an earlier run had attached as /dev/sdg, as its record says.
    private func earlier(hasLease: Bool = false) -> VolumeRecord {
        var record = VolumeRecord(
            id: Fixture.id, createdAt: 1, deviceName: "/dev/sdg", hasLease: hasLease)
        record.isOurs = true
        return record
    }

    private func restarted(
        _ fixture: Fixture, _ lines: LogLines = LogLines(), _ seconds: Int64 = 60
    ) throws -> VolumeManager.Info {
        let manager = fixture.observed(lines)
        return try fixture.run {
            try await manager.start()
            try await fixture.sleep(.seconds(seconds))
            return try await manager.get(Fixture.name)
        }
    }

    @Test func `a volume attached by hand while the daemon was down stays, and is logged`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.state.records = [earlier()]
        let lines = LogLines()
        _ = try restarted(fixture, lines)
        #expect(state(fixture) == .inUse)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(lines.with("attached the volume here by hand: it stays attached").count == 1)
    }

    @Test func `the next daemon silently releases what this plugin had attached`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        var record = earlier()
        record.deviceName = "/dev/sdf"
        fixture.state.records = [record]
        let lines = LogLines()
        #expect(try restarted(fixture, lines).phase == "detached")
        #expect(state(fixture) == .available)
        #expect(lines.with("by hand").isEmpty)
    }

    /// An attachment that has ended is listed as `detached` for a while.
    @Test(arguments: [Fixture.other, Fixture.here])
    func `an attachment that ended while the daemon was down is dropped at once`(
        instance: InstanceID
    ) throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.attachments = [
            VolumeAttachment(
                volume: Fixture.id, instance: instance, device: "/dev/sdf",
                state: instance == Fixture.here ? .detached : .attached)
        ]
        fixture.state.records = [earlier()]
        // EC2 itself says so.
        fixture.cloud.refusals["DetachVolume"] = [
            .refused(code: "IncorrectState", message: "not attached", requestID: "r")
        ]
        let info = try restarted(fixture, LogLines(), 20)
        #expect(info.phase == "detached" && info.attachedAs == nil)
    }

    @Test func `the lease of a volume that is not attached here any more is dropped`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.here)"
        fixture.state.records = [VolumeRecord(id: Fixture.id, createdAt: 1, hasLease: true)]
        let info = try restarted(fixture)
        #expect(info.phase == "detached")
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
        #expect(
            fixture.cloud.calls(of: "DeleteTags") == ["DeleteTags \(Fixture.id) \(Lease.tag)"])
    }

    // MARK: Waits that fail

    private func stalled(_ fixture: Fixture, _ time: FailingTime, _ manager: VolumeManager)
        async throws
    {
        try await manager.create(Fixture.name, options: [:])
        _ = try await manager.mount(Fixture.name, id: "a")
        time.error = OperationError(.limitReached, doing: "wait", found: "no room for a timer")
        try await manager.unmount(Fixture.name, id: "a")
        try await fixture.sleep(.seconds(1))
        time.error = nil
    }

    @Test func `a release whose wait fails is reported, and resumed by the next one`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.add(Self.other, Fixture.xfs)
        let (lines, time) = (LogLines(), FailingTime(fixture.time))
        let manager = fixture.observed(lines, time: time)
        try fixture.run {
            try await stalled(fixture, time, manager)
            #expect(lines.with("released later").count == 1)
            try await fixture.sleep(.seconds(60))
            #expect(self.state(fixture) == .inUse)
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "b")
            try await manager.unmount("\(Self.other)", id: "b")
            try await fixture.sleep(.seconds(30))
        }
        #expect(state(fixture) == .available && state(fixture, Self.other) == .available)
    }

    @Test func `a release that was taken up again has one wait, which a Mount ends`() throws {
        let fixture = Fixture(Fixture.xfs)
        let (lines, time) = (LogLines(), FailingTime(fixture.time))
        let manager = fixture.observed(lines, time: time)
        try fixture.run {
            try await stalled(fixture, time, manager)
            for _ in 0..<2 {
                _ = try await manager.mount(Fixture.name, id: "a")
                try await manager.unmount(Fixture.name, id: "a")
                try await fixture.sleep(.seconds(10))
            }
            // The linger since the first of the two is over.
            #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
            try await fixture.sleep(.seconds(10))
        }
        #expect(state(fixture) == .available)
    }

    @Test func `a wait that a Mount ends is no failure, whatever it ends with`() throws {
        let fixture = Fixture(Fixture.xfs)
        let (lines, time) = (LogLines(), FailingTime(fixture.time))
        let manager = fixture.observed(lines, time: time)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(1))
            time.error = OperationError(.system, doing: "wait", found: "ECANCELED")
            let call = fixture.start { _ in
                try await manager.mount(Fixture.name, id: "b")
            }
            await Task.yield()
            await Task.yield()
            time.error = nil
            _ = try await call.value
        }
        #expect(lines.with("released later").isEmpty)
    }

    // MARK: Room for others

    @Test func `a volume that is used again while it makes room for another stays`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        fixture.cloud.add(Self.other, Fixture.xfs)
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: 1, isShared: false)
        try fixture.run { manager in
            try await manager.create("\(Self.other)", options: [:])
            try await manager.learnAttachments()
            try await fixture.use(manager)
            let call = fixture.start { try await $0.mount("\(Self.other)", id: "b") }
            // Its lease is being dropped.
            try await fixture.sleep(.milliseconds(10))
            _ = try await manager.mount(Fixture.name, id: "a")
            guard case .failure = await call.result else {
                Issue.record("it was attached beyond the limit")
                return
            }
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] == "\(Fixture.here)")
        #expect(fixture.host.everMounted.count == 2 && fixture.host.unmountsAsked.count == 1)
    }

    @Test func `a Mount that arrives while the metadata service is asked keeps the volume`() throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.milliseconds(14_900))
            fixture.cloud.hostTime = .seconds(2)
            try await fixture.sleep(.seconds(1))
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `a volume attached a moment ago is released without another look`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .zero)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            let looks = fixture.cloud.calls(of: "DescribeVolumes").count
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(10))
            #expect(fixture.cloud.calls(of: "DescribeVolumes").count == looks)
        }
        #expect(state(fixture) == .available)
    }

    @Test func `a volume that could not make room for another is released later`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        fixture.cloud.add(Self.other, Fixture.xfs)
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: 1, isShared: false)
        try fixture.run { manager in
            try await manager.create("\(Self.other)", options: [:])
            try await manager.learnAttachments()
            try await fixture.use(manager)
            fixture.host.held = [Fixture.id]
            await #expect(throws: OperationError.self) {
                try await manager.mount("\(Self.other)", id: "b")
            }
            fixture.host.held = []
            try await fixture.sleep(.seconds(620))
        }
        #expect(state(fixture) == .available)
    }
}
