package import Base
import CLinux
import Glibc
import Ring
import SystemPackage

extension FileSystems {
    /// Grows a mounted file system of `type` to the size of its device. Returns nil if it already
    /// has that size, or if the kernel considers the remaining space too small to be usable.
    package func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth? {
        let doing = "grow the \(type) of \(volume) (\(device.path)) at \(mountpoint)"
        let tree = tree
        return try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            let proven = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
            let root = try openRoot(of: mountpoint, doing: doing)
            let home = try explaining("statx", .system, doing: doing) { () throws(Errno) in
                try Node(descriptor: root.rawValue).home
            }
            guard home == device.number else {
                throw OperationError(
                    .device, doing: doing, found: "device \(home) is mounted there instead")
            }
            return try growMounted(type, proven, root)
        }
    }

    /// Sets those attributes that are not nil on the root directory of the file system that is
    /// mounted at `mountpoint`. They are on disk when this returns.
    package func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws {
        let doing = "set owner and permissions of the new file system of \(volume)"
        try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            let root = try openRoot(of: mountpoint, doing: doing)
            try explaining("fchown", .system, doing: doing) { () throws(Errno) in
                if fchown(root.rawValue, uid ?? .max, gid ?? .max) != 0 { throw lastErrno }
            }
            // After fchown, which clears the set-user-id and set-group-id bits.
            try explaining("fchmod", .system, doing: doing) { () throws(Errno) in
                if let mode, fchmod(root.rawValue, mode) != 0 { throw lastErrno }
            }
            try explaining("fsync", .system, doing: doing) { () throws(Errno) in
                if fsync(root.rawValue) != 0 { throw lastErrno }
            }
        }
    }
}

private func openRoot(of mountpoint: String, doing: String) throws(OperationError) -> Descriptor {
    try explaining("open \(mountpoint)", .system, doing: doing) { () throws(Errno) in
        let root = open(mountpoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard root >= 0 else { throw lastErrno }
        return Descriptor(owning: root)
    }
}

/// Whether a mounted file system is smaller than its device. If this cannot be determined, `grow`
/// will report why.
func canGrow(_ device: borrowing ProvenDevice, type: String, at mountpoint: String) -> Bool {
    do throws(OperationError) {
        let root = try openRoot(of: mountpoint, doing: device.doing)
        return try FileSystemSize(of: type, device, root).blocks(toFill: device) != nil
    } catch {
        return true
    }
}

/// The size of a mounted file system.
private struct FileSystemSize {
    private var blocks: UInt64 = 0
    private let blockSize: UInt64

    init(
        of type: String, _ device: borrowing ProvenDevice, _ root: borrowing Descriptor
    ) throws(OperationError) {
        guard type == "xfs" else {
            let superblock = try device.extSuperblock()
            (blocks, blockSize) = (superblock.blocks, superblock.blockSize)
            return
        }
        var blockSize: UInt32 = 0
        let code = CLinux_xfs_size(root.rawValue, &blocks, &blockSize)
        try explaining(
            "ioctl XFS_IOC_FSGEOMETRY", .system, doing: device.doing
        ) { () throws(Errno) in
            if code != 0 { throw Errno(rawValue: code) }
        }
        self.blockSize = UInt64(blockSize)
    }

    /// The device's size in blocks; nil if the file system already has as many.
    func blocks(toFill device: borrowing ProvenDevice) throws(OperationError) -> UInt64? {
        let wanted = try device.size() / blockSize
        return blocks < wanted ? wanted : nil
    }

    func growth(to new: FileSystemSize) -> Growth? {
        guard blocks != new.blocks else { return nil }
        return Growth(from: blocks * blockSize, to: new.blocks * blockSize)
    }
}

private func growMounted(
    _ type: String, _ device: borrowing ProvenDevice, _ root: borrowing Descriptor
) throws(OperationError) -> Growth? {
    let old = try FileSystemSize(of: type, device, root)
    guard let wanted = try old.blocks(toFill: device) else { return nil }
    let isXFS = type == "xfs"
    let code =
        isXFS ? CLinux_xfs_grow(root.rawValue, wanted) : CLinux_ext4_grow(root.rawValue, wanted)
    try explaining(
        isXFS ? "ioctl XFS_IOC_FSGROWFSDATA" : "ioctl EXT4_IOC_RESIZE_FS", .system,
        doing: device.doing, advice: isXFS ? nil : extAdvice(code)
    ) { () throws(Errno) in
        if code != 0 { throw Errno(rawValue: code) }
    }
    return old.growth(to: try FileSystemSize(of: type, device, root))
}

private func extAdvice(_ code: Int32) -> String? {
    guard code == EPERM else { return nil }
    return "this needs CAP_SYS_RESOURCE and a file system without known errors; 'resize2fs' on the "
        + "instance also works"
}
