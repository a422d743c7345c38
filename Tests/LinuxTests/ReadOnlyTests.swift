import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.enabled(if: isRoot, "needs root for loop devices and mounts"))
struct ReadOnlyTests {
    @Test(arguments: ["xfs", "ext4", "ext3"])
    func `what was synced is there, though the file system was not unmounted`(
        type: String
    ) async throws {
        try await withBench { bench in
            let copy = try await bench.crashed(type)
            let outcome = try await bench.mount(copy, type, .readOnly)
            #expect(!outcome.mayBeOutdated)
            #expect(try bench.file() == Array("kept".utf8))
            try await bench.fileSystems.unmount("\(bench.path)/mnt/one", of: volume(1))
        }
    }

    @Test(arguments: ["xfs", "ext4", "ext3"])
    func `without a replay not a byte is written, and missing data is reported`(
        type: String
    ) async throws {
        try await withBench { bench in
            let copy = try await bench.crashed(type)
            let before = try await bench.digest()
            let outcome = try await bench.mount(copy, type, .withoutReplay)
            #expect(outcome.mayBeOutdated)
            // Other tests mount at the same time.
            let shown = try await bench.fileSystems.mounted().last {
                $0.mountpoint == "\(bench.path)/mnt/one"
            }
            #expect(shown?.mayBeOutdated == true)
            try await bench.fileSystems.unmount("\(bench.path)/mnt/one", of: volume(1))
            #expect(try await bench.digest() == before)
            // The device takes writes again.
            #expect(try await !bench.mount(copy, type, .writable).mayBeOutdated)
            #expect(try bench.file() == Array("kept".utf8))
        }
    }

    @Test func `without a replay an ext4 with orphaned files is not changed`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.ext4", "-q", "-O", "^orphan_file", device.path)
            let mountpoint = try await bench.mountOne(device, type: "ext4")
            bench.write("kept", to: "\(mountpoint)/file")
            var status = stat()
            try #require(stat("\(mountpoint)/file", &status) == 0)
            try await bench.fileSystems.unmount(mountpoint, of: volume(1))
            for value in [
                "set_super_value last_orphan \(status.st_ino)",
                "set_inode_field <\(status.st_ino)> links_count 0",
            ] {
                try await bench.run(["/sbin/debugfs", "-w", "-R", value, device.path])
            }
            let before = try await bench.digest()
            _ = try await bench.mount(device, "ext4", .withoutReplay)
            try await bench.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await bench.digest() == before)
        }
    }

    @Test(arguments: ["xfs", "ext4", "ext2"])
    func `without a replay, where there is nothing to replay nothing is missing`(
        type: String
    ) async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.\(type)", "-q", device.path)
            let before = try await bench.digest()
            #expect(try await !bench.mount(device, type, .withoutReplay).mayBeOutdated)
            try await bench.fileSystems.unmount("\(bench.path)/mnt/one", of: volume(1))
            #expect(try await bench.digest() == before)
        }
    }

    @Test(arguments: ["xfs", "ext4"])
    func `a device that accepts no writes is mounted without a replay, and stays so`(
        type: String
    ) async throws {
        try await withBench { bench in
            let copy = try await bench.crashed(type)
            try await bench.run("/sbin/blockdev", "--setro", copy.path)
            #expect(try await bench.mount(copy, type, .readOnly).mayBeOutdated)
            try await bench.fileSystems.unmount("\(bench.path)/mnt/one", of: volume(1))
            let error = try await failure { _ = try await bench.mount(copy, type, .writable) }
            #expect(error.found.contains("the device accepts no writes"), "\(error)")
            #expect(error.advice?.contains("read-only=true") == true)
            // A loop device would keep this setting for its next file.
            try await bench.run("/sbin/blockdev", "--setrw", copy.path)
        }
    }

    @Test func `a device takes writes again after a restart too`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.xfs", "-q", device.path)
            _ = try await bench.mount(device, "xfs", .withoutReplay)
            let restarted = FileSystems(devPath: bench.devPath, sysPath: bench.sysPath)
            try await restarted.unmount("\(bench.path)/mnt/one", of: volume(1))
            _ = try await bench.mount(device, "xfs", .writable)
        }
    }

    @Test func `a mount without writes that fails leaves the device writable`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            _ = try await failure { _ = try await bench.mount(device, "xfs", .withoutReplay) }
            try await bench.run("/sbin/mkfs.xfs", "-q", device.path)
            _ = try await bench.mount(device, "xfs", .writable)
        }
    }

    @Test func `a device that another mount may be writing to stays writable`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.xfs", "-q", device.path)
            let other = "\(bench.path)/mnt/other"
            mkdir(other, 0o755)
            try await bench.fileSystems.mount(
                device, of: volume(1), type: "xfs", at: other, access: .writable, options: [])
            let error = try await failure {
                _ = try await bench.mount(device, "xfs", .withoutReplay)
            }
            #expect(error.reason == .system)
            bench.write("written", to: "\(other)/file")
            let file = open("\(other)/file", O_RDONLY | O_CLOEXEC)
            #expect(fsync(file) == 0)
            close(file)
        }
    }
}

extension Bench {
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
