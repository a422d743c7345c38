import Agent
import Base
import Testing
import VolumeCore

/// Mount and Unmount from the call to the response: what is counted when, in memory and on disk.
@Suite struct CallTests {
    private func counts(_ fixture: Fixture) -> MountCounts {
        fixture.state.records.first?.mounts ?? MountCounts()
    }

    /// The receiver of a Mount's response.
    private final class Client: @unchecked Sendable { var hasGone = false }

    /// A Mount as the daemon executes it; returns whether the client received the response.
    private func mount(
        _ id: String, _ fixture: Fixture, for client: Client
    ) -> Task<Bool, any Error> {
        fixture.start { manager in
            _ = try await manager.mount(Fixture.name, id: id)
            let isSent = !client.hasGone
            await manager.noteAnswer(to: id, of: Fixture.name, isSent: isSent)
            return isSent
        }
    }

    @Test func `a mount ID that is too long mounts nothing, one as long as may be does`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let longest = String(repeating: "x", count: Limit.mountIDMax)
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: longest + "x")
            }
            #expect(fixture.host.everMounted.isEmpty)
            _ = try await manager.mount(Fixture.name, id: longest)
        }
    }

    @Test func `a second container needs no metadata service`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.cloud.hostError = OperationError(.cloud, doing: "ask", found: "503")
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.everMounted.count == 1)
    }

    /// If the daemon ended now, the next one would not know whether the response was sent.
    @Test func `a Mount is on disk as unanswered when its response is sent`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(self.counts(fixture).total == 1)
            #expect(self.counts(fixture).unanswered == ["a"])
            await manager.noteAnswer(to: "a", of: Fixture.name, isSent: true)
            try await fixture.sleep(.milliseconds(1))
            #expect(self.counts(fixture).total == 1)
            #expect(self.counts(fixture).unanswered.isEmpty)
            try await manager.unmount(Fixture.name, id: "a")
            #expect(self.counts(fixture).isEmpty)
        }
    }

    /// Docker sends an Unmount only for a Mount that was answered.
    @Test(arguments: 0..<24)
    func `a client that hangs up at any moment leaves a count only if it was answered`(
        jobs: Int
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            let client = Client()
            let call = self.mount("b", fixture, for: client)
            fixture.after(jobs: jobs) {
                client.hasGone = true
                call.cancel()
            }
            let expected = if case .success(true) = await call.result { 1 } else { 0 }
            try await fixture.sleep(.seconds(1))
            #expect(try await manager.get(Fixture.name).mounts == 1 + expected)
            #expect(self.counts(fixture).counts["b", default: 0] == expected)
            try await manager.unmount(Fixture.name, id: "a")
            if expected == 1 { try await manager.unmount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test(arguments: 0..<24)
    func `a first client that hangs up at any moment leaves nothing mounted for long`(
        jobs: Int
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            cut.cancel()
            _ = await cut.result
            let client = Client()
            let call = self.mount("b", fixture, for: client)
            fixture.after(jobs: jobs) {
                client.hasGone = true
                call.cancel()
            }
            if case .success(true) = await call.result { return }
            try await fixture.sleep(.seconds(100))
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    @Test func `a Mount that could not be counted in its time is not counted later`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.hang()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.state.hang = hang
            hang.begin(at: "save the counts")
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            hang.recover()
            try await fixture.sleep(.seconds(1))
            #expect(try await manager.get(Fixture.name).mounts == 0)
            #expect(self.counts(fixture).isEmpty)
            try await fixture.sleep(.seconds(100))
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `an Unmount of an ID that has nothing mounted is logged with the ID`() throws {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await fixture.use(manager)
            #expect(lines.with("has nothing mounted").isEmpty)
            try await manager.unmount(Fixture.name, id: "b")
        }
        #expect(lines.with("has nothing mounted").first?.contains("\"b\"") == true)
    }

    @Test func `a second Unmount is not answered while the first one hangs`() throws {
        let fixture = Fixture(Fixture.xfs)
        let hang = fixture.host.hang(of: Fixture.id)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            hang.begin()
            let first = fixture.start { try await $0.unmount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(1))
            let second = await fixture.failure { try await $0.unmount(Fixture.name, id: "a") }
            #expect(second.time >= .seconds(20) && second.error != nil)
            hang.recover()
            _ = await first.result
        }
    }

    // MARK: What others did to the mount

    @Test func `a volume unmounted by hand is mounted once for two Mounts, and logged`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        let lines = LogLines()
        let manager = fixture.observed(lines)
        try fixture.run {
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.host.unmount(Fixture.mountpoint, of: Fixture.id)
            let calls = ["b", "c"].map { id in
                fixture.start { _ in
                    try await manager.mount(Fixture.name, id: id)
                }
            }
            for call in calls { _ = try await call.value }
            #expect(try await manager.get(Fixture.name).mounts == 3)
        }
        #expect(fixture.host.everMounted.count == 2)
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        #expect(lines.with("error the volume was unmounted by someone else").count == 1)
        #expect(lines.with("has shut down").isEmpty)
    }

    @Test func `a slow look at a mount says nothing about the next one`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.host.unmount(Fixture.mountpoint, of: Fixture.id)
            fixture.host.lookTimes = [.milliseconds(1), .seconds(5)]
            let calls = ["b", "c"].map { id in
                fixture.start { try await $0.mount(Fixture.name, id: id) }
            }
            for call in calls { _ = try await call.value }
        }
        #expect(fixture.host.everMounted.count == 2)
    }

    @Test func `a device that disappears while its mount is checked is joined by nobody`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.lookTimes = [.seconds(5)]
            let call = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(1))
            try await fixture.cloud.detachByHand(Fixture.id, force: true)
            _ = try await call.value
        }
        #expect(fixture.host.everMounted.count == 2)
    }

    @Test func `a mount that is made again while it is checked is awaited`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.lookTimes = [.seconds(5)]
            fixture.host.mountTime = .seconds(10)
            let first = fixture.start { try await $0.mount(Fixture.name, id: "b") }
            try await fixture.sleep(.seconds(1))
            fixture.host.broken = [Fixture.mountpoint]
            let second = fixture.start { try await $0.mount(Fixture.name, id: "c") }
            _ = try await first.value
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            _ = try await second.value
        }
    }

    @Test func `a mount that could not be undone during a takeover is undone later`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(60))
        try fixture.run { manager in
            try await fixture.use(manager)
            try await fixture.sleep(.seconds(10))
            fixture.host.busyUnmounts = 1
            try await fixture.cloud.detachByHand(Fixture.id)
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "b")
            }
            #expect(fixture.host.busyUnmounts == 0)
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            #expect(try await manager.path(Fixture.name) == Fixture.mountpoint)
            try await fixture.sleep(.seconds(100))
        }
        #expect(fixture.host.mounts.isEmpty)
    }
}
