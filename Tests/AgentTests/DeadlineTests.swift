import Agent
import Base
import Testing
import VolumeCore

/// A device, or the disk with the state, that does not respond.
@Suite struct DeadlineTests {
    private static let well = VolumeID(literal: "vol-00000000000000001")

    private func fixture(_ content: DeviceContent = Fixture.xfs) -> Fixture {
        let fixture = Fixture(content)
        fixture.cloud.add(Self.well, Fixture.xfs)
        return fixture
    }

    private func mountSick(_ fixture: Fixture) async -> (error: OperationError?, time: Duration) {
        await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
    }

    @Test(arguments: [
        (DeviceContent.blank, "mkfs.xfs /dev/"), (Fixture.xfs, "probe vol-"),
        (Fixture.xfs, "mount vol-"),
    ])
    func `a Mount that hangs is answered in time with what has not ended since when`(
        content: DeviceContent, doing: String
    ) throws {
        let fixture = fixture(content)
        fixture.host.hang(of: Fixture.id).begin(at: doing)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, time) = await self.mountSick(fixture)
            #expect(time == Limit.mountTimeMax)
            #expect(error?.reason == .deadline)
            let text = error?.description ?? ""
            #expect(text.contains("cannot mount \(Fixture.id): after 110 s"))
            #expect(text.contains(doing) && text.contains("(since 2023-11-14T"))
            #expect(text.contains("describe-volume-status --volume-ids \(Fixture.id)"))
            #expect(try await manager.get(Fixture.name).phase == "mounting")
        }
    }

    @Test func `a volume that hangs delays no call about another`() throws {
        let fixture = fixture()
        fixture.host.hang(of: Fixture.id).begin()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let sick = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            let begin = fixture.now
            try await manager.create("\(Self.well)", options: [:])
            _ = try await manager.mount("\(Self.well)", id: "a")
            _ = try await manager.mount("\(Self.well)", id: "b")
            try await manager.unmount("\(Self.well)", id: "a")
            #expect(fixture.now - begin < .seconds(2))
            _ = await sick.result
        }
    }

    @Test func `a later Mount joins what hangs, is answered in time, and it recovers`()
        throws
    {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        hang.begin()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = await self.mountSick(fixture)
            let (error, time) = await self.mountSick(fixture)
            #expect(error?.reason == .deadline)
            #expect(time == .seconds(20))
            hang.recover()
            let begin = fixture.now
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.now - begin < .seconds(1))
            // Docker sends no Unmount for a Mount that was answered with an error.
            #expect(try await manager.get(Fixture.name).mounts == 1)
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `a Mount of a mounted volume whose device hangs is answered`() throws {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            hang.begin()
            let (error, time) = await fixture.failure {
                _ = try await $0.mount(Fixture.name, id: "b")
            }
            #expect(error?.reason == .deadline && time == Limit.mountTimeMax)
            #expect(try await manager.get(Fixture.name).mounts == 1)
            hang.recover()
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(try await manager.get(Fixture.name).mounts == 2)
        }
    }

    @Test func `an Unmount that hangs is answered in its time, and ends when the device answers`()
        throws
    {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            hang.begin()
            let (error, time) = await fixture.failure {
                try await $0.unmount(Fixture.name, id: "a")
            }
            #expect(time == Limit.unmountTimeMax)
            #expect(error?.description.contains("unmount \(Fixture.id) (since") == true)
            hang.recover()
            try await fixture.sleep(.seconds(60))
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a Mount that waited too long for an Unmount mounts nothing`()
        throws
    {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            hang.begin()
            let unmount = fixture.start { try await $0.unmount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            let (error, time) = await self.mountSick(fixture)
            #expect(error?.reason == .deadline && time == Limit.mountTimeMax)
            _ = await unmount.result
            hang.recover()
            try await fixture.sleep(.seconds(1))
            #expect(fixture.host.mounts.isEmpty)
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `calls are answered while the state cannot be saved, and say so`() throws {
        let fixture = fixture()
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            hang.begin()
            let create = await fixture.failure { try await $0.create("\(Self.well)", options: [:]) }
            let mount = await fixture.failure { _ = try await $0.mount(Fixture.name, id: "a") }
            let remove = await fixture.failure { try await $0.remove(Fixture.name) }
            #expect(create.time == Limit.createTimeMax && mount.time == Limit.mountTimeMax)
            for call in [create, mount] {
                #expect(call.error?.reason == .deadline)
                #expect(call.error?.description.contains("the state is not saved") == true)
                #expect(call.error?.description.contains("the state folder") == true)
            }
            #expect(remove.error != nil && remove.time <= Limit.createTimeMax)
            hang.recover()
            _ = try await manager.mount(Fixture.name, id: "b")
        }
    }

    @Test func `no more than so many calls about one volume wait beyond their answers`() throws {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        hang.begin()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let calls = (0..<Limit.overdueCallsMax).map { number in
                fixture.start { try await $0.mount(Fixture.name, id: "\(number)") }
            }
            for call in calls { _ = await call.result }
            let (error, time) = await self.mountSick(fixture)
            #expect(error?.reason == .deadline && time == .zero)
            #expect(
                error?.description.contains("32 calls about the volume are already waiting") == true
            )
            hang.recover()
            try await fixture.sleep(.seconds(1))
            _ = try await manager.mount(Fixture.name, id: "b")
        }
    }

    @Test func `a result at the deadline is the response, not the timeout`() throws {
        let fixture = fixture()
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let (error, time) = await self.mountSick(fixture)
            #expect(time < Limit.mountTimeMax)
            #expect(error?.description.contains("wait for \(Fixture.id) to come") == true)
        }
    }

    @Test func `a Mount waits its full time if another has not outlasted its call`()
        throws
    {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        hang.begin()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let first = fixture.start { _ in await self.mountSick(fixture) }
            try await fixture.sleep(Limit.hangTimeMin + .seconds(10))
            #expect(await self.mountSick(fixture).time == Limit.mountTimeMax)
            #expect(try await first.value.time == Limit.mountTimeMax)
            hang.recover()
        }
    }

    @Test func `a volume that has recovered is waited for as before`() throws {
        let fixture = fixture()
        let hang = fixture.host.hang(of: Fixture.id)
        hang.begin()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = await self.mountSick(fixture)
            hang.recover()
            try await fixture.sleep(.seconds(1))
            _ = try await manager.mount(Fixture.name, id: "b")
            hang.begin()
            let first = fixture.start { _ in await self.mountSick(fixture) }
            try await fixture.sleep(Limit.hangTimeMin + .seconds(10))
            #expect(await self.mountSick(fixture).time == Limit.mountTimeMax)
            _ = await first.result
            hang.recover()
        }
    }

    @Test func `if only the state's disk hangs, a later Mount waits its full time`() throws {
        let fixture = fixture()
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            hang.begin()
            for _ in 1...2 {
                #expect(await self.mountSick(fixture).time == Limit.mountTimeMax)
            }
            hang.recover()
        }
    }

    @Test func `of two calls that were outlasted the one that still waits counts`() throws {
        let fixture = fixture()
        let disk = fixture.hang()
        fixture.state.hang = disk
        let device = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(1))
            disk.begin()
            let counting = fixture.start { _ = try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(1))
            device.begin()
            _ = await self.mountSick(fixture)
            _ = await counting.result
            disk.recover()
            try await fixture.sleep(.seconds(1))
            #expect(await self.mountSick(fixture).time == Limit.hangingAnswerTimeMax)
            device.recover()
        }
    }

    @Test func `if both hang, the response is about the volume`() throws {
        let fixture = fixture()
        let hang = fixture.hang()
        fixture.state.hang = hang
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            hang.begin()
            fixture.host.hang(of: Fixture.id).begin()
            let text = await self.mountSick(fixture).error?.description ?? ""
            #expect(text.contains("describe-volume-status --volume-ids \(Fixture.id)"))
            hang.recover()
            fixture.host.hang(of: Fixture.id).recover()
        }
    }
}
