import Agent
import Base
import Testing
import VolumeCore

/// The lease while others write tags, take the volume, or EC2 answers late.
@Suite struct LeaseRaceTests {
    private func lease(_ fixture: Fixture) -> String? {
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag]
    }

    /// A volume that was mounted here, and lingers without its lease.
    private func lingering(
        _ body: @escaping @Sendable (Fixture, VolumeManager) async throws -> Void
    ) throws -> Fixture {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(10))
            #expect(self.lease(fixture) == nil)
            try await body(fixture, manager)
        }
        return fixture
    }

    // MARK: Writing it

    @Test func `the last look is late enough to see a taker that missed the lease`()
        throws
    {
        let fixture = try lingering { fixture, manager in
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            // The lease was written at 40 ms.
            try await fixture.sleep(.milliseconds(150))
            #expect(self.lease(fixture) != nil)
            try await fixture.cloud.detachByHand(Fixture.id)
            _ = try await mount.value
            #expect(fixture.cloud.volumes[Fixture.id]?.attachments.first?.state == .attached)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        #expect(lease(fixture) == "\(Fixture.here)")
    }

    @Test func `a taker that missed the lease of a new attachment is seen too`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.device = .milliseconds(10)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            // Attached at 20 ms, marked at 40 ms, looked at 300 ms later.
            try await fixture.sleep(.milliseconds(150))
            try await fixture.cloud.detachByHand(Fixture.id)
            _ = try await mount.value
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
        #expect(fixture.host.everMounted.count == 1)
    }

    /// Its lease was rejected, so nobody has looked at the attachment.
    @Test func `a volume that became a Multi-Attach one after a failed Mount is looked at first`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["CreateTags"] = [
            .refused(code: "InvalidParameterValue", message: "odd", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
        }
        #expect(fixture.host.everMounted.isEmpty)
    }

    @Test func `a lease that a late request has overwritten is written again before the answer`()
        throws
    {
        let fixture = try lingering { fixture, manager in
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(150))
            fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Fixture.other)"
            _ = try await mount.value
            #expect(self.lease(fixture) == "\(Fixture.here)")
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 3)
    }

    @Test func `a lease that EC2 never shows is written a few times, and the volume mounted`()
        throws
    {
        let fixture = try lingering { fixture, manager in
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1 + Limit.leaseTriesMax)
        #expect(fixture.log.lines(with: "does not show the written lease").count == 1)
    }

    @Test func `a lease that could not go out soon enough is tried again after a new look`() throws
    {
        let fixture = try lingering { fixture, manager in
            fixture.cloud.sendDelays["CreateTags"] = .seconds(2)
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(9))
            fixture.cloud.sendDelays = [:]
            _ = try await mount.value
        }
        #expect(lease(fixture) == "\(Fixture.here)")
    }

    @Test func `a lease that only an old look shows is written, however long that takes`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            fixture.cloud.staleDescriptions[Fixture.id] = fixture.cloud.volumes[Fixture.id]
            try await fixture.sleep(.seconds(3))
            #expect(self.lease(fixture) == nil)
            fixture.cloud.sendDelays["CreateTags"] = .milliseconds(1_500)
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(1))
            fixture.cloud.sendDelays = [:]
            _ = try await mount.value
            #expect(self.lease(fixture) == "\(Fixture.here)")
        }
    }

    /// The device did appear: another name would not help.
    @Test func `an attachment with a late lease is kept until the lease is written`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.sendDelays["CreateTags"] = .seconds(2)
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(60))
            fixture.cloud.sendDelays = [:]
            _ = try await mount.value
        }
        #expect(lease(fixture) == "\(Fixture.here)")
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
        #expect(fixture.log.lines(with: "the device did not appear").isEmpty)
    }

    @Test func `a volume whose lease can never be sent soon enough is not mounted`() throws {
        let fixture = try lingering { fixture, manager in
            fixture.cloud.sendDelays["CreateTags"] = .seconds(2)
            let (error, time) = await fixture.failure {
                _ = try await $0.mount(Fixture.name, id: "b")
            }
            #expect(error?.description.contains("CreateTags could not be sent soon enough") == true)
            #expect(error?.description.contains("\(Fixture.here)") == true)
            #expect(time <= Limit.mountTimeMax + .seconds(2))
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `without permission no time is spent on a lease that is not there`() throws {
        _ = try lingering { fixture, manager in
            fixture.cloud.tagsForbidden = true
            let start = fixture.now
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.now - start < Limit.leaseSettleTime)
        }
    }

    @Test func `a lease that is not permitted is warned of once, a full volume's too`() throws {
        for code in ["UnauthorizedOperation", "TagLimitExceeded"] {
            let fixture = try lingering { fixture, manager in
                let refusal = EC2Failure.refused(code: code, message: "no", requestID: "r")
                fixture.cloud.refusals["CreateTags"] = [refusal, refusal]
                for id in ["b", "c"] {
                    _ = try await manager.mount(Fixture.name, id: id)
                    try await manager.unmount(Fixture.name, id: id)
                    try await fixture.sleep(.seconds(10))
                }
            }
            let warnings = fixture.log.lines(with: "the lease cannot be written")
            #expect(warnings.count == 1 && warnings[0].contains(code))
        }
    }

    @Test func `a lease that EC2 refuses for another reason lets the Mount fail, with the reason`()
        throws
    {
        let fixture = try lingering { fixture, manager in
            fixture.cloud.refusals["CreateTags"] = [
                .refused(code: "InvalidParameterValue", message: "odd", requestID: "r")
            ]
            let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "b") }
            #expect(error?.description.contains("InvalidParameterValue") == true)
            #expect(error?.description.contains("mark \(Fixture.id) as mounted") == true)
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 2)
    }

    @Test func `a refused lease of a new attachment lets the Mount fail too, without a second try`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["CreateTags"] = [
            .refused(code: "InvalidParameterValue", message: "odd", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
            #expect(error?.description.contains("InvalidParameterValue") == true)
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
        #expect(fixture.host.everMounted.isEmpty)
    }

    @Test func `the lease of a host that has taken the volume is not overwritten`() throws {
        let fixture = try lingering { fixture, manager in
            // The device is here for a moment longer.
            fixture.cloud.move(Fixture.id, to: Fixture.other)
            let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "b") }
            #expect(error?.description.contains("\(Fixture.other)") == true)
            #expect(self.lease(fixture) == "\(Fixture.other)")
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `a Mount that fails leaves nothing under way when it is answered`() throws {
        let fixture = try lingering { fixture, manager in
            fixture.cloud.content[Fixture.id] = .unknownData
            let (error, _) = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "b") }
            #expect(error?.reason == .content)
            let before = fixture.cloud.calls.count
            try await fixture.sleep(.seconds(1))
            #expect(fixture.cloud.calls.count == before)
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test(arguments: [Duration.seconds(1), .seconds(10)])
    func `a volume that becomes a Multi-Attach one while it is marked gets no second writer`(
        pause: Duration
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create("w", options: ["volume-id": Fixture.name])
            try await manager.create(
                "r", options: ["volume-id": Fixture.name, "read-only": "true"])
            let mount = fixture.start { try await $0.mount("r", id: "a") }
            // Attached at 20 ms, marked at 40 ms, looked at 300 ms later.
            try await fixture.sleep(.milliseconds(100))
            fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
            _ = try await mount.value
            try await manager.unmount("r", id: "a")
            try await fixture.sleep(pause)
            await #expect(throws: OperationError.self) { try await manager.mount("w", id: "b") }
        }
        #expect(fixture.host.everMounted == [Fixture.id])
        #expect(fixture.host.accesses[Fixture.id] == .withoutReplay)
    }

    // MARK: Dropping it

    @Test func `an abandoned Mount that meets the dropping of the lease still has one`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            hang.begin()
            try await fixture.sleep(.milliseconds(2_100))
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(100))
            cut.cancel()
            _ = await cut.result
            hang.recover()
            try await fixture.sleep(.seconds(1))
            _ = try await manager.mount(Fixture.name, id: "c")
            #expect(self.lease(fixture) == "\(Fixture.here)")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        }
    }

    @Test func `an attachment that meets the late end of the former lease keeps its own`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            fixture.cloud.sendDelays["DeleteTags"] = .milliseconds(2_900)
            try await fixture.sleep(.milliseconds(2_010))
            // Somebody detaches it by hand.
            fixture.cloud.latency.detach = .milliseconds(100)
            try await fixture.cloud.detachByHand(Fixture.id)
            try await fixture.sleep(.milliseconds(200))
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(5))
            #expect(self.lease(fixture) == "\(Fixture.here)")
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }

    @Test func `a Mount that arrives before the lease is dropped keeps it`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            hang.begin()
            try await fixture.sleep(.milliseconds(2_100))
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.milliseconds(100))
            hang.recover()
            _ = try await mount.value
        }
        #expect(fixture.cloud.calls(of: "DeleteTags").isEmpty)
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
    }

    @Test(arguments: ["UnauthorizedOperation", "RequestLimitExceeded"])
    func `a lease that may not be removed does not keep the volume attached`(
        code: String
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        let refusal = EC2Failure.refused(code: code, message: "no", requestID: "r")
        let isForbidden = code == "UnauthorizedOperation"
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.cloud.refusals["DeleteTags"] = Array(
                repeating: refusal, count: isForbidden ? 100 : 1)
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect((lease(fixture) != nil) == isForbidden)
        #expect(
            fixture.log.lines(with: "the lease could not be removed").count == (isForbidden ? 1 : 0)
        )
    }

    /// Meanwhile another host may have taken the volume.
    @Test func `an answer to AttachVolume that comes late is not enough to write the lease`() throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.latency.call = Limit.leaseFactsAgeMax + .milliseconds(100)
            let before = fixture.cloud.calls.count
            let mount = fixture.start { _ = try await $0.mount(Fixture.name, id: "a") }
            while fixture.cloud.calls.count == before {
                try await fixture.sleep(.milliseconds(10))
            }
            fixture.cloud.latency.call = .milliseconds(20)
            try await mount.value
            let actions = fixture.cloud.calls.dropFirst(before).map { $0.prefix { $0 != " " } }
            #expect(
                actions == ["AttachVolume", "DescribeVolumes", "CreateTags", "DescribeVolumes"])
        }
    }
}
