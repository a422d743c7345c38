import Agent
import Base
import Testing
import VolumeCore

/// A volume that another instance has, which runs unless a test says otherwise.
@Suite struct TakeoverTests {
    private static let third = InstanceID(literal: "i-0aaaaaaaaaaaaaaaa")
    private static let forbidden = EC2Failure.refused(
        code: "UnauthorizedOperation", message: "no", requestID: "r")

    private func taken(by lease: InstanceID? = nil) -> Fixture {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = lease.map { "\($0)" }
        return fixture
    }

    private func mount(_ fixture: Fixture) async -> (error: OperationError?, time: Duration) {
        await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
    }

    @Test func `a lease that EC2 shows late keeps the volume`() throws {
        let fixture = taken(by: Fixture.other)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            var old = fixture.cloud.volumes[Fixture.id]
            old?.tags = [:]
            fixture.cloud.staleDescriptions[Fixture.id] = old
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.milliseconds(1_900))
            fixture.cloud.staleDescriptions = [:]
            let error = try await call.value.error
            #expect(error?.description.contains("mounted on \(Fixture.other)") == true)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a volume whose lease was seen to go is taken at once`() throws {
        let fixture = taken(by: Fixture.other)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(500))
            fixture.cloud.volumes[Fixture.id]?.tags = [:]
            try await fixture.sleep(.milliseconds(700))
            #expect(fixture.cloud.calls(of: "DetachVolume").count == 1)
            _ = try await call.value
        }
    }

    @Test func `looks at one owner say nothing about the next`() throws {
        let fixture = taken()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.milliseconds(1_900))
            // Its lease is written 1 s after its attachment.
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Self.third)
            try await fixture.sleep(.seconds(1))
            fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] = "\(Self.third)"
            let error = try await call.value.error
            #expect(error?.description.contains("mounted on \(Self.third)") == true)
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `nothing is forced before a detachment has had enough time`() throws {
        let fixture = taken()
        fixture.cloud.instanceStates[Fixture.other] = .stopped
        fixture.cloud.latency.detach = .seconds(8)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(
            fixture.cloud.calls(of: "DetachVolume") == [
                "DetachVolume \(Fixture.id) \(Fixture.other)"
            ])
    }

    @Test func `nothing is forced after a wait in which the owner may have started`() throws {
        let fixture = taken()
        fixture.cloud.instanceStates[Fixture.other] = .stopped
        fixture.cloud.stuckDetachments = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let call = fixture.start { _ in await self.mount(fixture) }
            try await fixture.sleep(.seconds(5))
            fixture.cloud.sendDelays["DetachVolume"] = Limit.ownerLookAgeMax + .seconds(1)
            // Force is used about 10 s after the first look that shows the detachment.
            try await fixture.sleep(.seconds(9))
            fixture.cloud.instanceStates[Fixture.other] = .running
            let error = try await call.value.error
            #expect(error?.description.contains("being detached from \(Fixture.other)") == true)
        }
        #expect(
            fixture.cloud.calls(of: "DetachVolume") == [
                "DetachVolume \(Fixture.id) \(Fixture.other)"
            ])
    }

    @Test func `a refused DetachVolume is an error at once, with the permission that is missing`()
        throws
    {
        let fixture = taken()
        fixture.cloud.refusals["DetachVolume"] = [Self.forbidden]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, time) = await self.mount(fixture)
            #expect(
                error?.description.contains("detach \(Fixture.id) from \(Fixture.other)") == true)
            #expect(error?.description.contains("ec2:DetachVolume") == true)
            #expect(time < .seconds(5))
        }
    }

    @Test func `a throttled DetachVolume is followed by another look`() throws {
        let fixture = taken()
        fixture.cloud.refusals["DetachVolume"] = [
            .refused(code: "RequestLimitExceeded", message: "slow down", requestID: "r")
        ]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.cloud.calls(of: "DetachVolume").count == 2)
    }

    /// Without it the volume could never be mounted here again, because only a mount would find it.
    @Test func `a permission for tags that was granted since the last Mount is found`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["CreateTags"] = [Self.forbidden]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(30))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `EC2 is asked ever less often while a volume is waited for`() throws {
        let fixture = Fixture(takeover: .always)
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.stuckDetachments = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            #expect(await self.mount(fixture).time > .seconds(100))
        }
        #expect(fixture.cloud.calls(of: "DescribeVolumes").count < 60)
    }
}
