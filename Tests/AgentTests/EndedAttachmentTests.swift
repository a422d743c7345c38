import Agent
import Base
import Testing
import VolumeCore

/// Attachments that others have ended, and attachments by hand in their place.
@Suite struct EndedAttachmentTests {
    private static let other = VolumeID(literal: "vol-0aaaaaaaaaaaaaaaa")
    private static let throttled = EC2Failure.refused(
        code: "RequestLimitExceeded", message: "slow down", requestID: "r")

    private func tags(_ fixture: Fixture) -> [String: String]? {
        fixture.cloud.volumes[Fixture.id]?.tags
    }

    private func state(_ fixture: Fixture) -> VolumeDescription.State? {
        fixture.cloud.volumes[Fixture.id]?.state
    }

    private func detachByHand(_ fixture: Fixture, _ id: VolumeID = Fixture.id) async throws {
        try await fixture.cloud.detachByHand(id)
        try await fixture.sleep(.seconds(3))
    }

    private func attachByHand(
        _ fixture: Fixture, as name: String = "/dev/sdz", keeping tags: [String: String]? = nil
    ) {
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here, as: name)
        fixture.cloud.volumes[Fixture.id]?.tags = tags ?? [:]
    }

    @Test func `a volume attached by hand while a detachment waits stays attached`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            fixture.cloud.sendDelays["DetachVolume"] = .milliseconds(2_500)
            // The linger has just ended.
            try await fixture.sleep(.seconds(7))
            attachByHand(fixture)
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    /// DetachVolume is not repeated without a look.
    @Test func `a volume attached by hand after a lost detachment stays attached`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.detach = .zero
        fixture.cloud.lostAnswers = ["DetachVolume"]
        try fixture.run { manager in
            try await fixture.use(manager)
            while state(fixture) == .inUse { try await fixture.sleep(.milliseconds(10)) }
            // During the pause before the next call.
            try await fixture.sleep(.milliseconds(100))
            attachByHand(fixture)
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    /// Another instance may have attached and released it meanwhile without leaving its own mark.
    @Test func `the mark of a lost device's attachment says nothing about the next one`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            let tags = tags(fixture)
            #expect(tags?[AttachmentMark.tag] != nil)
            try await detachByHand(fixture)
            attachByHand(fixture, keeping: tags)
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    /// The name that the record has is not that of the attachment, and EC2's tags are old.
    @Test func `one look that does not show the mark is not enough to leave an attachment`() throws
    {
        let fixture = Fixture(Fixture.xfs)
        attachByHand(fixture, as: "/dev/sdk")
        let unmarked = fixture.cloud.volumes[Fixture.id]
        fixture.mark(as: "/dev/sdk")
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = true
        fixture.state.records = [record]
        try fixture.run { manager in
            fixture.cloud.staleDescriptions[Fixture.id] = unmarked
            try await manager.start()
            try await fixture.sleep(.seconds(16))
            fixture.cloud.staleDescriptions = [:]
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .available)
        #expect(tags(fixture)?.isEmpty == true)
    }

    @Test func `a name that EC2 refused does not make an attachment by it the plugin's`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .refused(code: "UnauthorizedOperation", message: "no", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            attachByHand(fixture, as: "/dev/sdf")
            _ = try await manager.mount(Fixture.name, id: "b")
            try await manager.unmount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(state(fixture) == .inUse)
    }

    @Test func `a volume that another host takes after a lost detachment is released in silence`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        fixture.cloud.latency.detach = .zero
        fixture.cloud.lostAnswers = ["DetachVolume"]
        try fixture.run {
            try await fixture.use(manager)
            while state(fixture) == .inUse { try await fixture.sleep(.milliseconds(10)) }
            fixture.cloud.add(
                Fixture.id, Fixture.xfs, attachedTo: Fixture.other, as: "/dev/sdz")
            try await fixture.sleep(.seconds(120))
            #expect(try await manager.get(Fixture.name).phase == "detached")
        }
        #expect(lines.with("not released yet").isEmpty)
        #expect(state(fixture) == .inUse)
    }

    /// The look that the Mount relies on is older than the removal of the mark.
    @Test(arguments: ["/dev/sdf", "/dev/sdz"])
    func `a mark that this plugin has removed says nothing when a look still shows it`(
        name: String
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            let tags = tags(fixture)
            #expect(tags?[AttachmentMark.tag] != nil)
            try await fixture.sleep(.seconds(30))
            #expect(state(fixture) == .available)
            attachByHand(fixture, as: name, keeping: tags)
            try await fixture.use(manager, as: "b")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    /// The other host's role may not write tags, so the mark is still there.
    @Test func `a mark says nothing once another host was seen to have the volume`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            let tags = tags(fixture)
            try await fixture.sleep(Limit.attachmentLagMax + .seconds(1))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            fixture.cloud.volumes[Fixture.id]?.tags = [Lease.tag: "\(Fixture.other)"]
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
            attachByHand(fixture, keeping: tags)
            try await fixture.use(manager, as: "c")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(state(fixture) == .inUse)
    }

    @Test func `a look that EC2 refuses does not say whose the attachment is`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            attachByHand(fixture)
            fixture.cloud.refusals["DescribeVolumes"] = [Self.throttled]
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    @Test func `a volume that others detached is released, and its mark removed`() throws {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            let looks = fixture.cloud.calls(of: "DescribeVolumes").count
            try await fixture.sleep(.seconds(15))
            #expect(try await manager.get(Fixture.name).phase == "detached")
            #expect(fixture.cloud.calls(of: "DescribeVolumes").count == looks + 2)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(tags(fixture)?.isEmpty == true)
        #expect(lines.with("warning ").isEmpty)
    }

    @Test func `a volume that was deleted is released`() throws {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            fixture.cloud.volumes[Fixture.id] = nil
            try await fixture.sleep(.seconds(60))
            #expect(try await manager.get(Fixture.name).phase == "detached")
        }
        #expect(lines.with("not released yet").isEmpty)
    }

    /// By a name that this plugin gives, too.
    @Test(arguments: ["/dev/sdz", "/dev/sdk"])
    func `a volume attached by hand after a loss stays, even for the next daemon`(
        name: String
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await detachByHand(fixture)
            attachByHand(fixture, as: name)
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    /// Its mark belongs to the former attachment, whose end this plugin did not see.
    @Test func `a volume attached by hand on Xen is proved unheld by its new name`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.isXen = true
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            try await fixture.cloud.attach(Fixture.id, as: "/dev/sdk", byHand: true)
            try await fixture.sleep(.seconds(2))
            fixture.host.held = [Fixture.id]
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
    }

    // MARK: The mark

    private func markRemovals(_ fixture: Fixture) -> Int {
        fixture.cloud.calls(of: "DeleteTags").count { $0.hasSuffix(AttachmentMark.tag) }
    }

    @Test func `a mark that could not be removed is removed later`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            fixture.cloud.refusals["DeleteTags"] = [Self.throttled]
            try await fixture.sleep(.seconds(60))
        }
        #expect(state(fixture) == .available)
        #expect(tags(fixture)?.isEmpty == true)
    }

    @Test func `a mark that could not be removed with the lease either is removed later`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            let mark = "DeleteTags \(Fixture.id) \(AttachmentMark.tag)"
            fixture.cloud.refusals[mark] = [Self.throttled, Self.throttled]
            try await fixture.sleep(.seconds(120))
        }
        #expect(markRemovals(fixture) == 3)
        #expect(tags(fixture)?.isEmpty == true)
    }

    /// Else the next daemon would not know the attachment, should the records be lost.
    @Test func `a mark that could not be removed becomes that of the next attachment`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            fixture.cloud.refusals["DeleteTags"] = Array(repeating: Self.throttled, count: 100)
            try await fixture.sleep(.seconds(20))
            #expect(state(fixture) == .available)
            _ = try await manager.mount(Fixture.name, id: "b")
            fixture.cloud.refusals["DeleteTags"] = []
            try await manager.unmount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(6))
            #expect(tags(fixture)?.keys.sorted() == [AttachmentMark.tag])
        }
    }

    /// The daemon did not see it end.
    @Test func `the mark of an attachment that others ended is removed, by the next daemon too`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf")
        record.isOurs = true
        fixture.state.records = [record]
        fixture.mark()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(60))
        }
        #expect(tags(fixture)?.isEmpty == true)
    }

    @Test(arguments: [false, true])
    func `an attachment by hand in place of the plugin's ends the mark and the name of that`(
        isUsed: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        fixture.cloud.otherDeviceNames = DeviceNames.all.filter { $0 != "/dev/sdf" }
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await fixture.use(manager)
            let tags = tags(fixture)
            try await fixture.sleep(.seconds(6))
            try await detachByHand(fixture)
            attachByHand(fixture, keeping: tags)
            if isUsed { try await fixture.use(manager, as: "b") }
            try await fixture.sleep(.seconds(120))
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdz")
            try await manager.create("\(other)", options: [:])
            _ = try await manager.mount("\(other)", id: "c")
            #expect(try await manager.get("\(other)").attachedAs == "/dev/sdf")
        }
        #expect(tags(fixture)?.isEmpty == true)
        #expect(state(fixture) == .inUse)
    }

    @Test func `of an attachment by hand no mark is removed`() throws {
        let fixture = Fixture(Fixture.xfs)
        attachByHand(fixture)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            #expect(try await manager.get(Fixture.name).attachedAs == "/dev/sdz")
            fixture.cloud.loseDevice(of: Fixture.id)
            let (error, _) = await fixture.failure {
                _ = try await $0.mount(Fixture.name, id: "b")
            }
            #expect(error?.description.contains("did not attach the volume here") == true)
            try await fixture.sleep(.seconds(60))
        }
        #expect(markRemovals(fixture) == 0)
    }

    @Test func `a mark that may not be removed says nothing of what is attached by hand later`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            let forbidden = EC2Failure.refused(
                code: "UnauthorizedOperation", message: "no", requestID: "r")
            fixture.cloud.refusals["DeleteTags"] = Array(repeating: forbidden, count: 100)
            try await fixture.sleep(.seconds(30))
            #expect(state(fixture) == .available)
            attachByHand(fixture, as: "/dev/sdf", keeping: tags(fixture))
            try await fixture.use(manager, as: "b")
            try await fixture.sleep(.seconds(120))
        }
        #expect(state(fixture) == .inUse)
    }

    @Test func `a mark that may not be removed stays, without further log lines`() throws {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            let forbidden = EC2Failure.refused(
                code: "UnauthorizedOperation", message: "no", requestID: "r")
            fixture.cloud.refusals["DeleteTags"] = Array(repeating: forbidden, count: 100)
            try await fixture.sleep(.seconds(600))
        }
        #expect(fixture.cloud.calls(of: "DeleteTags").count == 2)
        #expect(lines.with("the mark of an attachment could not be removed").count == 1)
    }

    @Test func `an attachment by hand is not the plugin's because of a stale mark`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(6))
            fixture.cloud.refusals["DeleteTags"] = Array(repeating: Self.throttled, count: 100)
            try await fixture.sleep(.seconds(20))
            #expect(state(fixture) == .available)
            attachByHand(fixture, keeping: tags(fixture))
            _ = try await manager.mount(Fixture.name, id: "b")
            fixture.cloud.refusals["DeleteTags"] = []
            try await manager.unmount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
        #expect(state(fixture) == .inUse)
        #expect(tags(fixture)?.isEmpty == true)
    }

    @Test func `an attachment that was stuck leaves no mark`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(40))
            fixture.cloud.refusals["AttachVolume"] = [
                .refused(code: "InternalError", message: "no", requestID: "r")
            ]
            guard case .failure = await call.result else {
                Issue.record("the volume was mounted")
                return
            }
            try await fixture.sleep(.seconds(10))
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        #expect(tags(fixture)?.isEmpty == true)
    }

    // MARK: Lost records

    @Test func `a mark that has stayed makes no attachment with another name the plugin's`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here, as: "/dev/sdk")
        fixture.mark(as: "/dev/sdf")
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(state(fixture) == .inUse)
    }

    @Test func `the lease of a run whose records are lost is dropped with the volume`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.mark()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["DescribeVolumes"] = [Self.throttled]
            let (error, _) = await fixture.failure {
                _ = try await $0.mount(Fixture.name, id: "a")
            }
            #expect(error != nil)
            try await fixture.sleep(.seconds(60))
        }
        #expect(state(fixture) == .available)
        #expect(tags(fixture)?.isEmpty == true)
    }

    @Test func `an attachment of the run before is known again after a look that was too old`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let free = fixture.cloud.volumes[Fixture.id]
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdg")
        record.isOurs = true
        fixture.state.records = [record]
        fixture.cloud.latency.device = .seconds(10)
        try fixture.run { manager in
            try await fixture.cloud.attach(Fixture.id, as: "/dev/sdg", byHand: false)
            try await manager.start()
            fixture.cloud.staleDescriptions[Fixture.id] = free
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(30))
            fixture.cloud.staleDescriptions = [:]
            _ = try await call.value
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        #expect(state(fixture) == .available)
    }

    /// An earlier run had the volume attached, and that attachment has ended. The daemon looks at
    /// the instance's attachments at its start and again 5 s later.
    private func lookedAtOnce() -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        var record = VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdg")
        record.isOurs = true
        fixture.state.records = [record]
        return fixture
    }

    @Test func `an attachment that was made since the first look is not given up for the second`()
        throws
    {
        let fixture = lookedAtOnce()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(4))
            fixture.cloud.unlisted = [Fixture.id]
            fixture.cloud.latency.device = .seconds(10)
            // The first look finds it free; the one after the answer was lost fails.
            fixture.cloud.lostAnswers = ["AttachVolume"]
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            while fixture.cloud.calls(of: "AttachVolume").isEmpty {
                try await fixture.sleep(.milliseconds(1))
            }
            fixture.cloud.refusals["DescribeVolumes"] = [Self.throttled]
            await #expect(throws: OperationError.self) { try await call.value }
            let looks = fixture.cloud.calls(of: "DescribeInstances").count
            try await fixture.sleep(.seconds(3))
            #expect(fixture.cloud.calls(of: "DescribeInstances").count == looks + 1)
            try await fixture.sleep(.seconds(60))
        }
        #expect(state(fixture) == .available)
    }

    @Test func `an attachment that is being made at the second look is this plugin's`() throws {
        let fixture = lookedAtOnce()
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(4))
            // EC2 is asked what it is like now.
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            fixture.cloud.sendDelays["AttachVolume"] = .seconds(2)
            let looks = fixture.cloud.calls(of: "DescribeInstances").count
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(1_900))
            #expect(fixture.cloud.calls(of: "DescribeInstances").count == looks + 1)
            _ = try await call.value
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(state(fixture) == .available)
    }

    // MARK: Lost answers

    /// A Mount whose AttachVolume is applied but not answered, and that then learns nothing more.
    private func mountInVain(_ fixture: Fixture, _ manager: VolumeManager) async throws {
        fixture.cloud.latency.device = .seconds(10)
        try await manager.create(Fixture.name, options: [:])
        fixture.cloud.lostAnswers = ["AttachVolume"]
        fixture.cloud.refusals["DescribeVolumes"] = [Self.throttled]
        let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
        #expect(error != nil)
    }

    @Test func `what somebody attaches by hand after a lost call stays`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(1))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["AttachVolume"] = [
                .unanswered(reason: "lost", mayHaveApplied: true)
            ]
            fixture.cloud.refusals["DescribeVolumes"] = [Self.throttled]
            _ = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
            attachByHand(fixture)
            try await fixture.sleep(.seconds(120))
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(state(fixture) == .inUse)
    }

    @Test func `after a lost answer a Mount looks before it asks for another attachment`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await mountInVain(fixture, manager)
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `an attachment that is asked for again after a lost answer has the same name`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let free = fixture.cloud.volumes[Fixture.id]
        try fixture.run { manager in
            try await mountInVain(fixture, manager)
            fixture.cloud.staleDescriptions[Fixture.id] = free
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(30))
            fixture.cloud.staleDescriptions = [:]
            _ = try await call.value
        }
        let calls = fixture.cloud.calls(of: "AttachVolume")
        #expect(calls.count == 2 && Set(calls).count == 1)
    }

    @Test func `a daemon that dies after asking again leaves the next one the attachment`() throws {
        let fixture = Fixture(Fixture.xfs)
        let free = fixture.cloud.volumes[Fixture.id]
        fixture.cloud.add(Self.other, Fixture.xfs)
        let left = try fixture.run { manager in
            try await mountInVain(fixture, manager)
            fixture.cloud.staleDescriptions[Fixture.id] = free
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            // Another volume's Create saves the state, too.
            try await fixture.sleep(.milliseconds(30))
            try await manager.create("\(Self.other)", options: [:])
            call.cancel()
            return fixture.state.records
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        let next = Fixture(Fixture.xfs)
        next.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        next.cloud.volumes[Fixture.id]?.attachments[0].device = "/dev/sdf"
        next.state.records = left
        try next.run { manager in
            try await manager.start()
            try await next.sleep(.seconds(60))
        }
        #expect(state(next) == .available)
    }

    @Test func `a volume that was forgotten and is known again lingers in full`() throws {
        let fixture = Fixture(Fixture.xfs)
        var record = VolumeRecord(
            id: Fixture.id, createdAt: 1, deviceName: "/dev/sdg", isRemoved: true)
        record.isOurs = true
        fixture.state.records = [record]
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(8))
            try await fixture.use(manager)
            // The linger of the one that was forgotten is over.
            try await fixture.sleep(.seconds(10))
            #expect(state(fixture) == .inUse)
            try await fixture.sleep(.seconds(20))
        }
        #expect(state(fixture) == .available)
    }

    // MARK: Places

    @Test func `a volume attached and detached by hand occupies no slot`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.add(Self.other, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Self.other]?.attachments[0].device = "/dev/sdz"
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: 1, isShared: false)
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "a")
            try await manager.unmount("\(Self.other)", id: "a")
            try await detachByHand(fixture, Self.other)
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(try await manager.get(Fixture.name).phase == "mounted")
        }
    }

    /// An instance that may have one volume, and knows it, with two that are known.
    private func small() -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.add(Self.other, Fixture.xfs)
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: 1, isShared: false)
        return fixture
    }

    private func begin(_ fixture: Fixture, _ manager: VolumeManager) async throws {
        try await manager.learnAttachments()
        try await fixture.sleep(.seconds(1))
        try await manager.create(Fixture.name, options: [:])
        try await manager.create("\(Self.other)", options: [:])
    }

    /// Mounts the volume that there is no place for.
    private func mountWithoutPlace(_ fixture: Fixture) async throws {
        let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "b") }
        #expect(error?.reason == .limitReached)
        #expect(fixture.cloud.calls(of: "AttachVolume \(Fixture.id)").isEmpty)
    }

    private func attachOtherByHand(_ fixture: Fixture) {
        fixture.cloud.add(Self.other, Fixture.xfs, attachedTo: Fixture.here, as: "/dev/sdz")
    }

    @Test func `what somebody attached by hand has its place until EC2 lists it no more`() throws {
        let fixture = small()
        fixture.cloud.latency.free = .seconds(5)
        try fixture.run { manager in
            try await begin(fixture, manager)
            attachOtherByHand(fixture)
            _ = try await manager.mount("\(Self.other)", id: "a")
            try await manager.unmount("\(Self.other)", id: "a")
            try await detachByHand(fixture, Self.other)
            try await mountWithoutPlace(fixture)
        }
    }

    @Test(arguments: [true, false])
    func `what EC2 does not list yet has its place`(isMounting: Bool) throws {
        let fixture = small()
        try fixture.run { manager in
            try await begin(fixture, manager)
            attachOtherByHand(fixture)
            fixture.cloud.unlisted = [Self.other]
            if isMounting { fixture.cloud.loseDevice(of: Self.other) }
            let call = fixture.start { try await $0.mount("\(Self.other)", id: "a") }
            try await fixture.sleep(.seconds(2))
            if !isMounting {
                _ = try await call.value
                try await manager.unmount("\(Self.other)", id: "a")
            }
            try await mountWithoutPlace(fixture)
            if isMounting { fixture.cloud.bringDevice(of: Self.other) }
            _ = try await call.value
        }
    }

    @Test
    func `an attachment whose answer was lost is given back, though EC2 does not list it yet`()
        throws
    {
        let fixture = small()
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await mountInVain(fixture, manager)
            fixture.cloud.unlisted = [Fixture.id]
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "b")
        }
        #expect(state(fixture) == .available)
    }

    @Test func `what another instance has is not taken for free because a place is looked for`()
        throws
    {
        let fixture = small()
        let third = VolumeID(literal: "vol-0bbbbbbbbbbbbbbbb")
        fixture.cloud.add(third, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[third]?.tags = [Lease.tag: "\(Fixture.other)"]
        fixture.state.records = [VolumeRecord(id: third, createdAt: 1, hasLease: true)]
        fixture.cloud.otherVolumes = [VolumeID(literal: "vol-0cccccccccccccccc")]
        try fixture.run { manager in
            try await manager.start()
            try await begin(fixture, manager)
            try await manager.create("also", options: ["volume-id": "\(third)"])
            // Its lease is still to be dropped here.
            try await mountWithoutPlace(fixture)
            fixture.cloud.otherVolumes = []
            let (error, _) = await fixture.failure { _ = try await $0.mount("also", id: "c") }
            #expect(error != nil)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").isEmpty)
    }

    // MARK: Loss

    @Test func `the name of what was attached by hand and is lost is free for another volume`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            attachByHand(fixture)
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await detachByHand(fixture)
            attachOtherByHand(fixture)
            try await manager.create("\(Self.other)", options: [:])
            _ = try await manager.mount("\(Self.other)", id: "b")
        }
    }

    /// A second Mount of a volume whose device disappears while the counts are being saved.
    private func mountDuringLoss(
        _ fixture: Fixture, _ manager: VolumeManager, _ hang: Hang
    ) async throws -> Task<String, any Error> {
        try await manager.create(Fixture.name, options: [:])
        _ = try await manager.mount(Fixture.name, id: "a")
        hang.begin(at: "save the counts")
        let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
        try await fixture.sleep(.milliseconds(10))
        try await detachByHand(fixture)
        return call
    }

    @Test func `a count that was taken back after a loss is not known to the next daemon either`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            let call = try await mountDuringLoss(fixture, manager, hang)
            fixture.host.busyUnmounts = 1
            hang.recover()
            await #expect(throws: OperationError.self) { try await call.value }
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(try await manager.get(Fixture.name).mounts == 1)
        }
    }

    @Test func `a device that disappears while its Mount is counted is no result`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            let call = try await mountDuringLoss(fixture, manager, hang)
            hang.recover()
            _ = try await call.value
            #expect(try await manager.get(Fixture.name).phase == "mounted")
            #expect(fixture.host.everMounted.count == 2)
            #expect(try await manager.get(Fixture.name).mounts == 2)
        }
        #expect(state(fixture) == .inUse)
    }
}
