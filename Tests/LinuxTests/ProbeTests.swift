import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct ProbeTests {
    @Test func `a device of zeros is blank`() async throws {
        try await expectContent(.blank) { _, _ in }
    }

    @Test func `a device smaller than what is read at its ends is blank`() async throws {
        try await expectContent(.blank, mebibytes: 1) { _, _ in }
    }

    @Test func `xfs is found with its label and UUID`() async throws {
        let uuid = "5f2b5c80-6f0a-4a51-9d4c-0b6f7f0f3a11"
        try await expectContent(.fileSystem(type: "xfs", label: "a b", uuid: uuid)) {
            fixture, disk in
            try await fixture.run("/sbin/mkfs.xfs", "-q", "-L", "a b", "-m", "uuid=\(uuid)", disk)
        }
    }

    @Test func `ext4 is found`() async throws {
        let uuid = "5f2b5c80-6f0a-4a51-9d4c-0b6f7f0f3a12"
        try await expectContent(.fileSystem(type: "ext4", label: nil, uuid: uuid)) {
            fixture, disk in
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-U", uuid, disk)
        }
    }

    @Test func `ext2 is found by the full probe`() async throws {
        let uuid = "5f2b5c80-6f0a-4a51-9d4c-0b6f7f0f3a13"
        try await expectContent(.fileSystem(type: "ext2", label: nil, uuid: uuid)) {
            fixture, disk in
            try await fixture.run("/sbin/mkfs.ext2", "-q", "-U", uuid, disk)
        }
    }

    @Test func `btrfs is found`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            fixture.write(btrfsSuperblock(), at: 64 * 1024, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            guard case .fileSystem(type: "btrfs", _, _) = content else {
                Issue.record("found \(content)")
                return
            }
        }
    }

    @Test(arguments: [("dos", "dos partition table"), ("gpt", "gpt partition table")])
    func `a partition table is a signature`(label: String, name: String) async throws {
        try await expectContent(.signature(name)) { fixture, disk in
            fixture.write(
                "#!/bin/sh\nprintf 'label: \(label)\\n,\\n' | exec /sbin/sfdisk -q $1\n",
                to: "\(fixture.path)/partition")
            try await fixture.run("\(fixture.path)/partition", disk)
        }
    }

    @Test func `swap is a signature`() async throws {
        try await expectContent(.signature("swap")) { fixture, disk in
            try await fixture.run("/sbin/mkswap", disk)
        }
    }

    @Test(arguments: [
        (lvmLabel, "LVM2_member"), (luksHeader, "crypto_LUKS"), (raidMember, "linux_raid_member"),
    ])
    func `data of other systems is a signature`(header: [UInt8], name: String) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            fixture.write(header, at: 0, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(content == .signature(name))
        }
    }

    @Test func `two file systems on one device are both named`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let superblock = fixture.read(512, at: 0, of: disk)
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-F", device.path)
            fixture.write(superblock, at: 0, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(content == .several(["xfs", "ext4"]))
        }
    }

    @Test func `a superblock with a wrong checksum is named`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            fixture.write(lvmLabel, at: 0, of: disk)
            fixture.write([0xFF], at: 1023, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(
                content == .signature("LVM2_member with a damaged superblock (wrong checksum)"))
        }
    }

    @Test(arguments: [0, 4096 + 17, (1 << 20) - 1, (64 << 20) - (1 << 20), (64 << 20) - 1])
    func `one byte that is not zero at either end is unknown data`(offset: Int) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne(mebibytes: 64)
            fixture.write([1], at: offset, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(content == .unknownData)
        }
    }

    @Test(arguments: [5 << 20, 128 << 20, 315 << 20])
    func `a block between that is not zero is unknown data`(offset: Int) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            fixture.write([1], at: offset, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(content == .unknownData)
        }
    }

    @Test func `an unfinished xfs is detected, and formatted only if that is allowed`()
        async throws
    {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne(mebibytes: 512)
            try await fixture.fileSystems.format(
                device, of: volume(1), plan: FormatPlan(type: .xfs, arguments: []),
                by: fixture.after(.seconds(120)))
            fixture.write([1], at: 126, of: disk)
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            #expect(content == .unfinished(type: "xfs"))
            await #expect(throws: OperationError.self) {
                try await fixture.fileSystems.format(
                    device, of: volume(1), plan: FormatPlan(type: .xfs, arguments: []),
                    by: fixture.after(.seconds(120)))
            }
            try await fixture.fileSystems.format(
                device, of: volume(1),
                plan: FormatPlan(type: .xfs, arguments: [], overwritesUnfinished: true),
                by: fixture.after(.seconds(120)))
            guard
                case .fileSystem(type: "xfs", _, _) = try await fixture.fileSystems.probe(
                    device, of: volume(1))
            else {
                Issue.record("it is no xfs")
                return
            }
        }
    }

    @Test(arguments: [0, 63])
    func `a device that cannot be read is an error, never blank`(mebibytes: Int) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne(mebibytes: 64)
            // The device keeps its size: reads past the file's end fail.
            truncate(disk.file, off_t(mebibytes) << 20)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.reason == .device)
            #expect(error.doing == "probe \(volume(1)) on \(device.path)")
            #expect(error.found.contains("EIO"))
        }
    }
}

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct IdentityTests {
    @Test func `a node of another device is rejected`() async throws {
        try await expectRefusal("is device") { fixture, device in
            unlink(device.path)
            fixture.makeNode("nvme1n1", try fixture.disk(mebibytes: 1).number)
        }
    }

    @Test func `a device with another volume's serial number is rejected`() async throws {
        try await expectRefusal(volume(2).nvmeSerial) { fixture, device in
            fixture.showInSysfs("nvme1n1", device.number, serial: volume(2).nvmeSerial)
        }
    }

    @Test func `a device whose serial number cannot be read is rejected`() async throws {
        try await expectRefusal("cannot be read") { fixture, _ in
            unlink("\(fixture.sysPath)/class/block/nvme1n1/device/serial")
        }
    }

    @Test func `a device for which sysfs has another number is refused`() async throws {
        try await expectRefusal("sysfs has 259:3") { fixture, _ in
            fixture.showInSysfs(
                "nvme1n1", DeviceNumber(major: 259, minor: 3), serial: volume(1).nvmeSerial)
        }
    }

    @Test func `a file in the node's place is refused`() async throws {
        try await expectRefusal("not a block device") { fixture, device in
            unlink(device.path)
            fixture.write("no device", to: device.path)
        }
    }

    @Test func `a device that is gone is an error that says so`() async throws {
        try await expectRefusal("ENOENT") { fixture, _ in fixture.unplug("nvme1n1") }
    }

    @Test func `a Xen device is known by name and number`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let device = fixture.makeNode("xvdf", disk.number)
            #expect(try await fixture.fileSystems.probe(device, of: volume(1)) == .blank)
            unlink(device.path)
            fixture.makeNode("xvdf", try fixture.disk(mebibytes: 1).number)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.reason == .device)
        }
    }

    @Test func `a Xen device for which sysfs has another number is refused`() async throws {
        try await withDisks { fixture in
            let device = fixture.makeNode("xvdf", try fixture.disk(mebibytes: 1).number)
            fixture.showInSysfs("xvdf", DeviceNumber(major: 202, minor: 80), serial: nil)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.found.contains("sysfs has 202:80"))
        }
    }

    @Test func `a device of another name is refused`() async throws {
        try await withDisks { fixture in
            let device = fixture.makeNode("vda", try fixture.disk(mebibytes: 1).number)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.found.contains("vda is neither"))
        }
    }

    private func expectRefusal(
        _ text: String,
        after change: @escaping @RingActor @Sendable (DiskFixture, BlockDevice) throws -> Void
    ) async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne(mebibytes: 1)
            try change(fixture, device)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains(text), "\(error)")
        }
    }
}

private func expectContent(
    _ content: DeviceContent, mebibytes: Int = 320,
    after prepare: @escaping @RingActor @Sendable (DiskFixture, String) async throws -> Void
) async throws {
    try await withDisks { fixture in
        let (device, _) = try fixture.volumeOne(mebibytes: mebibytes)
        try await prepare(fixture, device.path)
        #expect(try await fixture.fileSystems.probe(device, of: volume(1)) == content)
    }
}

/// An LVM2 label in the second sector; source: label.h and uuid.h of LVM2.
let lvmLabel: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 1024)
    var sector = Array("LABELONE".utf8) + littleEndian(UInt64(1)) + [0, 0, 0, 0]
    sector += littleEndian(UInt32(32)) + Array("LVM2 001".utf8)
    sector += Array("0123456789abcdefghijklmnopqrstuv".utf8)
    sector += [UInt8](repeating: 0, count: 512 - sector.count)
    // LVM's CRC-32 has its own start value and no final inversion.
    let checksum = crc32(sector[20...], polynomial: 0xEDB8_8320, start: 0xF597_A6CF)
    sector.replaceSubrange(16..<20, with: littleEndian(checksum))
    bytes.replaceSubrange(512..<1024, with: sector)
    return bytes
}()

/// A LUKS1 header; source: LUKS On-Disk Format Specification 1.2.3.
let luksHeader: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 1024)
    bytes.replaceSubrange(0..<8, with: Array("LUKS".utf8) + [0xBA, 0xBE, 0, 1])
    bytes.replaceSubrange(168..<204, with: "5f2b5c80-6f0a-4a51-9d4c-0b6f7f0f3a14".utf8)
    return bytes
}()

/// A member of an md array, with a superblock of version 1.2, 4 KiB into the device; source: struct
/// mdp_superblock_1 in the kernel's include/uapi/linux/raid/md_p.h, calc_sb_1_csum in
/// drivers/md/md.c.
let raidMember: [UInt8] = {
    var superblock = [UInt8](repeating: 0, count: 256)
    func put(_ bytes: [UInt8], at offset: Int) {
        superblock.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    }
    put(littleEndian(UInt32(0xA92B_4EFC)) + littleEndian(UInt32(1)), at: 0)
    put(Array("0123456789abcdef".utf8), at: 16)
    put(littleEndian(UInt64(8)), at: 144)
    let words = stride(from: 0, to: 256, by: 4).map { offset in
        (0..<4).reduce(UInt64(0)) { $0 | UInt64(superblock[offset + $1]) << ($1 * 8) }
    }
    let sum = words.reduce(0, +)
    put(littleEndian(UInt32(truncatingIfNeeded: (sum & 0xFFFF_FFFF) + sum >> 32)), at: 216)
    return [UInt8](repeating: 0, count: 4096) + superblock
}()

/// Source: btrfs_super_block in the kernel's include/uapi/linux/btrfs_tree.h.
private func btrfsSuperblock() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.replaceSubrange(48..<56, with: littleEndian(UInt64(64 * 1024)))
    bytes.replaceSubrange(64..<72, with: "_BHRfS_M".utf8)
    bytes.replaceSubrange(144..<148, with: littleEndian(UInt32(4096)))
    let checksum = ~crc32(bytes[32...], polynomial: 0x82F6_3B78, start: .max)
    bytes.replaceSubrange(0..<4, with: littleEndian(checksum))
    return bytes
}

private func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
}

private func crc32(_ bytes: ArraySlice<UInt8>, polynomial: UInt32, start: UInt32) -> UInt32 {
    bytes.reduce(start) { crc, byte in
        (0..<8).reduce(crc ^ UInt32(byte)) { crc, _ in
            crc & 1 == 1 ? crc >> 1 ^ polynomial : crc >> 1
        }
    }
}
