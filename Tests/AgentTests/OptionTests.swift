import Agent
import Base
import Testing
import VolumeCore

@Suite struct OptionTests {
    private static let ext4 = DeviceContent.fileSystem(type: "ext4", label: nil, uuid: nil)

    /// Creates, mounts, unmounts and lets the linger pass; returns what was done to the file
    /// system.
    private func live(_ fixture: Fixture, _ options: [String: String]) throws -> [String] {
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: options)
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
        }
        return fixture.host.actions
    }

    private func expectMountError(
        _ fixture: Fixture, _ options: [String: String]
    ) throws -> OperationError {
        let error = try fixture.run { manager in
            try await manager.create(Fixture.name, options: options)
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(fixture.host.mounts.isEmpty)
        return try #require(error)
    }

    @Test func `a blank volume gets the file system that is asked for`() throws {
        let fixture = Fixture(.blank)
        _ = try live(fixture, ["fs-type": "ext4"])
        #expect(fixture.cloud.content[Fixture.id] == Self.ext4)
    }

    @Test func `owner and mode are set once, when the file system is made`() throws {
        let fixture = Fixture(.blank)
        let options = ["uid": "999", "mode": "0750"]
        #expect(try live(fixture, options) == ["own 999:-:750"])
        #expect(try live(fixture, options) == ["own 999:-:750"])
    }

    @Test func `the owner of a file system that was there stays`() throws {
        #expect(try live(Fixture(Fixture.xfs), ["uid": "999"]).isEmpty)
    }

    @Test func `an owner that could not be set is set by the next Mount, after a restart too`()
        throws
    {
        let fixture = Fixture(.blank)
        fixture.host.failOwnership = true
        _ = try expectMountError(fixture, ["uid": "999"])
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.actions == ["own 999:-:-"])
        #expect(fixture.host.formatted == [Fixture.id])
    }

    /// What another host's users have set in the meantime must stay.
    @Test(arguments: [false, true])
    func `an owner that could not be set is not set once the volume has been away`(
        hasRestarted: Bool
    ) throws {
        let fixture = Fixture(.blank)
        fixture.host.failOwnership = true
        _ = try expectMountError(fixture, ["uid": "999"])
        try fixture.run { manager in
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        }
        if hasRestarted { fixture.restart() }
        try fixture.run { manager in
            if hasRestarted { try await manager.start() }
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.actions.isEmpty && fixture.host.formatted == [Fixture.id])
    }

    /// While the daemon or its machine was down the volume may have been anywhere.
    @Test(arguments: [false, true])
    func `an owner that could not be set is not set after the volume went unseen`(
        isReboot: Bool
    ) throws {
        let fixture = Fixture(.blank)
        fixture.host.failOwnership = true
        _ = try expectMountError(fixture, ["uid": "999"])
        if isReboot { fixture.cloud.boot = "second" }
        fixture.restart()
        try fixture.run { manager in
            if !isReboot {
                let end = fixture.now + .seconds(10)
                try await fixture.cloud.detachByHand(Fixture.id)
                try await fixture.sleep(until: end)
            }
            try await manager.start()
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.actions.isEmpty)
    }

    @Test func `an ext4 that asks for it is repaired, and one that is too small grown`() throws {
        let fixture = Fixture(Self.ext4)
        fixture.host.unclean = [Fixture.id]
        fixture.host.ungrown = [Fixture.id]
        #expect(try live(fixture, [:]) == ["repair ext4", "grow ext4"])
    }

    @Test func `read-only, nothing is repaired or grown`() throws {
        let fixture = Fixture(Self.ext4)
        fixture.host.unclean = [Fixture.id]
        fixture.host.ungrown = [Fixture.id]
        #expect(try live(fixture, ["read-only": "true"]).isEmpty)
    }

    @Test func `read-only, a blank volume is refused`() throws {
        let fixture = Fixture(.blank)
        _ = try expectMountError(fixture, ["read-only": "true"])
        #expect(fixture.host.formatted.isEmpty)
    }

    @Test func `a file system that cannot be grown is mounted as it is`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.host.failGrowth = true
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `a mount option that is not for the file system is an error that names it`() throws {
        let error = try expectMountError(Fixture(Self.ext4), ["mount-options": "logbufs=4"])
        #expect(error.description.contains("logbufs=4"))
    }

    // MARK: Reading alone

    @Test func `a read-only mount shows what the journal holds, and repairs and grows nothing`()
        throws
    {
        let fixture = Fixture(Self.ext4)
        fixture.host.unreplayed = [Fixture.id]
        fixture.host.unclean = [Fixture.id]
        fixture.host.ungrown = [Fixture.id]
        #expect(try live(fixture, ["read-only": "true", "uid": "9"]).isEmpty)
        #expect(fixture.host.accesses[Fixture.id] == .readOnly)
    }

    @Test(arguments: [true, false])
    func `without a replay the volume's state says that its contents may be old`(
        isShared: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.host.unreplayed = [Fixture.id]
        fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = isShared
        var options = ["read-only": "true"]
        if !isShared { options["mount-options"] = "norecovery" }
        try fixture.run { [options] manager in
            try await manager.create(Fixture.name, options: options)
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(try await manager.get(Fixture.name).mayBeOutdated)
            try await manager.unmount(Fixture.name, id: "a")
            #expect(try await !manager.get(Fixture.name).mayBeOutdated)
        }
        #expect(fixture.host.accesses[Fixture.id] == .withoutReplay)
    }

    // MARK: Partitions

    private func partitioned(_ content: DeviceContent) -> Fixture {
        let fixture = Fixture(.signature("gpt partition table"))
        fixture.cloud.partition(Fixture.id, 2, content)
        return fixture
    }

    @Test func `the partition that is asked for is mounted, and stays mounted`() throws {
        let fixture = partitioned(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: ["partition": "2"])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.mounts[Fixture.mountpoint]?.source.hasSuffix("p2") == true)
        #expect(fixture.host.formatted.isEmpty)
    }

    @Test func `an unused partition is given back with its volume`() throws {
        let fixture = partitioned(Fixture.xfs)
        _ = try live(fixture, ["partition": "2"])
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a partition is never formatted`() throws {
        let fixture = partitioned(.blank)
        _ = try expectMountError(fixture, ["partition": "2"])
        #expect(fixture.host.formatted.isEmpty)
    }

    @Test func `a partition that is not there is an error`() throws {
        _ = try expectMountError(partitioned(Fixture.xfs), ["partition": "3"])
    }

    @Test func `without the option a partitioned volume is refused, and the option named`() throws {
        let error = try expectMountError(partitioned(Fixture.xfs), [:])
        #expect(error.description.contains("partition="))
    }
}
