package import Base
import CLinux
import Glibc
import Ring
import SystemPackage

extension FileSystems {
    /// Makes a mounted file system of `type` as large as its device; nil where it already is, or
    /// where the kernel finds that what is left over is too little to be of use.
    package func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth? {
        let doing = "grow the \(type) of \(volume) (\(device.path)) at \(mountpoint)"
        let tree = tree
        return try await RingActor.ring.blocking { () throws(OperationError) in
            let proven = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
            let root = try openRoot(of: mountpoint, doing: doing)
            let home = try explaining("statx", .system, doing: doing) { () throws(Errno) in
                try Node(descriptor: root.rawValue).home
            }
            guard home == device.number else {
                throw OperationError(
                    .device, doing: doing, found: "device \(home) is mounted there instead")
            }
            return type == "xfs" ? try growXFS(proven, root) : try growExt(proven, root)
        }
    }

    /// Sets what is not nil of the root directory of the file system that is mounted at
    /// `mountpoint`; it is on the disk when this returns.
    package func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws {
        let doing = "set owner and permissions of the new file system of \(volume)"
        try await RingActor.ring.blocking { () throws(OperationError) in
            let root = try openRoot(of: mountpoint, doing: doing)
            try explaining("fchown", .system, doing: doing) { () throws(Errno) in
                if fchown(root.rawValue, uid ?? .max, gid ?? .max) != 0 { throw lastErrno }
            }
            // After fchown, which takes the bits for set-user-id and set-group-id away.
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

private func growXFS(
    _ device: borrowing ProvenDevice, _ root: borrowing Descriptor
) throws(OperationError) -> Growth? {
    func size() throws(OperationError) -> (blocks: UInt64, blockSize: UInt64) {
        var (blocks, blockSize): (UInt64, UInt32) = (0, 0)
        let code = CLinux_xfs_size(root.rawValue, &blocks, &blockSize)
        try explaining("ioctl XFS_IOC_FSGEOMETRY", .system, doing: device.doing) {
            () throws(Errno) in
            if code != 0 { throw Errno(rawValue: code) }
        }
        return (blocks, UInt64(blockSize))
    }
    let old = try size()
    let wanted = try device.size() / old.blockSize
    guard old.blocks < wanted else { return nil }
    let code = CLinux_xfs_grow(root.rawValue, wanted)
    try explaining("ioctl XFS_IOC_FSGROWFSDATA", .system, doing: device.doing) {
        () throws(Errno) in
        if code != 0 { throw Errno(rawValue: code) }
    }
    return growth(from: old.blocks, to: try size().blocks, blockSize: old.blockSize)
}

private func growExt(
    _ device: borrowing ProvenDevice, _ root: borrowing Descriptor
) throws(OperationError) -> Growth? {
    let old = try device.extSuperblock()
    let wanted = try device.size() / old.blockSize
    guard old.blocks < wanted else { return nil }
    let code = CLinux_ext4_grow(root.rawValue, wanted)
    try explaining(
        "ioctl EXT4_IOC_RESIZE_FS", .system, doing: device.doing, advice: extAdvice(code)
    ) { () throws(Errno) in
        if code != 0 { throw Errno(rawValue: code) }
    }
    return growth(
        from: old.blocks, to: try device.extSuperblock().blocks, blockSize: old.blockSize)
}

private func extAdvice(_ code: Int32) -> String? {
    guard code == EPERM else { return nil }
    return "it takes CAP_SYS_RESOURCE, and a file system without known errors; 'resize2fs' on the "
        + "instance does it too"
}

private func growth(from: UInt64, to: UInt64, blockSize: UInt64) -> Growth? {
    from == to ? nil : Growth(from: from * blockSize, to: to * blockSize)
}
