import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.enabled(if: isRoot, "needs root for loop devices and nodes"))
struct RepairTests {
    @Test func `a clean file system is left alone`() async throws {
        try await withBench { bench in
            let device = try await bench.ext("ext4")
            #expect(try await bench.repair(device) == nil)
        }
    }

    @Test(arguments: [
        ["/sbin/tune2fs", "-E", "force_fsck"], ["/sbin/tune2fs", "-c", "1", "-C", "7"],
        ["/sbin/tune2fs", "-i", "1d", "-T", "20200101"],
        ["/sbin/debugfs", "-w", "-R", "set_super_value state 0"],
        ["/sbin/debugfs", "-w", "-R", "set_super_value state 3"],
    ])
    func `one that asks for a check is checked, and does not ask again`(
        command: [String]
    ) async throws {
        try await withBench { bench in
            let device = try await bench.ext("ext4")
            try await bench.run(command + [device.path])
            let said = try #require(try await bench.repair(device))
            #expect(said.contains("\(device.path): ") && !said.contains("/proc/"), "\(said)")
            #expect(try await bench.repair(device) == nil)
        }
    }

    @Test(arguments: ["ext2", "ext3", "ext4"])
    func `wrong counts of free blocks are put right, and the data is there`(
        type: String
    ) async throws {
        try await withBench { bench in
            let device = try await bench.ext(type)
            let mountpoint = try await bench.mountOne(device, type: type)
            bench.write("kept", to: "\(mountpoint)/file")
            try await bench.fileSystems.unmount(mountpoint, of: volume(1))
            for value in ["free_blocks_count 17", "state 2"] {
                try await bench.run(
                    ["/sbin/debugfs", "-w", "-R", "set_super_value \(value)", device.path])
            }
            let said = try #require(
                try await bench.fileSystems.repair(
                    device, of: volume(1), type: type, by: bench.after(.seconds(120))))
            #expect(said.contains("blocks"), "\(said)")
            _ = try await bench.mountOne(device, type: type)
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test func `a file system that was not unmounted has its journal replayed`() async throws {
        try await withBench { bench in
            let device = try await bench.ext("ext4")
            let copy = try await bench.crashedCopy(of: device, type: "ext4")
            let said = try #require(try await bench.repair(copy))
            #expect(said.contains("recovering journal"), "\(said)")
            let mountpoint = try await bench.mountOne(copy, type: "ext4")
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test(arguments: ["ext2", "ext4"])
    func `one that is mounted elsewhere is not checked`(type: String) async throws {
        try await withBench { bench in
            let device = try await bench.ext(type)
            let mountpoint = try await bench.mountOne(device, type: type)
            bench.write("kept", to: "\(mountpoint)/file")
            #expect(try await bench.repair(device, type: type) == nil)
        }
    }

    @Test func `an xfs with a dirty log is left to the kernel, which replays it`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.xfs", "-q", device.path)
            let copy = try await bench.crashedCopy(of: device, type: "xfs")
            #expect(try await bench.repair(copy, type: "xfs") == nil)
            let mountpoint = try await bench.mountOne(copy, type: "xfs")
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test(arguments: ["xfs", "ext4"])
    func `a read-only mount writes nothing, whatever the journal holds`(type: String) async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.\(type)", "-q", device.path)
            let copy = try await bench.crashedCopy(of: device, type: type)
            let before = try await bench.digest()
            let mountpoint = try await bench.mountOne(copy, type: type, readOnly: true)
            try await bench.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await bench.digest() == before)
        }
    }

    @Test func `what -p cannot mend is an error with what e2fsck says, and nothing is mounted`()
        async throws
    {
        try await withBench { bench in
            let device = try await bench.ext("ext4")
            for command in ["clri <2>", "set_super_value state 2"] {
                try await bench.run(["/sbin/debugfs", "-w", "-R", command, device.path])
            }
            let error = try await failure { _ = try await bench.repair(device) }
            #expect(error.reason == .content)
            #expect(error.found.contains("exit status 4"), "\(error)")
            #expect(error.found.contains("UNEXPECTED INCONSISTENCY"), "\(error)")
        }
    }

    @Test func `another volume's device is not touched`() async throws {
        try await withBench { bench in
            let device = try await bench.ext("ext4")
            try await bench.run("/sbin/tune2fs", "-E", "force_fsck", device.path)
            let error = try await failure {
                _ = try await bench.fileSystems.repair(
                    device, of: volume(2), type: "ext4", by: bench.after(.seconds(120)))
            }
            #expect(error.reason == .device)
            #expect(try await bench.repair(device) != nil)
        }
    }
}

extension Bench {
    fileprivate func ext(_ type: String) async throws -> BlockDevice {
        let (device, _) = try volumeOne()
        try await run("/sbin/mkfs.\(type)", "-q", device.path)
        return device
    }

    fileprivate func repair(_ device: BlockDevice, type: String = "ext4") async throws -> String? {
        try await fileSystems.repair(device, of: volume(1), type: type, by: after(.seconds(120)))
    }

    /// Of the newest disk, past all caches of the device.
    fileprivate func digest() async throws -> String {
        let file = try #require(disks.last).file
        let result = try await ChildProcess.run(
            "/usr/bin/sha256sum", [file], by: after(.seconds(120)))
        try #require(result.succeeded)
        return result.output
    }

    /// Writes a file, and plugs in, as volume 1, a copy of the disk as it is while mounted.
    fileprivate func crashedCopy(of device: BlockDevice, type: String) async throws -> BlockDevice {
        let mountpoint = try await mountOne(device, type: type)
        write("kept", to: "\(mountpoint)/file")
        let file = open("\(mountpoint)/file", O_RDONLY | O_CLOEXEC)
        #expect(fsync(file) == 0)
        close(file)
        let copy = try disk()
        try await run(
            "/bin/dd", "if=\(device.path)", "of=\(copy.file)", "bs=1M", "conv=sparse,notrunc",
            "iflag=direct")
        try await fileSystems.unmount(mountpoint, of: volume(1))
        unplug("nvme1n1")
        return plugIn(copy, as: "nvme1n1", of: volume(1))
    }
}
