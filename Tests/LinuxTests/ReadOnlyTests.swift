import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct ReadOnlyTests {
    @Test(arguments: ["xfs", "ext4", "ext3"])
    func `what was synced is there, though the file system was not unmounted`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let copy = try await fixture.crashed(type)
            let outcome = try await fixture.mount(copy, type, .readOnly)
            #expect(!outcome.mayBeOutdated)
            #expect(try fixture.file() == Array("kept".utf8))
            try await fixture.fileSystems.unmount("\(fixture.path)/mnt/one", of: volume(1))
        }
    }

    @Test(arguments: ["xfs", "ext4", "ext3"])
    func `without a replay not a byte is written, and missing data is reported`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let copy = try await fixture.crashed(type)
            let before = try await fixture.digest()
            let outcome = try await fixture.mount(copy, type, .withoutReplay)
            #expect(outcome.mayBeOutdated)
            // Other tests mount at the same time.
            let shown = try await fixture.fileSystems.mounted().last {
                $0.mountpoint == "\(fixture.path)/mnt/one"
            }
            #expect(shown?.mayBeOutdated == true)
            try await fixture.fileSystems.unmount("\(fixture.path)/mnt/one", of: volume(1))
            #expect(try await fixture.digest() == before)
            // The device takes writes again.
            #expect(try await !fixture.mount(copy, type, .writable).mayBeOutdated)
            #expect(try fixture.file() == Array("kept".utf8))
        }
    }

    @Test func `without a replay an ext4 with orphaned files is not changed`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-O", "^orphan_file", device.path)
            let mountpoint = try await fixture.mountOne(device, type: "ext4")
            fixture.write("kept", to: "\(mountpoint)/file")
            var status = stat()
            try #require(stat("\(mountpoint)/file", &status) == 0)
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            for value in [
                "set_super_value last_orphan \(status.st_ino)",
                "set_inode_field <\(status.st_ino)> links_count 0",
            ] {
                try await fixture.run(["/sbin/debugfs", "-w", "-R", value, device.path])
            }
            let before = try await fixture.digest()
            _ = try await fixture.mount(device, "ext4", .withoutReplay)
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await fixture.digest() == before)
        }
    }

    @Test(arguments: ["xfs", "ext4", "ext2"])
    func `without a replay, where there is nothing to replay nothing is missing`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.\(type)", "-q", device.path)
            let before = try await fixture.digest()
            #expect(try await !fixture.mount(device, type, .withoutReplay).mayBeOutdated)
            try await fixture.fileSystems.unmount("\(fixture.path)/mnt/one", of: volume(1))
            #expect(try await fixture.digest() == before)
        }
    }

    @Test(arguments: ["xfs", "ext4"])
    func `a device that accepts no writes is mounted without a replay, and stays so`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let copy = try await fixture.crashed(type)
            try await fixture.run("/sbin/blockdev", "--setro", copy.path)
            #expect(try await fixture.mount(copy, type, .readOnly).mayBeOutdated)
            try await fixture.fileSystems.unmount("\(fixture.path)/mnt/one", of: volume(1))
            let error = try await failure { _ = try await fixture.mount(copy, type, .writable) }
            #expect(error.found.contains("the device accepts no writes"), "\(error)")
            #expect(error.advice?.contains("read-only=true") == true)
            // A loop device would keep this setting for its next file.
            try await fixture.run("/sbin/blockdev", "--setrw", copy.path)
        }
    }

    @Test func `a device takes writes again after a restart too`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            _ = try await fixture.mount(device, "xfs", .withoutReplay)
            let restarted = FileSystems(devPath: fixture.devPath, sysPath: fixture.sysPath)
            try await restarted.unmount("\(fixture.path)/mnt/one", of: volume(1))
            _ = try await fixture.mount(device, "xfs", .writable)
        }
    }

    @Test func `a mount without writes that fails leaves the device writable`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            _ = try await failure { _ = try await fixture.mount(device, "xfs", .withoutReplay) }
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            _ = try await fixture.mount(device, "xfs", .writable)
        }
    }

    @Test func `a device that another mount may be writing to stays writable`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let other = "\(fixture.path)/mnt/other"
            mkdir(other, 0o755)
            try await fixture.fileSystems.mount(
                device, of: volume(1), type: "xfs", at: other, access: .writable, options: [])
            let error = try await failure {
                _ = try await fixture.mount(device, "xfs", .withoutReplay)
            }
            #expect(error.reason == .system)
            fixture.write("written", to: "\(other)/file")
            let file = open("\(other)/file", O_RDONLY | O_CLOEXEC)
            #expect(fsync(file) == 0)
            close(file)
        }
    }
}

extension DiskFixture {
    fileprivate func crashed(_ type: String) async throws -> BlockDevice {
        let (device, _) = try volumeOne()
        try await run("/sbin/mkfs.\(type)", "-q", device.path)
        return try await crashedCopy(of: device, type: type)
    }

    fileprivate func mount(
        _ device: BlockDevice, _ type: String, _ access: MountAccess
    ) async throws -> MountOutcome {
        try await fileSystems.mount(
            device, of: volume(1), type: type, at: "\(path)/mnt/one", access: access, options: [])
    }

    fileprivate func file() throws -> [UInt8] {
        try contents(of: "\(path)/mnt/one/file", limit: 10)
    }
}
