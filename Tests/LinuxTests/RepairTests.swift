import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct RepairTests {
    @Test func `a clean file system is left alone`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            #expect(try await fixture.repair(device) == nil)
        }
    }

    @Test(arguments: [
        ["/sbin/tune2fs", "-E", "force_fsck"],
        ["/sbin/debugfs", "-w", "-R", "set_super_value state 0"],
        ["/sbin/debugfs", "-w", "-R", "set_super_value state 3"],
    ])
    func `a file system with signs of damage is checked, and then has none`(
        command: [String]
    ) async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            try await fixture.run(command + [device.path])
            let said = try #require(try await fixture.repair(device))
            #expect(said.contains("\(device.path): ") && !said.contains("/proc/"), "\(said)")
            #expect(try await fixture.repair(device) == nil)
        }
    }

    @Test(arguments: ["ext2", "ext3", "ext4"])
    func `wrong counts of free blocks are corrected, and the data is there`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext(type)
            let mountpoint = try await fixture.mountOne(device, type: type)
            fixture.write("kept", to: "\(mountpoint)/file")
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            for value in ["free_blocks_count 17", "state 2"] {
                try await fixture.run(
                    ["/sbin/debugfs", "-w", "-R", "set_super_value \(value)", device.path])
            }
            let said = try #require(
                try await fixture.fileSystems.repair(
                    device, of: volume(1), type: type, by: fixture.after(.seconds(120))))
            #expect(said.contains("blocks"), "\(said)")
            _ = try await fixture.mountOne(device, type: type)
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test func `a file system that was not unmounted has its journal replayed`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            let copy = try await fixture.crashedCopy(of: device, type: "ext4")
            let said = try #require(try await fixture.repair(copy))
            #expect(said.contains("recovering journal"), "\(said)")
            let mountpoint = try await fixture.mountOne(copy, type: "ext4")
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test(arguments: ["ext2", "ext4"])
    func `a file system that is mounted elsewhere is not checked`(type: String) async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext(type)
            let mountpoint = try await fixture.mountOne(device, type: type)
            fixture.write("kept", to: "\(mountpoint)/file")
            #expect(try await fixture.repair(device, type: type) == nil)
        }
    }

    @Test func `an xfs with a dirty log is left to the kernel, which replays it`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let copy = try await fixture.crashedCopy(of: device, type: "xfs")
            #expect(try await fixture.repair(copy, type: "xfs") == nil)
            let mountpoint = try await fixture.mountOne(copy, type: "xfs")
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test(arguments: [
        ["-c", "1", "-C", "7"], ["-i", "1d", "-T", "20200101"],
    ])
    func `if a check is merely due, only the journal is replayed`(
        due: [String]
    ) async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            try await fixture.run(["/sbin/tune2fs"] + due + [device.path])
            #expect(try await fixture.repair(device) == nil)
            let copy = try await fixture.crashedCopy(of: device, type: "ext4")
            let said = try #require(try await fixture.repair(copy))
            #expect(said.contains("recovering journal"), "\(said)")
            #expect(!said.contains("check forced"), "\(said)")
            let mountpoint = try await fixture.mountOne(copy, type: "ext4")
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
        }
    }

    @Test func `an error that is recorded only in the journal causes a full check`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-O", "^metadata_csum", device.path)
            let copy = try await fixture.crashedCopy(of: device, type: "ext4")
            // jbd2_journal_abort sets j_errno, at byte 32 of the journal's superblock.
            let disk = try #require(fixture.disks.last)
            let journal = try #require(
                fixture.offset(of: [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4], disk))
            fixture.write([0, 0, 0, 5], at: journal + 32, of: disk)
            let said = try #require(try await fixture.repair(copy))
            #expect(said.contains("recovering journal"), "\(said)")
            #expect(said.contains("contains a file system with errors"), "\(said)")
            #expect(try await fixture.repair(copy) == nil)
        }
    }

    @Test func `a check that outlasts its Mount continues, reports progress, and is joined`()
        async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.damaged()
            let fileSystems = try fixture.fileSystems(
                withE2fsck: """
                    echo begun >> \(fixture.path)/runs
                    echo '1 37 100 /dev/x'
                    echo said
                    read line < \(fixture.path)/go
                    exit 1
                    """)
            func repair(_ time: Duration) async throws -> String? {
                try await fileSystems.repair(
                    device, of: volume(1), type: "ext4", by: fixture.after(time))
            }
            var error = try await failure { _ = try await repair(.milliseconds(20)) }
            let deadline = fixture.after(.seconds(120))
            while !error.found.contains("37 %") {
                try #require(RingActor.ring.now < deadline, "\(error)")
                error = try await failure { _ = try await repair(.milliseconds(20)) }
            }
            #expect(error.reason == .deadline)
            #expect(error.found.contains("is in pass 1 of 5, at 37 % of it"), "\(error)")
            #expect(error.doing.contains("\(volume(1))"))
            let last = RingActor.spawn { try await repair(.seconds(120)) }
            try await fixture.letGo()
            #expect(try await last.value == "said")
            #expect(try contents(of: "\(fixture.path)/runs", limit: 100) == Array("begun\n".utf8))
        }
    }

    @Test func `a check that failed between Mounts is reported until it is repaired`()
        async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.damaged()
            let fileSystems = try fixture.fileSystems(
                withE2fsck: """
                    echo begun >> \(fixture.path)/runs
                    read line < \(fixture.path)/go
                    echo 'it is beyond help'
                    exit 4
                    """)
            func repair(_ time: Duration) async throws -> String? {
                try await fileSystems.repair(
                    device, of: volume(1), type: "ext4", by: fixture.after(time))
            }
            @RingActor func failInBetween() async throws {
                let late = try await failure { _ = try await repair(.zero) }
                #expect(late.reason == .deadline)
                try await fixture.letGo()
                let check = fileSystems.checks[volume(1)]
                try await #require(check).waitForEnd()
            }
            try await failInBetween()
            let error = try await failure { _ = try await repair(.seconds(120)) }
            #expect(error.reason == .content)
            #expect(error.found.contains("it is beyond help"), "\(error)")
            try await failInBetween()
            try await fixture.run("/sbin/tune2fs", "-O", "^has_journal", device.path)
            try await fixture.run("/bin/sh", "-c", "/sbin/e2fsck -fy \(device.path) || [ $? = 1 ]")
            #expect(try await repair(.seconds(120)) == nil)
            #expect(
                try contents(of: "\(fixture.path)/runs", limit: 100) == Array("begun\nbegun\n".utf8)
            )
        }
    }

    @Test func `damage that -p cannot repair is an error with e2fsck's output`()
        async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            for command in ["clri <2>", "set_super_value state 2"] {
                try await fixture.run(["/sbin/debugfs", "-w", "-R", command, device.path])
            }
            let error = try await failure { _ = try await fixture.repair(device) }
            #expect(error.reason == .content)
            #expect(error.found.contains("exit status 4"), "\(error)")
            #expect(error.found.contains("UNEXPECTED INCONSISTENCY"), "\(error)")
        }
    }

    @Test func `another volume's device is not touched`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.ext("ext4")
            try await fixture.run("/sbin/tune2fs", "-E", "force_fsck", device.path)
            let error = try await failure {
                _ = try await fixture.fileSystems.repair(
                    device, of: volume(2), type: "ext4", by: fixture.after(.seconds(120)))
            }
            #expect(error.reason == .device)
            #expect(try await fixture.repair(device) != nil)
        }
    }
}

extension DiskFixture {
    fileprivate func ext(_ type: String) async throws -> BlockDevice {
        let (device, _) = try volumeOne()
        try await run("/sbin/mkfs.\(type)", "-q", device.path)
        return device
    }

    fileprivate func damaged() async throws -> BlockDevice {
        let device = try await ext("ext4")
        try await run("/sbin/tune2fs", "-E", "force_fsck", device.path)
        return device
    }

    /// With a script instead of e2fsck, which waits for `letGo` when it reads from `go`.
    fileprivate func fileSystems(withE2fsck script: String) throws -> FileSystems {
        mkdir("\(path)/tools", 0o755)
        mkfifo("\(path)/go", 0o600)
        write("#!/bin/sh\n\(script)\n", to: "\(path)/tools/e2fsck")
        return FileSystems(devPath: devPath, sysPath: sysPath, toolPath: "\(path)/tools")
    }

    fileprivate func letGo() async throws {
        let fifo = "\(path)/go"
        await RingActor.ring.blocking { _ = close(open(fifo, O_WRONLY | O_CLOEXEC)) }
    }

    /// The first position of these bytes on a disk, at the beginning of a block of 1 KiB.
    fileprivate func offset(of bytes: [UInt8], _ disk: Disk) -> Int? {
        stride(from: 0, to: 320 << 20, by: 1024).first {
            read(bytes.count, at: $0, of: disk) == bytes
        }
    }

    fileprivate func repair(_ device: BlockDevice, type: String = "ext4") async throws -> String? {
        try await fileSystems.repair(device, of: volume(1), type: type, by: after(.seconds(120)))
    }

    /// On the newest disk, bypassing all caches of the device.
    func digest() async throws -> String {
        let disk = try #require(disks.last)
        flush(disk)
        let file = disk.file
        let result = try await ChildProcess.run(
            "/usr/bin/sha256sum", [file], by: after(.seconds(120)))
        try #require(result.succeeded)
        return result.output
    }

    /// Writes a file, and plugs in, as volume 1, a copy of the disk as it is while mounted.
    func crashedCopy(of device: BlockDevice, type: String) async throws -> BlockDevice {
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
