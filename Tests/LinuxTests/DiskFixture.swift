import Base
import CLoop
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@testable import Linux

/// Whether this process may create loop devices, nodes and mounts.
let isRoot = geteuid() == 0

/// A temporary directory with a devPath, a sysPath and mountpoints, and real block devices (of the
/// loop driver) that can be plugged into it as volumes.
@RingActor
final class DiskFixture {
    let path: String
    private(set) var disks: [Disk] = []
    let watch: DeviceWatch
    let fileSystems: FileSystems

    var devPath: String { "\(path)/dev" }
    var sysPath: String { "\(path)/sys" }

    /// A sparse file as a block device, until it is closed and unmounted.
    struct Disk: Sendable {
        var file: String
        var number: DeviceNumber
        fileprivate var descriptor: Int32
    }

    init() throws {
        var template = Array("/tmp/linux-tests.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for directory in ["dev", "sys", "sys/class", "sys/class/block", "mnt"] {
            mkdir("\(path)/\(directory)", 0o755)
        }
        watch = try DeviceWatch(devPath: "\(path)/dev", sysPath: "\(path)/sys")
        fileSystems = FileSystems(devPath: "\(path)/dev", sysPath: "\(path)/sys")
    }

    func tearDown() {
        for line in (try? MountTable(doing: "clean up"))?.lines.reversed() ?? []
        where line.mountpoint.hasPrefix(path + "/") {
            umount2(line.mountpoint, Int32(MNT_DETACH))
        }
        for disk in disks { close(disk.descriptor) }
        removeTree(path)
    }

    func disk(mebibytes: Int = 320) throws -> Disk {
        let file = "\(path)/disk\(disks.count)"
        let backing = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard backing >= 0, ftruncate(backing, off_t(mebibytes) << 20) == 0 else {
            throw Errno(rawValue: errno)
        }
        defer { close(backing) }
        var minor: UInt32 = 0
        let descriptor = CLoop_bind(backing, &minor)
        guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
        let disk = Disk(
            file: file, number: DeviceNumber(major: 7, minor: minor), descriptor: descriptor)
        disks.append(disk)
        return disk
    }

    /// Shows `disk` as Nitro shows a volume: first in sysfs, then as a node. Without `volume` it
    /// has no serial number yet.
    @discardableResult
    func plugIn(_ disk: Disk, as name: String, of volume: VolumeID?) -> BlockDevice {
        showInSysfs(name, disk.number, serial: volume?.nvmeSerial)
        return makeNode(name, disk.number)
    }

    /// A new disk, plugged in as volume 1.
    func volumeOne(mebibytes: Int = 320) throws -> (device: BlockDevice, disk: Disk) {
        let disk = try disk(mebibytes: mebibytes)
        return (plugIn(disk, as: "nvme1n1", of: volume(1)), disk)
    }

    /// Enlarges the disk's device by this much.
    func enlarge(_ disk: Disk, toMebibytes mebibytes: Int) {
        precondition(truncate(disk.file, off_t(mebibytes) << 20) == 0)
        precondition(CLoop_resize(disk.descriptor) == 0)
    }

    /// Makes a partition of all but the first and last MiB, and returns its number.
    func partition(_ disk: Disk, _ number: Int, mebibytes: Int = 320) throws -> DeviceNumber {
        let code = CLoop_add_partition(
            disk.descriptor, Int32(number), 1 << 20, UInt64(mebibytes - 2) << 20)
        guard code == 0 else { throw Errno(rawValue: code) }
        let loop = "loop\(disk.number.minor)"
        let text = try contents(of: "/sys/block/\(loop)/\(loop)p\(number)/dev", limit: 64)
        let line = String(decoding: text.dropLast(), as: UTF8.self)
        return try #require(DeviceNumber(line))
    }

    /// Shows a partition as the kernel does, without its node.
    func showPartition(_ name: String, _ number: Int, of disk: String, _ device: DeviceNumber) {
        let entry = "\(sysPath)/class/block/\(disk)/\(name)"
        mkdir(entry, 0o755)
        write("\(device)\n", to: "\(entry)/dev")
        write("\(number)\n", to: "\(entry)/partition")
    }

    /// The size of a namespace, in sectors, and the state of its controller, as the kernel shows
    /// them.
    func showInSysfs(_ name: String, sectors: Int, state: String) {
        write("\(sectors)\n", to: "\(sysPath)/class/block/\(name)/size")
        write("\(state)\n", to: "\(sysPath)/class/block/\(name)/device/state")
    }

    func showInSysfs(_ name: String, _ number: DeviceNumber, serial: String?) {
        let entry = "\(sysPath)/class/block/\(name)"
        mkdir(entry, 0o755)
        mkdir("\(entry)/device", 0o755)
        write("\(number)\n", to: "\(entry)/dev")
        // The kernel pads the serial number to 20 characters.
        if let serial {
            let padding = String(repeating: " ", count: max(0, 20 - serial.count))
            write(serial + padding + "\n", to: "\(entry)/device/serial")
        }
    }

    @discardableResult
    func makeNode(_ name: String, _ number: DeviceNumber) -> BlockDevice {
        let node = "\(devPath)/\(name)"
        // makedev(3) is a macro.
        let (major, minor) = (dev_t(number.major), dev_t(number.minor))
        mknod(node, S_IFBLK | 0o600, minor & 0xff | major << 8 | (minor & ~0xff) << 12)
        return BlockDevice(path: node, number: number)
    }

    func unplug(_ name: String) {
        unlink("\(devPath)/\(name)")
        removeTree("\(sysPath)/class/block/\(name)")
    }

    /// Writes to the disk, bypassing all caches.
    func write(_ bytes: [UInt8], at offset: Int, of disk: Disk) {
        let count = pwrite(disk.descriptor, bytes, bytes.count, off_t(offset))
        precondition(count == bytes.count && fsync(disk.descriptor) == 0)
    }

    func writeUnsynced(_ bytes: [UInt8], at offset: Int, of disk: Disk) {
        precondition(pwrite(disk.descriptor, bytes, bytes.count, off_t(offset)) == bytes.count)
    }

    /// Flushes what programs wrote to the disk's device into its file.
    func flush(_ disk: Disk) { precondition(fsync(disk.descriptor) == 0) }

    func read(_ count: Int, at offset: Int, of disk: Disk) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        precondition(pread(disk.descriptor, &bytes, count, off_t(offset)) == count)
        return bytes
    }

    func write(_ text: String, to file: String) {
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o700)
        precondition(descriptor >= 0, "\(file): \(errno)")
        let text = Array(text.utf8)
        precondition(Glibc.write(descriptor, text, text.count) == text.count)
        close(descriptor)
    }

    /// Runs a program that must succeed.
    func run(_ command: String...) async throws { try await run(command) }

    func run(_ command: [String]) async throws {
        let result = try await ChildProcess.run(
            command[0], Array(command.dropFirst()), by: after(.seconds(120)))
        try #require(result.end == .exited(0), "\(command): \(result)")
    }

    func after(_ duration: Duration) -> Instant { RingActor.ring.now + duration }
}

/// Runs `body` on the ring with a fixture, which is always removed afterwards.
func withDisks(_ body: @escaping @RingActor @Sendable (DiskFixture) async throws -> Void)
    async throws
{
    try await onRing {
        await BenchSlots.take()
        defer { BenchSlots.give() }
        let fixture = try DiskFixture()
        defer { fixture.tearDown() }
        try await body(fixture)
    }
}

/// How many benches there may be at once: each has an inotify instance, and a user can have 128.
@RingActor
private enum BenchSlots {
    static var free = 24
    static var waiting: [CheckedContinuation<Void, Never>] = []

    static func take() async {
        if free > 0 {
            free -= 1
        } else {
            await withCheckedContinuation { waiting.append($0) }
        }
    }

    static func give() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }
}

/// Runs `body`, which must fail with an `OperationError`, and returns the error.
@RingActor
func failure(
    _ body: @RingActor () async throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
) async throws -> OperationError {
    do {
        try await body()
    } catch let error as OperationError {
        return error
    }
    Issue.record("it succeeded", sourceLocation: sourceLocation)
    throw CancellationError()
}

func volume(_ digit: Int) -> VolumeID {
    guard let volume = VolumeID("vol-0123456789abcde\(digit)f") else {
        preconditionFailure("\(digit) is no digit")
    }
    return volume
}

private func removeTree(_ path: String) {
    let isDirectory = (try? Node(path, following: false))?.isDirectory ?? false
    guard isDirectory else {
        unlink(path)
        return
    }
    for name in (try? names(in: path)) ?? [] { removeTree("\(path)/\(name)") }
    rmdir(path)
}
