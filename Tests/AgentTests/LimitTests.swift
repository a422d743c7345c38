import Agent
import Base
import Testing
import VolumeCore

/// An instance type with a low attachment limit.
@Suite struct LimitTests {
    private static let names = (0..<4).map { "vol-0000000000000000\($0)" }

    /// A host that knows its limit: this many volumes in addition to its root volume.
    private func fixture(
        takes count: Int, detachAfter: Duration? = .seconds(600), isShared: Bool = false
    ) -> Fixture {
        let fixture = Fixture(detachAfter: detachAfter)
        for name in Self.names {
            if let id = VolumeID(name) { fixture.cloud.add(id, Fixture.xfs) }
        }
        fixture.cloud.otherVolumes = [VolumeID(literal: "vol-0000000000000000f")]
        fixture.cloud.attachmentLimit = AttachmentLimit(
            instanceType: "m5.large", volumesMax: count + 1, isShared: isShared)
        return fixture
    }

    private func begin(_ fixture: Fixture, _ manager: VolumeManager) async throws {
        for name in Self.names { try await manager.create(name, options: [:]) }
        try await manager.learnAttachments()
        try await fixture.sleep(.seconds(1))
    }

    /// Mounts and unmounts this many volumes, which then linger, the first for longest.
    private func use(_ count: Int, _ fixture: Fixture, _ manager: VolumeManager) async throws {
        for name in Self.names.prefix(count) {
            _ = try await manager.mount(name, id: "a")
            try await manager.unmount(name, id: "a")
            try await fixture.sleep(.seconds(1))
        }
    }

    private func attached(_ fixture: Fixture) -> [String] {
        fixture.cloud.volumes.values.filter { !$0.attachments.isEmpty }.map { "\($0.id)" }.sorted()
    }

    @Test func `below the limit a mount asks nothing more`() throws {
        let fixture = fixture(takes: 2)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            let before = fixture.cloud.calls.count
            _ = try await manager.mount(Self.names[0], id: "a")
            #expect(fixture.cloud.calls.count - before == 3)
        }
        #expect(fixture.cloud.calls(of: "DescribeInstanceTypes").count == 1)
    }

    @Test func `at the limit a mount is refused at once with the numbers, and nothing attached`()
        throws
    {
        let fixture = fixture(takes: 2)
        let error = try fixture.run { manager in
            try await self.begin(fixture, manager)
            for name in Self.names.prefix(2) { _ = try await manager.mount(name, id: "a") }
            let begin = fixture.now
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[2], id: "a")
            }
            #expect(fixture.now - begin < .seconds(1))
            return error
        }
        #expect(error?.reason == .limitReached)
        #expect(error?.description.contains("has 3 volumes, 2 of them the plugin's") == true)
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a remembered volume that was attached by hand occupies a slot`() throws {
        let fixture = fixture(takes: 2)
        let byHand = VolumeID(literal: "vol-00000000000000003")
        fixture.cloud.add(byHand, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[byHand]?.attachments[0].device = "/dev/sdq"
        fixture.state.records = [VolumeRecord(id: byHand, createdAt: 1)]
        let error = try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            for name in Self.names.prefix(2) { try await manager.create(name, options: [:]) }
            _ = try await manager.mount(Self.names[0], id: "a")
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[1], id: "a")
            }
        }
        #expect(error?.description.contains("has 3 volumes, 1 of them the plugin's") == true)
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `a Mount whose time is over releases no further volume`() throws {
        let fixture = fixture(takes: 4)
        let fifth = VolumeID(literal: "vol-00000000000000004")
        fixture.cloud.add(fifth, Fixture.xfs)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await manager.create("\(fifth)", options: [:])
            try await self.use(4, fixture, manager)
            try await fixture.sleep(.seconds(10))
            for id in Self.names.compactMap({ VolumeID($0) }) { fixture.host.hang(of: id).begin() }
            await #expect(throws: OperationError.self) {
                try await manager.mount("\(fifth)", id: "a")
            }
        }
        // Each may take 50 s, and a Mount 110.
        #expect(
            fixture.log.lines(with: "releasing the volume that has been unused for longest").count
                == 3)
    }

    @Test func `an unused volume whose device hangs is skipped for one that can be released`()
        throws
    {
        let fixture = fixture(takes: 2)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(1, fixture, manager)
            let sick = try #require(VolumeID(Self.names[0]))
            // The dropping of its lease hangs.
            fixture.host.hang(of: sick).begin()
            _ = try await manager.mount(Self.names[1], id: "a")
            try await manager.unmount(Self.names[1], id: "a")
            try await fixture.sleep(.seconds(60))
            let begin = fixture.now
            _ = try await manager.mount(Self.names[2], id: "a")
            #expect(fixture.now - begin < .seconds(10))
            #expect(self.attached(fixture) == [Self.names[0], Self.names[2]])
            fixture.host.hang(of: sick).recover()
        }
    }

    /// While its lease is removed, and, later, while the instance is looked up before DetachVolume.
    @Test(arguments: [Duration.zero, .seconds(3)])
    func `a volume that is used again while it makes room stays`(pause: Duration) throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(1, fixture, manager)
            try await fixture.sleep(pause)
            fixture.cloud.sendDelays["DeleteTags"] = .seconds(1)
            let other = fixture.start { _ = try await $0.mount(Self.names[1], id: "b") }
            try await fixture.sleep(.milliseconds(10))
            fixture.cloud.hostTime = .seconds(2)
            try await fixture.sleep(.milliseconds(490))
            fixture.cloud.hostTime = .zero
            _ = try await manager.mount(Self.names[0], id: "a")
            await #expect(throws: OperationError.self) { try await other.value }
            #expect(fixture.host.mounts["/mnt/\(Self.names[0])"] != nil)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.log.lines(with: "releasing the volume").count == 1)
    }

    /// Both wait for a check of the lease.
    @Test func `a release that makes room joins the removal of the lease that is due`() throws {
        let fixture = fixture(takes: 1, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            fixture.cloud.sendDelays["DescribeVolumes"] = .seconds(6)
            try await fixture.sleep(Limit.leaseCheckDelay + .seconds(1))
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(3))
            _ = try await manager.mount(Self.names[1], id: "a")
        }
        #expect(fixture.cloud.calls(of: "DeleteTags \(Self.names[0]) \(Lease.tag)").count == 1)
    }

    @Test func `simultaneous mounts take no more slots than there are`() throws {
        let fixture = fixture(takes: 2)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            let calls = Self.names.map { name in
                fixture.start { try await $0.mount(name, id: "a") }
            }
            var refused = 0
            for call in calls {
                do { _ = try await call.value } catch { refused += 1 }
            }
            #expect(refused == 2)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }

    @Test func `what others have detached since is seen before a mount is refused`() throws {
        let fixture = fixture(takes: 0)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            fixture.cloud.otherVolumes = []
            _ = try await manager.mount(Self.names[0], id: "a")
        }
        #expect(fixture.cloud.calls(of: "DescribeInstances").count == 2)
    }

    @Test func `a network interface occupies a slot if the limit is shared`() throws {
        let fixture = fixture(takes: 1, isShared: true)
        fixture.cloud.networkInterfaces = 2
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[0], id: "a")
            }
            fixture.cloud.networkInterfaces = 1
            _ = try await manager.mount(Self.names[0], id: "a")
        }
    }

    @Test(arguments: [Duration.seconds(600), nil])
    func `the volume that is unused for longest makes room`(_ linger: Duration?) throws {
        let fixture = fixture(takes: 3, detachAfter: linger)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            for name in Self.names.prefix(3) { _ = try await manager.mount(name, id: "a") }
            try await manager.unmount(Self.names[1], id: "a")
            try await fixture.sleep(.seconds(1))
            try await manager.unmount(Self.names[0], id: "a")
            _ = try await manager.mount(Self.names[3], id: "a")
        }
        #expect(attached(fixture) == [Self.names[0], Self.names[2], Self.names[3]])
        #expect(fixture.cloud.volumes[VolumeID(literal: "vol-00000000000000001")]?.tags == [:])
    }

    @Test func `a volume that Docker has forgotten makes room, and no other does`() throws {
        let fixture = fixture(takes: 2)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(2, fixture, manager)
            try await manager.remove(Self.names[0])
            _ = try await manager.mount(Self.names[2], id: "a")
        }
        #expect(attached(fixture) == [Self.names[1], Self.names[2]])
    }

    /// A second DeleteTags could arrive after the lease of a later Mount.
    @Test func `a volume whose lease is being dropped makes room without a second drop`()
        throws
    {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            fixture.cloud.sendDelays["DeleteTags"] = .seconds(1)
            try await fixture.sleep(.milliseconds(2_500))
            _ = try await manager.mount(Self.names[1], id: "b")
        }
        #expect(attached(fixture) == [Self.names[1]])
        let drops = fixture.cloud.calls(of: "DeleteTags").filter { $0.hasSuffix(Lease.tag) }
        #expect(drops.count == 1)
    }

    @Test func `two simultaneous mounts each get a released slot`() throws {
        let fixture = fixture(takes: 2)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(2, fixture, manager)
            let calls = Self.names.suffix(2).map { name in
                fixture.start { try await $0.mount(name, id: "a") }
            }
            for call in calls { _ = try await call.value }
        }
        #expect(attached(fixture) == Array(Self.names.suffix(2)))
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 2)
    }

    @Test func `a slot that is being released does not count as free`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            fixture.cloud.latency.free = .seconds(5)
            let first = fixture.start { try await $0.mount(Self.names[1], id: "a") }
            try await fixture.sleep(.seconds(4))
            await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[2], id: "a")
            }
            _ = try await first.value
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }

    @Test func `an unused volume that is held keeps its slot, and the error names it`()
        throws
    {
        let fixture = fixture(takes: 1)
        fixture.host.held = [VolumeID(literal: "vol-00000000000000000")]
        let error = try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[1], id: "a")
            }
        }
        #expect(error?.description.contains("\(Self.names[0]), which nobody uses") == true)
        #expect(attached(fixture) == [Self.names[0]])
    }

    @Test func `without the permission nothing is checked, and it is asked for no more`() throws {
        let fixture = fixture(takes: 0)
        fixture.cloud.refusals["DescribeInstanceTypes"] = [
            .refused(code: "UnauthorizedOperation", message: "m", requestID: "r")
        ]
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await fixture.sleep(.seconds(600))
            await self.expectRefusalOfEC2(manager)
        }
        #expect(fixture.cloud.calls(of: "DescribeInstanceTypes").count == 1)
    }

    @Test func `a limit that EC2 did not tell at first is asked for again, but not for ever`()
        throws
    {
        let failure = EC2Failure.unanswered(reason: "no route", mayHaveApplied: false)
        let soon = fixture(takes: 0)
        soon.cloud.refusals["DescribeInstanceTypes"] = [failure, failure]
        try soon.run { manager in
            try await self.begin(soon, manager)
            try await soon.sleep(.seconds(10))
            await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[0], id: "a")
            }
        }
        let never = fixture(takes: 0)
        never.cloud.refusals["DescribeInstanceTypes"] = Array(repeating: failure, count: 100)
        try never.run { manager in
            try await self.begin(never, manager)
            try await never.sleep(.seconds(86_400))
        }
        #expect(
            never.cloud.calls(of: "DescribeInstanceTypes").count == Limit.attachmentLimitTriesMax)
    }

    @Test func `if EC2 cannot be asked again, EC2 itself decides`() throws {
        let fixture = fixture(takes: 0)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            fixture.cloud.refusals["DescribeInstances"] = [
                .unanswered(reason: "no route", mayHaveApplied: false)
            ]
            await self.expectRefusalOfEC2(manager)
        }
    }

    private func expectRefusalOfEC2(
        _ manager: VolumeManager, of name: String = LimitTests.names[0]
    ) async {
        let error = await #expect(throws: OperationError.self) {
            try await manager.mount(name, id: "a")
        }
        #expect(error?.description.contains("AttachmentLimitExceeded") == true)
    }

    @Test func `a volume that was lost under a container has left its slot`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            guard let lost = VolumeID(Self.names[0]) else { return }
            _ = try await manager.mount(Self.names[0], id: "a")
            try await fixture.cloud.detachByHand(lost, force: true)
            try await fixture.sleep(.seconds(5))
            _ = try await manager.mount(Self.names[1], id: "b")
        }
        #expect(attached(fixture) == [Self.names[1]])
    }

    @Test func `releasing a volume does not delay a Mount beyond its deadline`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            fixture.cloud.latency.detach = .seconds(10_000)
            let begin = fixture.now
            await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[1], id: "b")
            }
            #expect(fixture.now - begin <= Limit.mountTimeMax)
        }
    }

    @Test func `a Mount whose time is short joins no detachment that may outlast it`() throws {
        let fixture = fixture(takes: 1, detachAfter: .seconds(70))
        let taken = VolumeID(literal: "vol-00000000000000001")
        fixture.cloud.add(taken, Fixture.xfs, attachedTo: Fixture.other)
        let error = try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            // The other host releases its volume while this host's detachment begins and hangs.
            fixture.cloud.latency.detach = .seconds(75)
            let begin = fixture.now
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount("\(taken)", id: "b")
            }
            #expect(fixture.now - begin < .seconds(100))
            return error
        }
        #expect(error?.reason == .limitReached)
    }

    @Test func `a Mount with little time gets the slot of an untouched volume`()
        throws
    {
        let fixture = fixture(takes: 2, detachAfter: .seconds(70))
        let taken = VolumeID(literal: "vol-00000000000000001")
        fixture.cloud.add(taken, Fixture.xfs, attachedTo: Fixture.other)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            for name in [Self.names[0], Self.names[2]] {
                _ = try await manager.mount(name, id: "a")
            }
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            fixture.cloud.latency.detach = .seconds(75)
            let mount = fixture.start { try await $0.mount("\(taken)", id: "b") }
            // The first one's detachment begins after 70 s, and hangs; the other one lingers.
            try await fixture.sleep(.seconds(55))
            try await manager.unmount(Self.names[2], id: "a")
            try await fixture.sleep(.seconds(15))
            fixture.cloud.latency.detach = .seconds(2)
            _ = try await mount.value
        }
        #expect(attached(fixture) == [Self.names[0], "\(taken)"])
    }

    @Test func `a volume that is detached while a Mount awaits it is not given to another`() throws
    {
        let fixture = fixture(takes: 1, detachAfter: .seconds(5))
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(1, fixture, manager)
            try await fixture.sleep(.milliseconds(4_500))
            #expect(try await manager.get(Self.names[0]).phase == "detaching")
            let again = fixture.start { try await $0.mount(Self.names[0], id: "b") }
            try await fixture.sleep(.milliseconds(10))
            let (error, time) = await fixture.failure {
                _ = try await $0.mount(Self.names[1], id: "c")
            }
            #expect(error?.reason == .limitReached && time < .seconds(1))
            _ = try await again.value
        }
        #expect(attached(fixture) == [Self.names[0]])
    }

    @Test func `a volume that was attached by hand does not make room`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            let byHand = try #require(VolumeID(Self.names[0]))
            fixture.cloud.add(byHand, Fixture.xfs, attachedTo: Fixture.here)
            try await self.use(1, fixture, manager)
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[1], id: "b")
            }
            #expect(error?.reason == .limitReached)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.log.lines(with: "has been unused for longest").isEmpty)
    }

    /// An earlier run attached it, and its record is lost.
    @Test func `a volume that was created and not looked for yet is not waited for to go`() throws {
        let fixture = fixture(takes: 1)
        let error = try fixture.run { manager in
            try await manager.create(Self.names[1], options: [:])
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(1))
            let earlier = try #require(VolumeID(Self.names[0]))
            fixture.cloud.add(earlier, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.volumes[earlier]?.tags[AttachmentMark.tag] = AttachmentMark.value(
                of: earlier, on: Fixture.here, as: "/dev/sdf")
            try await manager.create(Self.names[0], options: [:])
            let (error, time) = await fixture.failure {
                _ = try await $0.mount(Self.names[1], id: "a")
            }
            #expect(time < .seconds(1))
            return error
        }
        #expect(error?.description.contains("AttachmentLimitExceeded") == true)
    }

    /// EC2 could not be asked for it yet.
    @Test func `a volume that was attached by hand has its slot once its device was found`()
        throws
    {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            let byHand = try #require(VolumeID(Self.names[0]))
            fixture.cloud.add(byHand, Fixture.xfs, attachedTo: Fixture.here)
            fixture.cloud.refusals["DescribeVolumes"] = [
                .unanswered(reason: "no route", mayHaveApplied: false)
            ]
            _ = try? await manager.mount(Self.names[0], id: "a")
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount(Self.names[1], id: "b")
            }
            #expect(error?.reason == .limitReached)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").isEmpty)
    }

    @Test func `if EC2 enforces an unknown limit, an unused volume makes room`() throws {
        let fixture = fixture(takes: 1)
        fixture.cloud.refusals["DescribeInstanceTypes"] = [
            .refused(code: "UnauthorizedOperation", message: "m", requestID: "r")
        ]
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            fixture.cloud.refusals["AttachVolume"] = [
                .refused(code: "AttachmentLimitExceeded", message: "full", requestID: "r")
            ]
            _ = try await manager.mount(Self.names[1], id: "b")
        }
        #expect(attached(fixture) == [Self.names[1]])
    }

    @Test func `the slot of a volume that was just detached is waited for`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(1))
        let refusal = EC2Failure.refused(
            code: "AttachmentLimitExceeded", message: "full", requestID: "r")
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.refusals["AttachVolume"] = [refusal]
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(6))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
            fixture.cloud.refusals["AttachVolume"] = [refusal]
            _ = try await manager.mount(Fixture.name, id: "b")
        }
    }

    // MARK: Places that come

    @Test func `a volume that is being detached makes room for a Mount with enough time`()
        throws
    {
        let fixture = fixture(takes: 1, detachAfter: .seconds(15))
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.milliseconds(15_500))
            #expect(try await manager.get(Self.names[0]).phase == "detaching")
            _ = try await manager.mount(Self.names[1], id: "b")
        }
        #expect(attached(fixture) == [Self.names[1]])
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
    }

    @Test func `a Mount with little time releases an untouched volume`()
        throws
    {
        let fixture = fixture(takes: 1)
        let taken = VolumeID(literal: "vol-00000000000000001")
        fixture.cloud.add(taken, Fixture.xfs, attachedTo: Fixture.other)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            // The other host takes 75 s to release its volume.
            fixture.cloud.latency.detach = .seconds(75)
            let call = fixture.start { try await $0.mount("\(taken)", id: "b") }
            try await fixture.sleep(.seconds(60))
            fixture.cloud.latency.detach = .seconds(2)
            _ = try await call.value
        }
        #expect(attached(fixture) == ["\(taken)"])
    }

    @Test func `at its deadline a Mount releases nothing any more`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            // The response about this instance arrives half a second after the deadline.
            fixture.cloud.latency.call = .milliseconds(109_500)
            let (error, _) = await fixture.failure {
                _ = try await $0.mount(Self.names[1], id: "b")
            }
            #expect(error?.reason == .limitReached)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a slot that its volume takes back is no longer waited for`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            let other = fixture.start { _ in
                await fixture.failure { _ = try await $0.mount(Self.names[1], id: "b") }
            }
            try await fixture.sleep(.seconds(1))
            fixture.cloud.sendDelays["DescribeVolumes"] = .milliseconds(50)
            _ = try await manager.mount(Self.names[0], id: "c")
            let (error, time) = try await other.value
            #expect(error?.reason == .limitReached && time < .seconds(10))
        }
        #expect(attached(fixture) == [Self.names[0]])
    }

    @Test(arguments: [false, true])
    func `a slot is free once its volume is detached, whoever gets that next`(isTaken: Bool) throws
    {
        let fixture = fixture(takes: 1)
        let first = VolumeID(literal: "vol-00000000000000000")
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            try await manager.unmount(Self.names[0], id: "a")
            try await fixture.sleep(.seconds(5))
            fixture.cloud.sendDelays["DescribeVolumes"] = .seconds(1)
            let call = fixture.start { _ in
                await fixture.failure { _ = try await $0.mount(Self.names[1], id: "b") }
            }
            try await fixture.sleep(.milliseconds(2_500))
            if isTaken {
                fixture.cloud.add(first, Fixture.xfs, attachedTo: Fixture.other)
            } else {
                // As EC2 may still list an attachment that has ended.
                var told = fixture.cloud.volumes[first]
                told?.attachments = [
                    VolumeAttachment(
                        volume: first, instance: Fixture.here, device: "/dev/sdf", state: .detached)
                ]
                fixture.cloud.staleDescriptions[first] = told
            }
            let (error, time) = try await call.value
            #expect(error == nil && time < .seconds(10))
        }
    }

    @Test func `EC2 is polled for a free slot`() throws {
        let fixture = fixture(takes: 1)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await self.use(1, fixture, manager)
            fixture.cloud.latency.free = .seconds(20)
            let before = fixture.cloud.calls(of: "DescribeVolumes").count
            _ = try await manager.mount(Self.names[1], id: "a")
            #expect(fixture.cloud.calls(of: "DescribeVolumes").count - before < 30)
        }
    }

    // MARK: What is known of the limit

    @Test func `the limit of a type is asked for once, and not without a type`() throws {
        let known = fixture(takes: 2)
        try known.run { manager in
            try await self.begin(known, manager)
            try await manager.learnAttachments()
            try await known.sleep(.seconds(1))
        }
        #expect(known.cloud.calls(of: "DescribeInstanceTypes").count == 1)
        let unknown = Fixture()
        try unknown.run { manager in
            try await manager.learnAttachments()
            try await unknown.sleep(.seconds(1))
        }
        #expect(unknown.cloud.calls(of: "DescribeInstanceTypes").isEmpty)
    }

    @Test func `a limit that EC2 did not tell is asked for again after a pause that grows`() throws
    {
        let fixture = fixture(takes: 0)
        fixture.cloud.refusals["DescribeInstanceTypes"] = Array(
            repeating: .unanswered(reason: "no route", mayHaveApplied: false), count: 100)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            try await fixture.sleep(.seconds(10))
        }
        #expect(fixture.cloud.calls(of: "DescribeInstanceTypes").count == 4)
    }

    @Test func `attachments of others are known after EC2's error`() throws {
        let fixture = fixture(takes: 3)
        try fixture.run { manager in
            try await self.begin(fixture, manager)
            _ = try await manager.mount(Self.names[0], id: "a")
            fixture.cloud.otherVolumes = (1...3).map {
                VolumeID("vol-0000000000000000\($0 + 4)") ?? Fixture.id
            }
            await self.expectRefusalOfEC2(manager, of: Self.names[1])
            let (error, _) = await fixture.failure {
                _ = try await $0.mount(Self.names[2], id: "b")
            }
            #expect(error?.description.contains("has 4 volumes, 1 of them the plugin's") == true)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }
}
