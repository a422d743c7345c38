package import Base
import CLinux
import Glibc
package import Ring
import SystemPackage

/// File systems of volumes: probing, creating, mounting and unmounting them.
///
/// Every call that touches a device first proves, on the open device, that it is the volume. It
/// runs on a worker thread, because any operation may wait for the device. Calls for one device
/// must not overlap: the proof that nothing holds the device claims it for a moment. Needs Linux
/// 4.11.
@RingActor
package final class FileSystems: Sendable {
    let tree: DeviceTree
    let toolPath: String
    /// The checks that are running, or whose result no Mount has received yet.
    var checks: [VolumeID: FileSystemCheck] = [:]
    /// The mountpoints of devices that did not accept writes before they were mounted.
    private var closedToWrites: Set<String> = []

    /// `toolPath` is the folder of mkfs.xfs, mkfs.ext4 and e2fsck.
    package init(
        devPath: String = "/dev", sysPath: String = "/sys", toolPath: String = "/sbin"
    ) {
        tree = DeviceTree(devPath: devPath, sysPath: sysPath)
        self.toolPath = toolPath
    }

    /// What is on `device`. A failed read is an error, never a blank device.
    package func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent {
        let doing = "probe \(volume) on \(device.path)"
        let tree = tree
        return try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            try ProvenDevice.open(device, of: volume, in: tree, doing: doing).content()
        }
    }

    /// Mounts the `type` file system of a device that is proved to be the volume, and proves that
    /// this device was mounted. Creates the directory (mode 0755) if it is missing; its parent must
    /// exist, and its path must not contain links. Fails if the mountpoint or the device is already
    /// mounted. `options` are those of mount(8); `nouuid` is added for xfs.
    ///
    /// To mount without a replay, the kernel is told to reject all writes to the device while it is
    /// mounted: an ext4 that is mounted read-only, even with `norecovery`, still frees orphaned
    /// files and records errors. A device that itself accepts no writes is mounted in the same way.
    ///
    /// The outcome says whether `grow` has something to do, which saves another call on a worker.
    @discardableResult
    package func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome {
        let doing = "mount \(volume) (\(device.path)) at \(mountpoint)"
        let options = MountOptions(
            type: type, readOnly: access != .writable, options: options)
        let tree = tree
        let (outcome, wasClosed) = try await RingActor.ring.blocking(
            for: .volume(volume), doing: doing
        ) {
            () throws(OperationError) in
            let proven = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
            let isClosed = access != .writable && proven.acceptsNoWrites
            guard access == .withoutReplay, !isClosed else {
                return (try mountedPlainly(proven, type, at: mountpoint, options), isClosed)
            }
            return (try mountedWithoutWrites(proven, type, at: mountpoint, options), false)
        }
        if wasClosed {
            closedToWrites.insert(mountpoint)
        } else {
            closedToWrites.remove(mountpoint)
        }
        return outcome
    }

    /// Unmounts, never lazily, and removes the directory if it is empty. It is not an error if
    /// nothing is mounted. If the mount is busy, nothing changes, and the error names who uses it.
    package func unmount(_ mountpoint: String, of volume: VolumeID) async throws {
        let doing = "unmount \(volume) from \(mountpoint)"
        let staysClosed = closedToWrites.contains(mountpoint)
        try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            let unmounted = try unmountTop(at: mountpoint, doing: doing)
            if let unmounted, unmounted.readOnly, !staysClosed { allowWrites(to: unmounted) }
        }
        closedToWrites.remove(mountpoint)
    }

    /// Whether this device's file system is mounted at `mountpoint` in this mount namespace. The
    /// last component of the mountpoint may be the volume's id.
    package func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState {
        let doing = "look at what is mounted at \(mountpoint)"
        let volume = VolumeID(baseName(of: mountpoint))
        let owner = volume.map { .volume($0) } ?? owner(of: device)
        return await RingActor.ring.blocking(for: owner, doing: doing) {
            do throws(Errno) {
                let home = try Node(mountpoint, following: false).home
                return home == device.number ? .mounted : .notMounted
            } catch {
                // A file system that has shut down answers EIO.
                let mounted = try? MountTable(doing: doing).top(at: mountpoint)
                return mounted?.device == device.number ? .broken : .notMounted
            }
        }
    }

    /// Whether a mount in any mount namespace, swap or RAID holds the device. A program that merely
    /// has the device open does not count.
    package func isHeld(_ device: BlockDevice) async throws -> Bool {
        let doing = "see whether \(device.path) is in use"
        return try await RingActor.ring.blocking(for: owner(of: device), doing: doing) {
            () throws(OperationError) in
            try explaining("open", .device, doing: doing) { () throws(Errno) in
                try isClaimed(device)
            }
        }
    }

    /// Whose workers a call uses that names only the device. On Xen the device does not identify
    /// the volume.
    private func owner(of device: BlockDevice) -> BlockingOwner {
        let serial = tree.serial(of: baseName(of: device.path))
        let volume = serial.flatMap { VolumeID("vol-" + $0.dropFirst(3)) }
        return volume.map { .volume($0) } ?? .device(device.number)
    }

    /// The system call or program that has been running on the volume's device for longest.
    package func workUnderWay(on volume: VolumeID) -> WorkUnderWay? {
        RingActor.ring.workUnderWay(for: .volume(volume))
    }

    /// Who uses the file system of `device`, as far as /proc shows it: one text per user, for
    /// messages. An empty result proves nothing, because processes of other PID namespaces may not
    /// be visible.
    package func holders(of device: BlockDevice) async -> [String] {
        await RingActor.ring.blocking(
            for: owner(of: device), doing: "find who uses \(device.path)"
        ) { Holders.find(of: device.number) }
    }

    /// All mounts in this process's mount namespace, including bind mounts, in the kernel's order:
    /// of two on one mountpoint, the later one is on top.
    package func mounted() async throws -> [MountedFileSystem] {
        let doing = "list what is mounted"
        return try await RingActor.ring.blocking(doing: doing) { () throws(OperationError) in
            try MountTable(doing: doing).lines.map {
                MountedFileSystem(
                    mountpoint: $0.mountpoint, device: $0.device, type: $0.type,
                    source: $0.source, readOnly: $0.readOnly,
                    mayBeOutdated: $0.skipsReplay)
            }
        }
    }

    package nonisolated func kernelRelease() -> String { runningKernelRelease() }
}

private func mountedPlainly(
    _ device: borrowing ProvenDevice, _ type: String, at mountpoint: String,
    _ options: MountOptions
) throws(OperationError) -> MountOutcome {
    let isOutdated = try mountProven(device, type: type, at: mountpoint, options: options)
    return MountOutcome(
        canGrow: canGrow(device, type: type, at: mountpoint), mayBeOutdated: isOutdated)
}

private func mountedWithoutWrites(
    _ device: borrowing ProvenDevice, _ type: String, at mountpoint: String,
    _ options: MountOptions
) throws(OperationError) -> MountOutcome {
    let isHeld = try explaining("open", .device, doing: device.doing) { () throws(Errno) in
        try isClaimed(device.device)
    }
    guard !isHeld else {
        // A mount in another namespace holds it and may be writing; its writes must not fail. The
        // kernel shares a file system that is mounted read-only, and rejects a writable one.
        var outcome = try mountedPlainly(device, type, at: mountpoint, options.withoutReplay)
        outcome.mayBeOutdated = true
        return outcome
    }
    try device.refuseWrites(true)
    do throws(OperationError) {
        return try mountedPlainly(device, type, at: mountpoint, options)
    } catch {
        try? device.refuseWrites(false)
        throw error
    }
}

/// Makes the kernel accept writes again to the device of a file system that was mounted read-only,
/// possibly by an earlier run of the daemon. A device that has disappeared needs nothing.
private func allowWrites(to mounted: MountInfoLine) {
    guard let descriptor = try? openDevice(mounted.source, exclusive: false),
        (try? Node(descriptor: descriptor.rawValue))?.blockDevice == mounted.device
    else { return }
    _ = CLinux_set_device_read_only(descriptor.rawValue, false)
}
