import Base
import Glibc
import Ring
import Testing

@testable import Linux

/// Compares the probe with `blkid -p`, on devices with overlapping contents.
@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct BlkidTests {
    @Test func `the probe finds everything that blkid finds, whatever overlaps`() async throws {
        try await withDisks { fixture in
            let layers = try await fixture.layers()
            let (device, disk) = try fixture.volumeOne()
            for lower in layers {
                for upper in layers {
                    let names = "\(upper.name) over \(lower.name)"
                    fixture.put(lower.sectors, on: disk)
                    fixture.put(upper.sectors, on: disk)
                    let content = try await fixture.fileSystems.probe(device, of: volume(1))
                    let judge = try await fixture.blkid(device)
                    #expect(judge.allows(content), "\(names): \(content), \(judge)")
                    fixture.erase(lower.sectors, on: disk)
                    fixture.erase(upper.sectors, on: disk)
                }
            }
            #expect(try await fixture.fileSystems.probe(device, of: volume(1)) == .blank)
        }
    }

    @Test(arguments: [
        ("ext4", "dos"), ("ext4", "crypto_LUKS"), ("ext4", "LVM2_member"),
        ("ext4", "linux_raid_member"), ("ext4", "zfs_member"), ("ext4", "bcachefs"),
        ("xfs", "zfs_member"), ("xfs", "bcachefs"), ("xfs", "ext4"),
    ])
    func `a file system under something else is not mounted, and both are named`(
        lower: String, upper: String
    ) async throws {
        try await withDisks { fixture in
            let layers = try await fixture.layers()
            let (device, disk) = try fixture.volumeOne()
            for name in [lower, upper] {
                let layer = try #require(layers.first { $0.name == name })
                fixture.put(layer.sectors, on: disk)
            }
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            guard case .several(let found) = content else {
                Issue.record("found \(content)")
                return
            }
            #expect(found.contains(lower))
            #expect(found.contains { $0.hasPrefix(upper) }, "\(found)")
        }
    }

    @Test func `a file system whose device cannot be read at its end is an error`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            truncate(disk.file, 319 << 20)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(device, of: volume(1))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains("EIO"), "\(error)")
        }
    }
}

/// What a program wrote to a device: the sectors that are not zero.
private struct Layer {
    var name: String
    var sectors: [Int: [UInt8]]
}

/// SEEK_DATA and SEEK_HOLE of lseek(2), which Glibc declares under _GNU_SOURCE alone.
private let (seekData, seekHole): (Int32, Int32) = (3, 4)

/// What blkid says.
private struct Judge: CustomStringConvertible {
    var isAmbivalent: Bool
    var type: String?
    var usage: String?
    var table: String?

    var description: String {
        "blkid: ambivalent \(isAmbivalent), \(type ?? "-") (\(usage ?? "-")), \(table ?? "-")"
    }

    /// Whether the probe found at least as much. It may also find what libblkid does not know.
    func allows(_ content: DeviceContent) -> Bool {
        let seen = [type, table.map { "\($0) partition table" }].compactMap { $0 }
        switch content {
        case .fileSystem(let found, _, _):
            return !isAmbivalent && usage == "filesystem" && seen == [found]
        case .signature(let name):
            return !isAmbivalent
                && (seen == [name] && usage != "filesystem" || seen.isEmpty && name == "bcachefs")
        case .several(let names): return seen.allSatisfy(names.contains) && names.count > 1
        case .unknownData: return !isAmbivalent && seen.isEmpty
        case .blank, .unfinished: return false
        }
    }
}

extension DiskFixture {
    fileprivate func layers() async throws -> [Layer] {
        let programs = [
            ("xfs", "mkfs.xfs -q"), ("ext4", "mkfs.ext4 -q"), ("ext2", "mkfs.ext2 -q"),
            ("swap", "mkswap -q"), ("minix", "mkfs.minix"), ("dos", "printf ',,\\n' | sfdisk -q"),
            ("gpt", "printf 'label: gpt\\n,,\\n' | sfdisk -q"),
        ]
        var layers: [Layer] = []
        for (name, command) in programs {
            let file = "\(path)/layer"
            let descriptor = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            defer { close(descriptor) }
            try #require(ftruncate(descriptor, 320 << 20) == 0)
            try await run("/bin/sh", "-c", "PATH=/sbin:/bin; \(command) \(file) > \(file).log")
            layers.append(Layer(name: name, sectors: sectors(of: descriptor)))
        }
        let headers: [(String, Int, [UInt8])] = [
            ("LVM2_member", 0, lvmLabel), ("crypto_LUKS", 0, luksHeader),
            ("linux_raid_member", 0, raidMember), ("zfs_member", 128 << 10, zfsUberblocks),
            ("bcachefs", 4096 + 24, bcachefsMagic), ("vfat", 0, fatBootSector),
            ("ntfs", 0, ntfsBootSector),
        ]
        for (name, offset, bytes) in headers {
            layers.append(Layer(name: name, sectors: sectors(of: bytes, at: offset)))
        }
        return layers
    }

    private func sectors(of file: Int32) -> [Int: [UInt8]] {
        var sectors: [Int: [UInt8]] = [:]
        var start = lseek(file, 0, seekData)
        while start >= 0 {
            let end = lseek(file, start, seekHole)
            var bytes = [UInt8](repeating: 0, count: end - start)
            precondition(pread(file, &bytes, bytes.count, start) == bytes.count)
            sectors.merge(self.sectors(of: bytes, at: start)) { $1 }
            start = lseek(file, end, seekData)
        }
        return sectors
    }

    private func sectors(of bytes: [UInt8], at offset: Int) -> [Int: [UInt8]] {
        var sectors: [Int: [UInt8]] = [:]
        for (index, byte) in bytes.enumerated() where byte != 0 {
            let (sector, place) = (offset + index).quotientAndRemainder(dividingBy: 512)
            sectors[sector, default: [UInt8](repeating: 0, count: 512)][place] = byte
        }
        return sectors
    }

    fileprivate func put(_ sectors: [Int: [UInt8]], on disk: Disk) {
        for (sector, bytes) in sectors { writeUnsynced(bytes, at: sector * 512, of: disk) }
    }

    fileprivate func erase(_ sectors: [Int: [UInt8]], on disk: Disk) {
        let zeros = [UInt8](repeating: 0, count: 512)
        for sector in sectors.keys { writeUnsynced(zeros, at: sector * 512, of: disk) }
    }

    fileprivate func blkid(_ device: BlockDevice) async throws -> Judge {
        let result = try await ChildProcess.run(
            "/sbin/blkid", ["-p", "-o", "export", device.path], by: after(.seconds(120)))
        var values: [Substring: String] = [:]
        for line in result.output.split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { values[parts[0]] = String(parts[1]) }
        }
        // blkid(8): 2 means "nothing found", 8 an ambivalent result.
        try #require([.exited(0), .exited(2), .exited(8)].contains(result.end), "\(result)")
        return Judge(
            isAmbivalent: result.end == .exited(8), type: values["TYPE"], usage: values["USAGE"],
            table: values["PTTYPE"])
    }
}

/// The ring of uberblocks of a ZFS label; source: uberblock_impl.h and vdev_impl.h of OpenZFS.
private let zfsUberblocks: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 128 << 10)
    for slot in 0..<32 {
        bytes.replaceSubrange(
            slot * 4096..<slot * 4096 + 8, with: [0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0])
        bytes[slot * 4096 + 8] = 200
    }
    return bytes
}()

private let bcachefsMagic: [UInt8] = [
    0xC6, 0x85, 0x73, 0xF6, 0x66, 0xCE, 0x90, 0xA9, 0xD9, 0x6A, 0x60, 0xCF, 0x80, 0x3D, 0xF7, 0xEF,
]

/// The boot sector of a FAT16, which ends like a partition table; source: the kernel's struct
/// fat_boot_sector.
private let fatBootSector: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 512)
    bytes.replaceSubrange(0..<11, with: [0xEB, 0x3C, 0x90] + Array("mkfs.fat".utf8))
    bytes.replaceSubrange(11..<24, with: [0, 2, 16, 16, 0, 2, 0, 2, 0, 0xF8, 160, 0, 32])
    bytes.replaceSubrange(32..<36, with: [0, 0, 10, 0])
    bytes.replaceSubrange(36..<39, with: [0x80, 0, 0x29])
    bytes.replaceSubrange(43..<62, with: "NO NAME    FAT16   ".utf8)
    bytes.replaceSubrange(510..<512, with: [0x55, 0xAA])
    return bytes
}()

/// Source: struct NTFS_BOOT of the kernel's fs/ntfs3/ntfs.h.
private let ntfsBootSector: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 512)
    bytes.replaceSubrange(0..<11, with: [0xEB, 0x52, 0x90] + Array("NTFS    ".utf8))
    bytes.replaceSubrange(11..<14, with: [0, 2, 8])
    bytes[21] = 0xF8
    bytes.replaceSubrange(40..<44, with: [0, 0, 9, 0])
    bytes[48] = 4
    bytes[56] = 2
    bytes[64] = 0xF6
    bytes[68] = 1
    bytes.replaceSubrange(510..<512, with: [0x55, 0xAA])
    return bytes
}()
