import Agent
import Base
import Testing
import VolumeCore

/// What is on disk, and how often it is written.
@Suite struct SaveTests {
    private static let full = OperationError(.system, doing: "write volumes.json", found: "ENOSPC")
    private static let other = VolumeID(literal: "vol-1a2b3c4d")

    private func fixture() -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.add(Self.other, Fixture.xfs)
        return fixture
    }

    @Test func `what is on the disk is not written again`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            try await manager.conclude()
            #expect(fixture.state.saves == 1 && fixture.state.isConcluded)
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(5))
            let saves = fixture.state.saves
            // Counts are stored elsewhere.
            _ = try await manager.mount(Fixture.name, id: "b")
            try await manager.unmount(Fixture.name, id: "b")
            try await manager.conclude()
            #expect(fixture.state.saves == saves)
        }
    }

    @Test func `a stopping daemon saves what could not be saved, in its final form`()
        throws
    {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.state.saveError = Self.full
            _ = try? await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(1))
            fixture.state.saveError = nil
            try await manager.conclude()
            let name = try await manager.get(Fixture.name).attachedAs
            #expect(name != nil && fixture.state.records.map(\.deviceName) == [name])
            #expect(fixture.state.isConcluded)
        }
    }

    @Test func `a full disk is retried with growing pauses, which start again each time`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            for _ in 1...2 {
                let before = fixture.state.attempts
                fixture.state.saveError = Self.full
                await #expect(throws: Self.full) {
                    try await manager.create(Fixture.name, options: [:])
                }
                for (pause, tries) in [
                    (Duration.milliseconds(900), 1), (.milliseconds(200), 2), (.seconds(2), 3),
                    (.seconds(4), 4), (.seconds(100), 8),
                ] {
                    try await fixture.sleep(pause)
                    #expect(fixture.state.attempts - before == tries)
                }
                fixture.state.saveError = nil
                let saves = fixture.state.saves
                try await fixture.sleep(Limit.saveRetryMax)
                #expect(fixture.state.saves == saves + 1)
            }
        }
    }

    @Test func `a boot is saved though no volume has changed`() throws {
        let fixture = fixture()
        fixture.state.records = [VolumeRecord(id: Fixture.id, createdAt: 1)]
        fixture.state.owner = StateOwner(instance: Fixture.here, boot: "an earlier one")
        try fixture.run { manager in
            try await manager.start()
            try await manager.learnAttachments()
            try await fixture.sleep(.seconds(1))
        }
        #expect(fixture.state.owner == StateOwner(instance: Fixture.here, boot: "first"))
    }

    @Test func `until the state's owner is known, no device name from it is shown`()
        throws
    {
        let fixture = fixture()
        fixture.state.records = [
            VolumeRecord(id: Fixture.id, createdAt: 1, deviceName: "/dev/sdf", hasLease: true)
        ]
        fixture.state.owner = StateOwner(instance: Fixture.here, boot: "an earlier one")
        fixture.cloud.hostError = OperationError(.cloud, doing: "ask", found: "503")
        try fixture.run { manager in
            try await manager.start()
            #expect(try await manager.get(Fixture.name).attachedAs == nil)
        }
    }

    // MARK: Changes at once, on a disk that takes its time

    /// Begins the calls in this order, each while the earlier ones wait for the disk, or for EC2 if
    /// they begin at once.
    private func results(
        _ fixture: Fixture, atOnce: Bool = false,
        _ calls: [@Sendable (VolumeManager) async throws -> Void]
    ) async throws -> [Result<Void, any Error>] {
        let hang = fixture.hang()
        fixture.state.hang = hang
        hang.begin()
        var tasks: [Task<Void, any Error>] = []
        for call in calls {
            tasks.append(fixture.start(call))
            if !atOnce { try await fixture.sleep(.seconds(1)) }
        }
        try await fixture.sleep(.seconds(1))
        hang.recover()
        var results: [Result<Void, any Error>] = []
        for task in tasks { results.append(await task.result) }
        try await fixture.sleep(.seconds(1))
        return results
    }

    private func isDone(_ result: Result<Void, any Error>) -> Bool {
        if case .success = result { true } else { false }
    }

    /// The names that this daemon and the next one report, which are the same.
    private func names(_ fixture: Fixture) throws -> [String] {
        let now = try fixture.run { await $0.list().map(\.name) }
        fixture.restart()
        let next = try fixture.run { manager in
            try await manager.start()
            return await manager.list().map(\.name)
        }
        #expect(now == next)
        return next
    }

    private func create(
        _ name: String, of id: VolumeID = Fixture.id
    ) -> @Sendable (VolumeManager) async throws -> Void {
        { try await $0.create(name, options: ["volume-id": "\(id)"]) }
    }

    @Test func `volumes created at once are both known`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            let results = try await self.results(
                fixture, [self.create("a"), self.create("b", of: Self.other)])
            #expect(results.allSatisfy(self.isDone))
        }
        #expect(try names(fixture) == ["a", "b"])
    }

    @Test func `names of one volume created at once are both known`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            let results = try await self.results(
                fixture, atOnce: true, [self.create("a"), self.create("b")])
            #expect(results.allSatisfy(self.isDone))
        }
        #expect(try names(fixture) == ["a", "b"])
    }

    @Test func `a name created at once for two volumes is one's, and the other call is refused`()
        throws
    {
        let fixture = fixture()
        try fixture.run { manager in
            let results = try await self.results(
                fixture, atOnce: true, [self.create("a"), self.create("a", of: Self.other)])
            #expect(results.filter(self.isDone).count == 1)
        }
        #expect(try names(fixture) == ["a"])
    }

    @Test func `a Create that is sent twice at once is saved once`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            let results = try await self.results(
                fixture, atOnce: true, [self.create("a"), self.create("a")])
            #expect(results.allSatisfy(self.isDone))
        }
        #expect(fixture.state.saves == 1)
    }

    @Test func `a Create during the Remove of the same name is answered once it is known again`()
        throws
    {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create("a", options: ["volume-id": Fixture.name])
            let results = try await self.results(
                fixture, [{ try await $0.remove("a") }, self.create("a")])
            #expect(results.allSatisfy(self.isDone))
        }
        #expect(try names(fixture) == ["a"])
    }

    @Test func `names of one volume removed at once are both gone`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            for name in ["a", "b"] {
                try await manager.create(name, options: ["volume-id": Fixture.name])
            }
            let results = try await self.results(
                fixture, [{ try await $0.remove("a") }, { try await $0.remove("b") }])
            #expect(results.allSatisfy(self.isDone))
        }
        #expect(try names(fixture).isEmpty)
    }

    @Test func `a Mount during the Remove of its name mounts nothing`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create("a", options: ["volume-id": Fixture.name])
            let results = try await self.results(
                fixture,
                [{ try await $0.remove("a") }, { _ = try await $0.mount("a", id: "x") }])
            #expect(results.map(self.isDone) == [true, false])
        }
        #expect(fixture.host.everMounted.isEmpty && fixture.cloud.calls(of: "Attach").isEmpty)
    }
}
