import Base
import Glibc
import Ring
import Testing

@testable import Linux

/// A frozen file system: writers wait in the kernel, and no signal ends that.
@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct HangTests {
    @Test func `a child that survives a kill delays nobody, is reported, and reaped later`()
        async throws
    {
        try await withFrozen(volume(8)) { fixture, mountpoint in
            let ring = RingActor.ring
            let begin = ring.now
            let outlived = await #expect(throws: ChildOutlivesKill.self) {
                try await ChildProcess.run(
                    "/bin/dd", ["if=/dev/zero", "of=\(mountpoint)/file", "count=1"],
                    by: begin + .milliseconds(100), for: .volume(volume(8)), doing: "write")
            }
            #expect(ring.now - begin < Limit.killTimeMax + .seconds(10))
            let hanging = try #require(ring.hangingWork.first { $0.owner == .volume(volume(8)) })
            #expect(hanging.work.doing == "write" && hanging.work.since >= begin)
            try await fixture.run("/sbin/fsfreeze", "-u", mountpoint)
            await outlived?.end()
            #expect(!ring.hangingWork.contains { $0.owner == .volume(volume(8)) })
        }
    }

    @Test func `a device that hangs does not delay calls for others`() async throws {
        try await withFrozen(volume(9)) { fixture, mountpoint in
            let ring = RingActor.ring
            let owning = RingActor.spawn {
                try await fixture.fileSystems.setOwnership(
                    of: mountpoint, volume: volume(9), uid: 1, gid: nil, mode: nil)
            }
            let begin = ring.now
            let other = fixture.plugIn(try fixture.disk(), as: "nvme2n1", of: volume(7))
            try await fixture.run("/sbin/mkfs.xfs", "-q", other.path)
            try await fixture.fileSystems.mount(
                other, of: volume(7), type: "xfs", at: "\(fixture.path)/mnt/2", access: .writable,
                options: [])
            #expect(await fixture.fileSystems.mountState(of: other, at: mountpoint) == .notMounted)
            #expect(ring.now - begin < .seconds(20))
            let work = try #require(fixture.fileSystems.workUnderWay(on: volume(9)))
            #expect(work.doing.contains("set owner and permissions"))
            try await fixture.run("/sbin/fsfreeze", "-u", mountpoint)
            try await owning.value
            #expect(fixture.fileSystems.workUnderWay(on: volume(9)) == nil)
        }
    }

    /// Runs `body` with the volume mounted and frozen, which it thaws.
    private func withFrozen(
        _ id: VolumeID,
        _ body: @escaping @RingActor @Sendable (DiskFixture, String) async throws -> Void
    ) async throws {
        try await withDisks { fixture in
            let mountpoint = "\(fixture.path)/mnt/\(id)"
            let device = fixture.plugIn(try fixture.disk(), as: "nvme1n1", of: id)
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            try await fixture.fileSystems.mount(
                device, of: id, type: "xfs", at: mountpoint, access: .writable, options: [])
            try await fixture.run("/sbin/fsfreeze", "-f", mountpoint)
            // Otherwise, if the test fails, the event that it waits for may never happen.
            let thawing = RingActor.spawn {
                try? await RingActor.ring.sleep(until: fixture.after(.seconds(60)))
                _ = await RingActor.spawn {
                    try? await ChildProcess.run(
                        "/sbin/fsfreeze", ["-u", mountpoint], by: fixture.after(.seconds(60)))
                }.value
            }
            let result: Result<Void, any Error>
            do { result = .success(try await body(fixture, mountpoint)) } catch {
                result = .failure(error)
            }
            thawing.cancel()
            await thawing.value
            try result.get()
        }
    }
}
