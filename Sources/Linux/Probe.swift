import Base
import CBlkid
import Glibc
import Ring
import SystemPackage

extension ProvenDevice {
    /// What is on the device: everything that `blkid -p` finds, because a file system must not be
    /// mounted if a partition table or a second file system claims the same blocks. A device that
    /// cannot be read is an error, never blank: libblkid ignores some read errors, so the areas
    /// with signatures are also read here.
    func content() throws(OperationError) -> DeviceContent {
        let size = try size()
        fetchAhead(size)
        try readEnds(size)
        let bcachefs = try bearsBcachefs()
        let probe = try BlkidProbe(self)
        switch try probe.run(doing: doing) {
        case .nothing where bcachefs: return .signature("bcachefs")
        case .nothing: return try unrecognised()
        case .several: return .several(probe.everything() + (bcachefs ? ["bcachefs"] : []))
        case .one where bcachefs: return .several(probe.everything() + ["bcachefs"])
        case .one: return try unlessUnfinished(probe.content())
        }
    }

    /// Prefetches the blocks that the probe reads, which would otherwise be read one by one over
    /// the network. Which blocks these are depends on libblkid; this list is for version 2.38, and
    /// missing blocks are only read later.
    private func fetchAhead(_ size: UInt64) {
        let end = Int(clamping: size)
        let (edge, block) = (Limit.probeEdge, Limit.probeBlock)
        let parts = [
            (0, edge), (1 << 20, block), (2 << 20, block), (4 << 20, block),
            (end - 1_580_544, block), (end - edge, edge),
        ]
        for (offset, length) in parts where offset >= 0 && offset + length <= end {
            posix_fadvise(descriptor.rawValue, off_t(offset), off_t(length), POSIX_FADV_WILLNEED)
        }
    }

    /// Throws if the blocks with most signatures cannot be read.
    private func readEnds(_ size: UInt64) throws(OperationError) {
        let block = min(size, UInt64(Limit.probeBlock))
        for offset in [0, size - block, size - min(size, 64 << 10)] {
            _ = try isZero(offset..<offset + block)
        }
    }

    /// libblkid finds nothing: the device is blank, damaged, or has unknown contents.
    private func unrecognised() throws(OperationError) -> DeviceContent {
        let edgesAreZero = try edgesAreZero()
        let isZero = edgesAreZero ? try samplesAreZero() : false
        if isZero { return .blank }
        // Includes superblocks with wrong checksums, which show what was there.
        let probe = try BlkidProbe(self)
        switch try probe.run(damaged: true, doing: doing) {
        case .nothing: return .unknownData
        case .several: return .several(probe.everything())
        case .one: return probe.content()
        }
    }

    /// Whether there is a bcachefs, which libblkid supports only since version 2.39.
    ///
    /// Source: struct bch_sb, BCH_SB_SECTOR, BCHFS_MAGIC and BCACHE_MAGIC in the kernel's
    /// fs/bcachefs/bcachefs_format.h; libblkid itself detects bcache, which has the same magic.
    private func bearsBcachefs() throws(OperationError) -> Bool {
        let magic = try bytes(at: 8 * 512 + 24, count: 16)
        return magic == [
            0xC6, 0x85, 0x73, 0xF6, 0x66, 0xCE, 0x90, 0xA9, 0xD9, 0x6A, 0x60, 0xCF, 0x80, 0x3D,
            0xF7, 0xEF,
        ]
    }

    /// mkfs.xfs keeps sb_inprogress set until everything else is written; the kernel does not mount
    /// such a file system.
    private func unlessUnfinished(_ content: DeviceContent) throws(OperationError) -> DeviceContent
    {
        guard case .fileSystem(type: "xfs", _, _) = content, try xfsSuperblock().isInProgress else {
            return content
        }
        return .unfinished(type: "xfs")
    }

    /// Throws if there are fewer.
    func bytes(at offset: UInt64, count: Int) throws(OperationError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = bytes.withUnsafeMutableBytes {
            pread(descriptor.rawValue, $0.baseAddress, $0.count, off_t(offset))
        }
        guard found == count else { throw unreadable(at: offset, found < 0 ? lastErrno : nil) }
        return bytes
    }

    /// Whether the first and the last MiB are zero. Throws if any part cannot be read.
    private func edgesAreZero() throws(OperationError) -> Bool {
        let size = try size()
        let edge = UInt64(Limit.blankProofEdge)
        let tail = max(size > edge ? size - edge : 0, min(edge, size))
        let head = try isZero(0..<min(edge, size))
        let end = try isZero(tail..<size)
        return head && end
    }

    /// Whether sample blocks spread over the device are zero. A file system whose beginning was
    /// wiped by mistake still has data in between: copies of the superblock (ext4: at 128 MiB), and
    /// files.
    private func samplesAreZero() throws(OperationError) -> Bool {
        let size = try size()
        let block = UInt64(Limit.probeBlock)
        let distance = max(
            size / UInt64(Limit.blankProofSamples) / block * block,
            UInt64(Limit.blankProofDistanceMin))
        let offsets = stride(from: distance, to: size, by: Int(distance)) + [128 << 20]
        let blocks = offsets.filter { $0 + block <= size }.map { $0..<$0 + block }
        for range in blocks {
            // Prefetches all blocks at once; one by one, each would wait for the network.
            posix_fadvise(
                descriptor.rawValue, off_t(range.lowerBound), off_t(block), POSIX_FADV_WILLNEED)
        }
        for range in blocks where try !isZero(range) { return false }
        return true
    }

    private func isZero(_ range: Range<UInt64>) throws(OperationError) -> Bool {
        let chunk = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Limit.probeReadMax, alignment: Limit.probeBlock)
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

    enum Outcome {
        case nothing
        case one
        /// More than one signature claims the device.
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

    /// With `damaged`, superblocks with a wrong checksum count too.
    func run(damaged: Bool = false, doing: String) throws(OperationError) -> Outcome {
        var flags = BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_USAGE
        if damaged { flags |= BLKID_SUBLKS_BADCSUM }
        blkid_probe_enable_superblocks(handle, 1)
        blkid_probe_set_superblocks_flags(handle, flags)
        blkid_probe_enable_partitions(handle, 1)
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

    /// The findings of a run with the outcome `one`: one superblock, one partition table, or both.
    func content() -> DeviceContent {
        let (type, usage, label, uuid) = (
            value("TYPE"), value("USAGE"), value("LABEL"), value("UUID")
        )
        let isDamaged = value("SBBADCSUM") != nil
        let isAlone = value("PTTYPE") == nil
        if let type, usage == "filesystem", !isDamaged, isAlone {
            return .fileSystem(type: type, label: label, uuid: uuid)
        }
        // libblkid stops at the signature of a RAID or of encryption.
        let all = everything()
        if all.count > 1 { return .several(all) }
        let name = all.first ?? "a signature that libblkid does not name"
        return .signature(isDamaged ? "\(name) with a damaged superblock (wrong checksum)" : name)
    }

    /// The names of everything that claims the device.
    func everything() -> [String] {
        var found: [String] = []
        blkid_reset_probe(handle)
        while found.count < Limit.signaturesNamedMax, blkid_do_probe(handle) == 0 {
            let name = value("TYPE") ?? value("PTTYPE").map { "\($0) partition table" }
            if let name, !found.contains(name) { found.append(name) }
        }
        return found
    }

    private func value(_ name: String) -> String? {
        var text: UnsafePointer<CChar>?
        guard blkid_probe_lookup_value(handle, name, &text, nil) == 0, let text else { return nil }
        return String(cString: text)
    }
}
