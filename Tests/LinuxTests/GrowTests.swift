import Base
import Glibc
import Ring
import Testing

@testable import Linux

/// Whether this process has CAP_SYS_RESOURCE, which a container's root may lack.
private let mayGrowExt: Bool = {
    let status = (try? contents(of: "/proc/self/status", limit: 64 * 1024)) ?? []
    let line = String(decoding: status, as: UTF8.self).split(separator: "\n")
        .first { $0.hasPrefix("CapEff:") }
    let set = line?.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) } ?? 0
    return set & 1 << 24 != 0
}()

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct GrowTests {
    @Test(arguments: mayGrowExt ? ["xfs", "ext4", "ext3"] : ["xfs"])
    func `a file system on an enlarged volume becomes as large as the volume, once`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.\(type)", "-q", device.path)
            fixture.enlarge(disk, toMebibytes: 640)
            let mountpoint = try await fixture.mountOne(device, type: type)
            let before = try bytes(of: mountpoint)
            let growth = try #require(try await fixture.grow(device, type: type, at: mountpoint))
            #expect(growth == Growth(from: 320 << 20, to: 640 << 20))
            #expect(try bytes(of: mountpoint) > before + (300 << 20))
            #expect(try await fixture.grow(device, type: type, at: mountpoint) == nil)
        }
    }

    @Test(arguments: ["xfs", "ext4"])
    func `a file system that fills its volume is left as it is`(type: String) async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.\(type)", "-q", device.path)
            let mountpoint = try await fixture.mountOne(device, type: type)
            #expect(try await fixture.grow(device, type: type, at: mountpoint) == nil)
        }
    }

    @Test(arguments: ["xfs", "ext4"])
    func `mounting reports whether the file system is smaller than its volume`(
        type: String
    ) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.\(type)", "-q", device.path)
            let mountpoint = "\(fixture.path)/mnt/one"
            func canGrow() async throws -> Bool {
                let outcome = try await fixture.fileSystems.mount(
                    device, of: volume(1), type: type, at: mountpoint, access: .writable,
                    options: [])
                try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
                return outcome.canGrow
            }
            #expect(try await !canGrow())
            fixture.enlarge(disk, toMebibytes: 640)
            #expect(try await canGrow())
        }
    }

    @Test func `what the kernel does not grow is an error with its reason`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            fixture.enlarge(disk, toMebibytes: 640)
            let mountpoint = try await fixture.mountOne(device, type: "xfs", access: .readOnly)
            let error = try await failure {
                _ = try await fixture.grow(device, type: "xfs", at: mountpoint)
            }
            #expect(error.reason == .system)
            #expect(error.found.contains("EROFS"), "\(error)")
        }
    }

    @Test func `an ext4 is grown only with the capability for it, and the error names that`()
        async throws
    {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.ext4", "-q", device.path)
            fixture.enlarge(disk, toMebibytes: 640)
            let mountpoint = try await fixture.mountOne(device, type: "ext4")
            let growth = RingActor.spawn {
                try await fixture.grow(device, type: "ext4", at: mountpoint)
            }
            switch await growth.result {
            case .success(let growth): #expect(mayGrowExt && growth?.to == 640 << 20)
            case .failure(let error):
                #expect(!mayGrowExt && "\(error)".contains("CAP_SYS_RESOURCE"), "\(error)")
            }
        }
    }

    @Test func `what is mounted from another device is not grown`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            let other = fixture.plugIn(try fixture.disk(), as: "nvme2n1", of: volume(2))
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let mountpoint = try await fixture.mountOne(device, type: "xfs")
            fixture.enlarge(disk, toMebibytes: 640)
            let error = try await failure {
                _ = try await fixture.fileSystems.grow(
                    other, of: volume(2), type: "xfs", at: mountpoint)
            }
            #expect(error.reason == .device)
        }
    }
}

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct OwnershipTests {
    @Test func `what is asked for is set, with the set-group-id bit, and the rest stays`()
        async throws
    {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            let mountpoint = try await fixture.mountOne(device, type: "xfs")
            func own(_ uid: UInt32?, _ gid: UInt32?, _ mode: UInt32?) async throws -> String {
                try await fixture.fileSystems.setOwnership(
                    of: mountpoint, volume: volume(1), uid: uid, gid: gid, mode: mode)
                var status = stat()
                #expect(stat(mountpoint, &status) == 0)
                let mode = String(status.st_mode & 0o7777, radix: 8)
                return "\(status.st_uid):\(status.st_gid) \(mode)"
            }
            #expect(try await own(nil, 70, nil) == "0:70 755")
            #expect(try await own(4_294_967_294, nil, 0o2770) == "4294967294:70 2770")
            #expect(try await own(nil, nil, 0o700) == "4294967294:70 700")
        }
    }
}

extension DiskFixture {
    func mountOne(
        _ device: BlockDevice, type: String, access: MountAccess = .writable, options: [String] = []
    ) async throws -> String {
        let mountpoint = "\(path)/mnt/one"
        try await fileSystems.mount(
            device, of: volume(1), type: type, at: mountpoint, access: access,
            options: options)
        return mountpoint
    }

    fileprivate func grow(
        _ device: BlockDevice, type: String, at mountpoint: String
    ) async throws -> Growth? {
        try await fileSystems.grow(device, of: volume(1), type: type, at: mountpoint)
    }
}

private func bytes(of mountpoint: String) throws -> UInt64 {
    var status = statvfs()
    try #require(statvfs(mountpoint, &status) == 0)
    return UInt64(status.f_blocks) * UInt64(status.f_frsize)
}
