import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct MountRefusalTests {
    @Test(arguments: ["xfs", "ext4"])
    func `a file system larger than its volume is reported with both sizes`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.\(type)", "-q", device.path)
            fixture.enlarge(disk, toMebibytes: 310)
            let error = try await fixture.refusal(of: device, type)
            #expect(error.found.contains("is \(320 << 20) bytes long"), "\(error)")
            #expect(error.found.contains("only \(310 << 20)"), "\(error)")
            #expect(error.advice?.contains("enlarge the volume to 1 GiB") == true)
        }
    }

    @Test(arguments: [
        ("-l logdev=", "its log is on another device"),
        ("-r rtdev=", "on a realtime device"),
    ])
    func `an xfs that needs a second device is reported as such`(
        option: String, found: String
    ) async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let other = fixture.makeNode("other", try fixture.disk(mebibytes: 64).number)
            let (flag, value) = (String(option.prefix(2)), String(option.dropFirst(3)))
            let size = flag == "-l" ? ",size=64m" : ""
            try await fixture.run(
                "/sbin/mkfs.xfs", "-q", flag, value + other.path + size, device.path)
            let error = try await fixture.refusal(of: device, "xfs")
            #expect(error.found.contains(found), "\(error)")
        }
    }

    @Test func `an ext4 with an external journal is reported as such`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let journal = fixture.makeNode("journal", try fixture.disk(mebibytes: 64).number)
            try await fixture.run(
                "/sbin/mke2fs", "-q", "-b", "4096", "-O", "journal_dev", journal.path)
            try await fixture.run(
                "/sbin/mkfs.ext4", "-q", "-b", "4096", "-J", "device=\(journal.path)", device.path)
            unlink(journal.path)
            // The number by which it refers to the journal no longer belongs to a device.
            try await fixture.run(
                "/sbin/debugfs", "-w", "-R", "set_super_value journal_dev 0xFFFE", device.path)
            let error = try await fixture.refusal(of: device, "ext4")
            #expect(error.found.contains("its journal is on another device"), "\(error)")
        }
    }

    @Test func `features that no kernel supports are reported`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-O", "^metadata_csum", device.path)
            try await fixture.run(
                "/sbin/debugfs", "-w", "-R", "feature +dirdata +FEATURE_I20", device.path)
            let error = try await fixture.refusal(of: device, "ext4")
            #expect(error.found.contains("dirdata (no Linux has it)"), "\(error)")
            #expect(error.found.contains("0x100000, unknown here"), "\(error)")
            #expect(error.advice?.contains("runs Linux ") == true)
        }
    }

    @Test func `a busy device is only reported as busy`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let claim = open(device.path, O_RDONLY | O_EXCL | O_CLOEXEC)
            defer { close(claim) }
            let error = try await fixture.refusal(of: device, "xfs")
            #expect(error.found == "mount(2) as xfs: Device or resource busy (EBUSY)")
        }
    }
}

@Suite struct SuperblockFindingTests {
    private static let linux510 = MountRefusal.Circumstances(
        deviceSize: 1 << 30, pageSize: 4096, kernelRelease: "5.10.0-30-amd64", isWritable: true,
        deviceAcceptsNoWrites: false)

    private func xfs(
        version: UInt8 = 5, blockSize: UInt32 = 4096, readOnly: UInt32 = 0, incompatible: UInt32 = 0
    ) throws -> [String] {
        var bytes = [UInt8](repeating: 0, count: 512)
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            for index in 0..<T.bitWidth / 8 {
                let shift = (T.bitWidth / 8 - 1 - index) * 8
                bytes[offset + index] = UInt8(truncatingIfNeeded: value >> shift)
            }
        }
        bytes.replaceSubrange(0..<4, with: "XFSB".utf8)
        put(blockSize, 4)
        put(UInt64(1000), 8)
        put(UInt64(64), 48)
        put(UInt16(version) | 0xB4A0, 100)
        put(readOnly, 212)
        put(incompatible, 216)
        let superblock = try #require(XFSSuperblock(bytes))
        return MountRefusal.findings(superblock, Self.linux510).map(\.found)
    }

    @Test func `an ordinary xfs has no reason`() throws {
        #expect(try xfs(readOnly: 0xF, incompatible: 0xF).isEmpty)
    }

    @Test func `features of an xfs that are newer than the kernel are named, and since when`()
        throws
    {
        let found = try xfs(incompatible: 0x8 | 0x20 | 0x80 | 0x4000_0000)
        #expect(
            found == [
                "it has incompatible features: nrext64 (since Linux 5.19), parent (since Linux "
                    + "6.10), 0x40000000, unknown here"
            ])
        #expect(try xfs(readOnly: 0x10).first?.contains("read-only features") == true)
    }

    @Test func `version 4, large blocks and a due repair are reported`() throws {
        #expect(try xfs(version: 4, incompatible: 0xFFFF).first?.contains("version 4") == true)
        let large = try xfs(blockSize: 65536)
        #expect(large.contains { $0.contains("of 65536 bytes, are larger than") }, "\(large)")
        #expect(try xfs(incompatible: 0x10).first?.contains("xfs_repair") == true)
    }

    @Test func `features of an ext4 that are newer than the kernel are named`() throws {
        var bytes = [UInt8](repeating: 0, count: 1024)
        bytes.replaceSubrange(0x38..<0x3A, with: [0x53, 0xEF])
        bytes[0x18] = 6
        bytes.replaceSubrange(0x60..<0x64, with: [0xC6, 0x02, 0, 0])
        bytes.replaceSubrange(0x64..<0x68, with: [0x7F, 0, 0x01, 0])
        let superblock = try #require(ExtSuperblock(bytes))
        let found = MountRefusal.findings(superblock, Self.linux510).map(\.found)
        #expect(found.count == 2, "\(found)")
        #expect(found.first?.contains("of 65536 bytes") == true)
        #expect(found.last?.contains("orphan_present (since Linux 5.15)") == true)
    }
}

extension DiskFixture {
    fileprivate func refusal(of device: BlockDevice, _ type: String) async throws -> OperationError
    {
        let error = try await failure {
            try await fileSystems.mount(
                device, of: volume(1), type: type, at: "\(path)/mnt/one", access: .writable,
                options: [])
        }
        #expect(error.reason == .system)
        #expect(access("\(path)/mnt/one", F_OK) != 0)
        return error
    }
}
