import Base
import CBlkid
import Glibc
import Ring
import SystemPackage

extension ProvenDevice {
    /// What is on the device. A device that cannot be read is an error, never blank: libblkid goes
    /// on past some read errors, so the parts where signatures lie are also read here.
    func content() throws(OperationError) -> DeviceContent {
        fetchEnds()
        if let common = try commonFileSystem() { return common }
        return try anyContent()
    }

    /// Has the kernel read at once what the usual probe looks at, both ends of the device: the probe
    /// would wait for one block after the other, and for the network each time.
    private func fetchEnds() {
        guard let size = try? size(), size > 1 << 20 else { return }
        for (offset, length) in [(0, 8192), (size - 65536, 4096), (size - 8192, 8192)] {
            posix_fadvise(
                descriptor.rawValue, off_t(offset), off_t(length), POSIX_FADV_WILLNEED)
        }
    }

    /// mkfs.xfs sets sb_inprogress, byte 126 of the superblock, until all else is written, and the
    /// kernel mounts no such file system. Source: struct xfs_dsb of the kernel's xfs_format.h.
    private func unlessUnfinished(_ content: DeviceContent) throws(OperationError) -> DeviceContent
    {
        guard case .fileSystem(type: "xfs", _, _) = content else { return content }
        var isInProgress: UInt8 = 0
        guard pread(descriptor.rawValue, &isInProgress, 1, 126) == 1 else {
            throw unreadable(at: 126, lastErrno)
        }
        return isInProgress == 0 ? content : .unfinished(type: "xfs")
    }

    /// As `content`, without the short cut: this one alone can say that a device is blank.
    func anyContent() throws(OperationError) -> DeviceContent {
        let edgesAreZero = try edgesAreZero()
        let isZero = edgesAreZero ? try samplesAreZero() : false
        let probe = try BlkidProbe(self)
        switch try probe.run([.superblocks, .partitions], doing: doing) {
        case .nothing: return isZero ? .blank : .unknownData
        case .several: return .signature("ambivalent: \(probe.everything())")
        case .one: return try unlessUnfinished(probe.content())
        }
    }

    /// The file systems that nearly every volume has, found in a tenth of the time.
    private func commonFileSystem() throws(OperationError) -> DeviceContent? {
        let probe = try BlkidProbe(self)
        guard case .one = try probe.run([.commonSuperblocks], doing: doing) else { return nil }
        return try unlessUnfinished(probe.content())
    }

    /// Whether the first and the last MiB are zeros. Throws where any of it cannot be read.
    private func edgesAreZero() throws(OperationError) -> Bool {
        let size = try size()
        let edge = UInt64(Limit.blankProofEdge)
        let tail = max(size > edge ? size - edge : 0, min(edge, size))
        let head = try isZero(0..<min(edge, size))
        let end = try isZero(tail..<size)
        return head && end
    }

    /// Whether blocks all over the device are zeros. A file system whose beginning was wiped by
    /// mistake has something between: its copies of the superblock, an ext4's at 128 MiB, and data.
    private func samplesAreZero() throws(OperationError) -> Bool {
        let size = try size()
        let block: UInt64 = 4096
        let distance = max(size / UInt64(Limit.blankProofSamples) / block * block, 1 << 20)
        let offsets = stride(from: distance, to: size, by: Int(distance)) + [128 << 20]
        let blocks = offsets.filter { $0 + block <= size }.map { $0..<$0 + block }
        for range in blocks {
            // All at once: one after the other each would wait for the network.
            posix_fadvise(
                descriptor.rawValue, off_t(range.lowerBound), off_t(block), POSIX_FADV_WILLNEED)
        }
        for range in blocks where try !isZero(range) { return false }
        return true
    }

    private func isZero(_ range: Range<UInt64>) throws(OperationError) -> Bool {
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 * 1024, alignment: 4096)
        defer { chunk.deallocate() }
        var isZero = true
        var offset = range.lowerBound
        while offset < range.upperBound {
            let wanted = min(chunk.count, Int(range.upperBound - offset))
            let count = pread(descriptor.rawValue, chunk.baseAddress, wanted, off_t(offset))
            if count < 0, lastErrno == .interrupted { continue }
            guard count > 0 else { throw unreadable(at: offset, count < 0 ? lastErrno : nil) }
            isZero = isZero && allZero(chunk.prefix(count))
            offset += UInt64(count)
        }
        return isZero
    }

    private func unreadable(at offset: UInt64, _ error: Errno?) -> OperationError {
        let found = error.map { refusal(of: "pread", $0) } ?? "pread: the device ends"
        return readError("at byte \(offset): \(found)", doing: doing)
    }
}

private func allZero(_ bytes: Slice<UnsafeMutableRawBufferPointer>) -> Bool {
    let bytes = UnsafeRawBufferPointer(rebasing: bytes)
    guard let start = bytes.baseAddress, bytes[0] == 0 else { return bytes.isEmpty }
    // Each byte equals the one before it, and the first is zero.
    return memcmp(start, start + 1, bytes.count - 1) == 0
}

private func readError(_ found: String, doing: String) -> OperationError {
    OperationError(
        .device, doing: doing, found: "the device cannot be read \(found)",
        advice: "nothing was written to it; look at the volume's status checks in EC2 and at "
            + "'dmesg' on the instance")
}

/// A libblkid probe of one open device.
private struct BlkidProbe: ~Copyable {
    private let handle: blkid_probe

    /// What is looked for.
    struct Scope: OptionSet {
        var rawValue: Int
        static let superblocks = Scope(rawValue: 1)
        static let partitions = Scope(rawValue: 2)
        /// Only xfs, ext4 and btrfs, and what may hold one of them as a part.
        static let commonSuperblocks = Scope(rawValue: 4)
    }

    enum Outcome {
        case nothing
        case one
        /// More than one thing claims the device.
        case several
    }

    init(_ device: borrowing ProvenDevice) throws(OperationError) {
        handle = try explaining(
            "libblkid's set_device", .device, doing: device.doing
        ) { () throws(Errno) in
            guard let probe = blkid_new_probe() else { throw .noMemory }
            guard blkid_probe_set_device(probe, device.descriptor.rawValue, 0, 0) == 0 else {
                let error = lastErrno
                blkid_free_probe(probe)
                throw error
            }
            return probe
        }
    }

    deinit { blkid_free_probe(handle) }

    func run(_ scope: Scope, doing: String) throws(OperationError) -> Outcome {
        var flags = BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_USAGE
        if scope.contains(.commonSuperblocks) {
            // With what lies beside a file system that looks whole: a mirror's half shows the
            // mirror's file system.
            filter(["xfs", "ext4", "btrfs", "linux_raid_member", "LVM2_member", "drbd", "bcache"])
        } else {
            flags |= BLKID_SUBLKS_BADCSUM
        }
        let superblocks = !scope.isDisjoint(with: [.superblocks, .commonSuperblocks])
        blkid_probe_enable_superblocks(handle, superblocks ? 1 : 0)
        blkid_probe_set_superblocks_flags(handle, flags)
        blkid_probe_enable_partitions(handle, scope.contains(.partitions) ? 1 : 0)
        errno = 0
        let code = blkid_do_safeprobe(handle)
        let error = lastErrno
        switch code {
        case 0: return .one
        case 1 where error != .ioError: return .nothing
        case -2: return .several
        default: throw readError("by libblkid: \(refusal(of: "probe", error))", doing: doing)
        }
    }

    /// What a run with the outcome `one` found.
    func content() -> DeviceContent {
        let table = value("PTTYPE").map { "\($0) partition table" }
        guard let type = value("TYPE") else {
            return .signature(table ?? "a signature that libblkid does not name")
        }
        if let table { return .signature("ambivalent: \(type) and \(table)") }
        if value("SBBADCSUM") != nil {
            return .signature("\(type) with a damaged superblock (wrong checksum)")
        }
        guard value("USAGE") == "filesystem" else { return .signature(type) }
        return .fileSystem(type: type, label: value("LABEL"), uuid: value("UUID"))
    }

    /// The names of all that claims the device, for the outcome `several`.
    func everything() -> String {
        var found: [String] = []
        blkid_reset_probe(handle)
        while found.count < Limit.signaturesNamedMax, blkid_do_probe(handle) == 0 {
            let name = value("TYPE") ?? value("PTTYPE").map { "\($0) partition table" }
            if let name, !found.contains(name) { found.append(name) }
        }
        return found.joined(separator: " and ")
    }

    private func filter(_ types: [String]) {
        var names: [UnsafeMutablePointer<CChar>?] = types.map { strdup($0) } + [nil]
        defer { names.forEach { free($0) } }
        blkid_probe_filter_superblocks_type(handle, BLKID_FLTR_ONLYIN, &names)
    }

    private func value(_ name: String) -> String? {
        var text: UnsafePointer<CChar>?
        guard blkid_probe_lookup_value(handle, name, &text, nil) == 0, let text else { return nil }
        return String(cString: text)
    }
}
