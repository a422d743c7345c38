import Agent
import Base
import Simulation
import Testing
import VolumeCore

/// An instance where only EC2 knows which volume bears a name.
@Suite struct XenTests {
    private static let stranger = VolumeID(literal: "vol-1a2b3c4d")

    private func fixture() -> Fixture {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        fixture.cloud.isXen = true
        return fixture
    }

    @Test func `a volume is found, mounted and given back by its name`() throws {
        let fixture = fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint]?.source == "/dev/xvdf")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(700))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    /// A blank one would be formatted. While the lease is still there, and after it was dropped.
    @Test(arguments: [Duration.seconds(1), .seconds(10)])
    func `another volume under the remembered name is neither mounted nor formatted`(
        pause: Duration
    ) throws {
        let fixture = fixture()
        fixture.cloud.latency.detach = .milliseconds(100)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            // By hand one is detached and another attached.
            let end = fixture.executor.now + pause
            _ = try await fixture.cloud.detach(
                Fixture.id, from: Fixture.here, force: false, sentBy: end, by: end)
            try await fixture.executor.sleep(until: end)
            fixture.cloud.add(Self.stranger, .blank, attachedTo: Fixture.here)
            _ = try await manager.mount(Fixture.name, id: "b")
        }
        #expect(fixture.host.formatted.isEmpty)
        #expect(fixture.cloud.content[Self.stranger] == .blank)
        #expect(fixture.host.mounts[Fixture.mountpoint]?.source == "/dev/xvdg")
    }
}
