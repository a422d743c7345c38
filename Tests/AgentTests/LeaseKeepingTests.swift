import Agent
import Base
import Testing
import VolumeCore

/// The lease of a volume that stays mounted.
@Suite struct LeaseKeepingTests {
    private func lease(_ fixture: Fixture) -> String? {
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag]
    }

    private func mount(_ fixture: Fixture, _ manager: VolumeManager) async throws {
        try await manager.create(Fixture.name, options: [:])
        _ = try await manager.mount(Fixture.name, id: "a")
    }

    private let restored = "writing it again"

    @Test func `a lease that was removed from outside is written again, with a warning`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            for _ in 1...2 {
                fixture.cloud.volumes[Fixture.id]?.tags = [:]
                try await fixture.sleep(Limit.leaseCheckInterval + .seconds(1))
                #expect(self.lease(fixture) == "\(Fixture.here)")
            }
        }
        let warnings = fixture.log.lines(with: restored)
        #expect(warnings.count == 2 && warnings.allSatisfy { $0.contains("no other tool") })
    }

    @Test func `a lease that is there is only looked at`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            let before = fixture.cloud.calls.count
            try await fixture.sleep(.seconds(320))
            // After 10 and 310 s.
            let since = fixture.cloud.calls.dropFirst(before)
            #expect(Array(since) == Array(repeating: "DescribeVolumes \(Fixture.id)", count: 2))
        }
        #expect(fixture.log.lines(with: restored).isEmpty)
    }

    @Test func `the lease of whoever has the volume by now is not written over`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            // The device has not gone yet.
            fixture.cloud.move(Fixture.id, to: Fixture.other)
            try await fixture.sleep(.seconds(320))
        }
        #expect(lease(fixture) == "\(Fixture.other)")
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
        let errors = fixture.log.lines(with: "a mounted volume is no longer attached here")
        #expect(errors.first?.contains("attached to \(Fixture.other)") == true)
    }

    @Test func `a volume without a permitted lease is neither marked again nor warned of`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.tagsForbidden = true
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await fixture.sleep(.seconds(320))
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
        #expect(fixture.log.lines(with: restored).isEmpty)
    }

    @Test func `a Multi-Attach volume that is mounted to be read has no lease, and misses none`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(320))
        }
        #expect(fixture.cloud.calls(of: "CreateTags").isEmpty)
        #expect(fixture.log.lines(with: restored).isEmpty)
    }

    @Test func `the lease of a volume whose device is gone is not checked`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(.seconds(5))
            #expect(try await manager.get(Fixture.name).device == "lost")
            let before = fixture.cloud.calls.count
            try await fixture.sleep(.seconds(320))
            #expect(fixture.cloud.calls.count == before)
        }
    }

    /// Its loss is already reported.
    @Test func `a device that disappears during a lease check is reported once`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.free = .seconds(60)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            fixture.cloud.latency.call = .seconds(1)
            fixture.cloud.latency.detach = .milliseconds(300)
            // The check lasts from 10 to 11 s, and the device disappears after 10.4 s.
            try await fixture.sleep(Limit.leaseCheckDelay - .milliseconds(900))
            let end = fixture.now + .seconds(5)
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(until: end)
        }
        #expect(fixture.log.lines(with: "the device of a mounted volume is gone").count == 1)
        #expect(fixture.log.lines(with: "is no longer attached here").isEmpty)
    }

    @Test func `a failed check is reported, and repeated`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            fixture.cloud.refusals["DescribeVolumes"] = [
                .unanswered(reason: "no route", mayHaveApplied: false)
            ]
            try await fixture.sleep(.seconds(400))
        }
        #expect(fixture.log.lines(with: "could not be checked").count == 1)
        #expect(lease(fixture) == "\(Fixture.here)")
    }

    /// For example because there is no timer left.
    @Test func `a wait that fails ends no watch for good`() throws {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await manager.create("\(other)", options: [:])
            fixture.time.failure = OperationError(.system, doing: "wait", found: "ENOBUFS")
            try await fixture.sleep(.seconds(11))
            fixture.time.failure = nil
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            _ = try await manager.mount("\(other)", id: "a")
            try await fixture.sleep(.seconds(11))
            #expect(self.lease(fixture) == "\(Fixture.here)")
        }
        #expect(fixture.log.lines(with: "is not watched for now").count == 1)
    }

    @Test func `a watch of the device that fails is taken up again`() throws {
        let fixture = Fixture(Fixture.xfs)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        fixture.host.departureErrors = [
            OperationError(.limitReached, doing: "watch /dev", found: "EMFILE")
        ]
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await manager.create("\(other)", options: [:])
            _ = try await manager.mount("\(other)", id: "a")
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            try await fixture.sleep(.seconds(30))
            #expect(try await manager.get(Fixture.name).device == "lost")
        }
        #expect(fixture.log.lines(with: "is not watched for now").count == 1)
    }

    @Test(arguments: [true, false])
    func `a volume that was unmounted after such a wait has one watch, or none`(
        isMountedAgain: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: nil)
        let other = VolumeID(literal: "vol-1a2b3c4d")
        fixture.cloud.add(other, Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await manager.create("\(other)", options: [:])
            fixture.time.failure = OperationError(.system, doing: "wait", found: "ENOBUFS")
            try await fixture.sleep(.seconds(11))
            fixture.time.failure = nil
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(5))
            _ = try await manager.mount(isMountedAgain ? Fixture.name : "\(other)", id: "b")
            let look = "DescribeVolumes \(Fixture.id)"
            let before = fixture.cloud.calls(of: look).count
            try await fixture.sleep(.seconds(11))
            let looks = fixture.cloud.calls(of: look).count - before
            #expect(looks == (isMountedAgain ? 1 : 0))
        }
    }

    @Test func `an Unmount ends the watch without a word`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.log.lines(with: "the lease of a mounted volume").isEmpty)
    }

    @Test func `a volume that is unmounted while its lease is looked at is not marked again`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: nil)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            // The look is under way for 20 ms.
            try await fixture.sleep(Limit.leaseCheckDelay + .milliseconds(10))
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 1)
        #expect(lease(fixture) == nil)
    }

    @Test func `a lease that is being written again does not outlast the volume's release`() throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .zero)
        try fixture.run { manager in
            try await self.mount(fixture, manager)
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            fixture.cloud.sendDelays["CreateTags"] = .milliseconds(900)
            try await fixture.sleep(Limit.leaseCheckDelay + .milliseconds(100))
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.calls(of: "CreateTags").count == 2)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        #expect(lease(fixture) == nil)
    }
}
