import Base
import Glibc
import Ring
import SystemPackage

/// Why the kernel does not mount a file system, as far as its superblock shows: mount(2) returns
/// EINVAL or EIO for almost everything.
struct MountRefusal {
    /// A reason, and what can be done about it.
    struct Finding: Equatable {
        var found: String
        var advice: String
    }

    /// The facts other than the superblock.
    struct Circumstances {
        var deviceSize: UInt64
        var pageSize: UInt64
        /// `6.1.0-18-amd64`.
        var kernelRelease: String
        var isWritable: Bool
        var deviceAcceptsNoWrites: Bool
    }

    /// A feature that the kernel must support, and the first version of Linux that does; nil if
    /// none does.
    private struct Feature {
        var bit: UInt32
        var name: String
        var since: (Int, Int)?
    }

    /// The error for a mount(2) that ended with `error`.
    static func error(
        _ error: Errno, type: String, _ device: borrowing ProvenDevice, isWritable: Bool
    ) -> OperationError {
        let findings = findings(error, type: type, device, isWritable: isWritable)
        let call = refusal(of: "mount(2) as \(type)", error)
        return OperationError(
            .system, doing: device.doing,
            found: ([call] + findings.map(\.found)).joined(separator: "; "),
            advice: findings.isEmpty
                ? general : findings.map(\.advice).joined(separator: "; "))
    }

    private static let general =
        "'dmesg' on the instance has the kernel's reason; 'busy' means that another mount holds "
        + "the device, 'structure needs cleaning' that the file system is damaged: take a snapshot "
        + "of the volume, then repair it by hand with xfs_repair or e2fsck"

    private static func findings(
        _ error: Errno, type: String, _ device: borrowing ProvenDevice, isWritable: Bool
    ) -> [Finding] {
        if error == .operationNotSupportedByDevice {
            return [
                Finding(
                    found: "the kernel has no driver for it",
                    advice: "load its module on the instance with 'modprobe \(type)'")
            ]
        }
        // "Busy" says nothing about the contents.
        guard error != .resourceBusy else { return [] }
        do throws(OperationError) {
            let circumstances = Circumstances(
                deviceSize: try device.size(), pageSize: UInt64(sysconf(Int32(_SC_PAGESIZE))),
                kernelRelease: runningKernelRelease(), isWritable: isWritable,
                deviceAcceptsNoWrites: device.acceptsNoWrites)
            return type == "xfs"
                ? try findings(device.xfsSuperblock(), circumstances)
                : try findings(device.extSuperblock(), circumstances)
        } catch {
            return [Finding(found: error.found, advice: error.advice ?? general)]
        }
    }

    static func findings(_ xfs: XFSSuperblock, _ now: Circumstances) -> [Finding] {
        var findings = common(
            bytes: product(xfs.blocks, xfs.blockSize), blockSize: xfs.blockSize,
            largeBlocksSince: (6, 12), now)
        if xfs.hasExternalLog {
            findings.append(
                Finding(
                    found: "its log is on another device",
                    advice: "only an xfs with an internal log is supported: copy its data to a new "
                        + "volume"))
        }
        if xfs.realtimeBlocks > 0 {
            findings.append(
                Finding(
                    found: "part of its data is on a realtime device",
                    advice: "only an xfs on one device is supported: copy its data to a new volume")
            )
        }
        if xfs.version < 5 {
            findings.append(
                Finding(
                    found: "its format is version 4, which kernels without CONFIG_XFS_SUPPORT_V4 "
                        + "do not know",
                    advice: "mount it with an older kernel, and copy its data to a new volume"))
        }
        if xfs.needsRepair {
            findings.append(
                Finding(
                    found: "it is marked as needing xfs_repair",
                    advice: "take a snapshot of the volume, then run 'xfs_repair' on it by hand"))
        }
        findings += unknown(xfs.incompatibleFeatures, of: xfsIncompatible, "incompatible", now)
        if now.isWritable {
            findings += unknown(xfs.readOnlyFeatures, of: xfsReadOnly, "read-only", now)
        }
        return findings
    }

    static func findings(_ ext: ExtSuperblock, _ now: Circumstances) -> [Finding] {
        var findings = common(
            bytes: product(ext.blocks, ext.blockSize), blockSize: ext.blockSize,
            largeBlocksSince: (6, 19), now)
        if ext.hasExternalJournal {
            findings.append(
                Finding(
                    found: "its journal is on another device",
                    advice: "attach that device by hand, and make the journal internal by "
                        + "'tune2fs -O ^has_journal' and then 'tune2fs -j'"))
        }
        findings += unknown(ext.incompatibleFeatures, of: extIncompatible, "incompatible", now)
        if now.isWritable {
            findings += unknown(ext.readOnlyFeatures, of: extReadOnly, "read-only", now)
        }
        return findings
    }

    private static func common(
        bytes: UInt64, blockSize: UInt64, largeBlocksSince: (Int, Int), _ now: Circumstances
    ) -> [Finding] {
        var findings: [Finding] = []
        if bytes > now.deviceSize {
            let gibibytes = bytes / (1 << 30) + (bytes % (1 << 30) == 0 ? 0 : 1)
            findings.append(
                Finding(
                    found: "its file system is \(bytes) bytes long, and the device only "
                        + "\(now.deviceSize)",
                    advice:
                        "enlarge the volume to \(gibibytes) GiB, the size of the volume that it "
                        + "was copied from"))
        }
        if blockSize > now.pageSize, version(now.kernelRelease) < largeBlocksSince {
            findings.append(
                Finding(
                    found: "its blocks, of \(blockSize) bytes, are larger than this machine's "
                        + "pages, of \(now.pageSize)",
                    advice:
                        "this needs Linux \(largeBlocksSince.0).\(largeBlocksSince.1) or later, and "
                        + "the instance runs \(now.kernelRelease)"))
        }
        if now.isWritable, now.deviceAcceptsNoWrites {
            findings.append(
                Finding(
                    found: "the device accepts no writes",
                    advice:
                        "look at 'lsblk -o NAME,RO'; if somebody disabled writes, 'blockdev "
                        + "--setrw' enables them again; or create the volume with -o read-only=true"
                ))
        }
        return findings
    }

    /// The features among `bits` that this kernel does not support.
    private static func unknown(
        _ bits: UInt32, of features: [Feature], _ kind: String, _ now: Circumstances
    ) -> [Finding] {
        let known = features.reduce(0) { $0 | $1.bit }
        var names = features.compactMap { feature -> String? in
            guard bits & feature.bit != 0 else { return nil }
            guard let since = feature.since else { return "\(feature.name) (no Linux has it)" }
            guard version(now.kernelRelease) < since else { return nil }
            return "\(feature.name) (since Linux \(since.0).\(since.1))"
        }
        if bits & ~known != 0 {
            names.append("0x\(String(bits & ~known, radix: 16)), unknown here")
        }
        guard !names.isEmpty else { return [] }
        let effect = kind == "read-only" ? " that prevent a kernel without them from writing" : ""
        return [
            Finding(
                found: "it has \(kind) features\(effect): \(names.joined(separator: ", "))",
                advice: "the instance runs Linux \(now.kernelRelease): use a newer kernel"
                    + (kind == "read-only" ? ", or create the volume with -o read-only=true" : ""))
        ]
    }

    /// XFS_SB_FEAT_INCOMPAT_… of fs/xfs/libxfs/xfs_format.h. NEEDSREPAIR is reported separately.
    private static let xfsIncompatible = [
        Feature(bit: 0x1, name: "ftype", since: (3, 10)),
        Feature(bit: 0x2, name: "sparse inodes", since: (4, 2)),
        Feature(bit: 0x4, name: "meta_uuid", since: (4, 3)),
        Feature(bit: 0x8, name: "bigtime", since: (5, 10)),
        Feature(bit: 0x10, name: "needsrepair", since: (0, 0)),
        Feature(bit: 0x20, name: "nrext64", since: (5, 19)),
        Feature(bit: 0x40, name: "exchange", since: (6, 10)),
        Feature(bit: 0x80, name: "parent", since: (6, 10)),
        Feature(bit: 0x100, name: "metadir", since: (6, 13)),
        Feature(bit: 0x200, name: "zoned", since: (6, 15)),
        Feature(bit: 0x400, name: "zone gaps", since: (6, 15)),
    ]

    /// XFS_SB_FEAT_RO_COMPAT_… of the same.
    private static let xfsReadOnly = [
        Feature(bit: 0x1, name: "finobt", since: (3, 16)),
        Feature(bit: 0x2, name: "rmapbt", since: (4, 8)),
        Feature(bit: 0x4, name: "reflink", since: (4, 9)),
        Feature(bit: 0x8, name: "inobtcount", since: (5, 10)),
    ]

    /// EXT4_FEATURE_INCOMPAT_… of fs/ext4/ext4.h.
    private static let extIncompatible = [
        Feature(bit: 0x1, name: "compression", since: nil),
        Feature(bit: 0x2 | 0x4 | 0x10 | 0x40 | 0x80, name: "those of all kernels", since: (0, 0)),
        Feature(bit: 0x8, name: "journal_dev", since: nil),
        Feature(bit: 0x100, name: "mmp", since: (3, 0)),
        Feature(bit: 0x200, name: "flex_bg", since: (2, 6)),
        Feature(bit: 0x400, name: "ea_inode", since: (4, 13)),
        Feature(bit: 0x1000, name: "dirdata", since: nil),
        Feature(bit: 0x2000, name: "metadata_csum_seed", since: (4, 4)),
        Feature(bit: 0x4000, name: "large_dir", since: (4, 13)),
        Feature(bit: 0x8000, name: "inline_data", since: (3, 8)),
        Feature(bit: 0x1_0000, name: "encrypt", since: (4, 1)),
        Feature(bit: 0x2_0000, name: "casefold", since: (5, 2)),
    ]

    /// EXT4_FEATURE_RO_COMPAT_… of the same.
    private static let extReadOnly = [
        Feature(bit: 0x1 | 0x2 | 0x4, name: "those of all kernels", since: (0, 0)),
        Feature(bit: 0x8 | 0x10 | 0x20 | 0x40, name: "those of ext4", since: (2, 6)),
        Feature(bit: 0x80, name: "has_snapshot", since: nil),
        Feature(bit: 0x100, name: "quota", since: (3, 6)),
        Feature(bit: 0x200, name: "bigalloc", since: (3, 2)),
        Feature(bit: 0x400, name: "metadata_csum", since: (3, 6)),
        Feature(bit: 0x800, name: "replica", since: nil),
        Feature(bit: 0x1000, name: "read-only", since: nil),
        Feature(bit: 0x2000, name: "project", since: (4, 5)),
        Feature(bit: 0x4000, name: "shared_blocks", since: nil),
        Feature(bit: 0x8000, name: "verity", since: (5, 4)),
        Feature(bit: 0x1_0000, name: "orphan_present", since: (5, 15)),
    ]

    private static func product(_ count: UInt64, _ size: UInt64) -> UInt64 {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
        return overflow ? .max : bytes
    }

    private static func version(_ release: String) -> (Int, Int) {
        let numbers = release.split(whereSeparator: { !$0.isNumber }).prefix(2).map { Int($0) ?? 0 }
        return (numbers.first ?? 0, numbers.dropFirst().first ?? 0)
    }
}
