import CLoop
import Glibc
import Ring

/// A volume's file as a block device. Once it is released and nothing else has it open or mounted,
/// the kernel unbinds it.
///
/// Calls block, and are made one at a time: hence `@unchecked`.
final class LoopDevice: @unchecked Sendable {
    let minor: UInt32
    private var descriptor: Descriptor?
    /// The visible partitions, and their start in bytes.
    private var partitionStarts: [Int: UInt64] = [:]

    init(backing path: String) throws(SystemError) {
        let file = open(path, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw SystemError("open \(path)") }
        defer { close(file) }
        var minor: UInt32 = 0
        let result = CLoop_bind(file, &minor)
        guard result >= 0 else { throw SystemError("bind a loop device to \(path)", -result) }
        descriptor = Descriptor(owning: result)
        self.minor = minor
    }

    /// A partition that the kernel shows.
    struct Partition: Sendable {
        var number: Int
        /// Its major number is `Footprint.extendedMajor`.
        var minor: UInt32
    }

    /// Makes the kernel show the partitions in the device's DOS table, if there is one. Some
    /// kernels read such tables by themselves; others are built without this.
    func showPartitions() throws(SystemError) -> [Partition] {
        var sector = [UInt8](repeating: 0, count: 512)
        guard pread(rawDescriptor, &sector, 512, 0) == 512, sector[510] == 0x55, sector[511] == 0xaa
        else { return [] }
        var partitions: [Partition] = []
        for number in 1...4 {
            let entry = sector[(430 + 16 * number)..<(446 + 16 * number)]
            let (start, length) = (sectors(entry.dropFirst(8)), sectors(entry.dropFirst(12)))
            guard length > 0 else { continue }
            let code = CLoop_add_partition(
                rawDescriptor, Int32(number), start * 512, length * 512)
            guard code == 0 || code == EBUSY else {
                throw SystemError("show partition \(number) of loop\(minor)", code)
            }
            partitionStarts[number] = start * 512
            partitions.append(try partition(number))
        }
        return partitions
    }

    private func partition(_ number: Int) throws(SystemError) -> Partition {
        let path = "/sys/block/loop\(minor)/loop\(minor)p\(number)/dev"
        let numbers = String(decoding: try readFile(path), as: UTF8.self).dropLast()
            .split(separator: ":").compactMap { UInt32($0) }
        guard numbers.count == 2, numbers[0] == Footprint.extendedMajor else {
            throw SystemError("read \(path)", EINVAL)
        }
        return Partition(number: number, minor: numbers[1])
    }

    /// Whether somebody has it mounted in any mount namespace, or holds it in another way.
    ///
    /// open(2) with O_EXCL on a block device fails with EBUSY while the device is in use by the
    /// system; an ordinary open descriptor, such as this one, does not count.
    func isHeld() throws(SystemError) -> Bool {
        let path = "/dev/loop\(minor)"
        let fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
        if fd >= 0 {
            close(fd)
            return false
        }
        guard errno == EBUSY else { throw SystemError("open \(path)") }
        return true
    }

    /// Every read and write fails from now on, even for whoever has it mounted.
    func tear() throws(SystemError) {
        for (number, start) in partitionStarts {
            let code = CLoop_shrink_partition(rawDescriptor, Int32(number), start)
            guard code == 0 else {
                throw SystemError("tear partition \(number) of loop\(minor) away", code)
            }
        }
        let code = CLoop_tear(rawDescriptor)
        guard code == 0 else { throw SystemError("tear loop\(minor) away", code) }
    }

    /// Adopts the file's new size.
    func resize() throws(SystemError) {
        let code = CLoop_resize(rawDescriptor)
        guard code == 0 else { throw SystemError("resize loop\(minor)", code) }
    }

    func release() { descriptor = nil }

    private var rawDescriptor: Int32 {
        switch descriptor {
        case .some(let descriptor): descriptor.rawValue
        case .none: preconditionFailure("the loop device is released")
        }
    }
}

/// A number of sectors in a partition table entry.
private func sectors(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.prefix(4).reversed().reduce(0) { $0 << 8 | UInt64($1) }
}
