package import Base
import CLinux
import Glibc
package import Ring
import SystemPackage

/// File systems of volumes: what is on a device, making one, mounting and unmounting it.
///
/// Every call that touches a device proves first, on the open device, that it is the volume, and
/// runs on a worker thread, since all of it may wait for the device. Calls for one device must not
/// overlap: the proof that nothing holds it claims it for a moment. Linux 4.11.
@RingActor
package final class FileSystems: Sendable {
    let tree: DeviceTree
    let toolPath: String
    /// The checks that are under way, or whose end no Mount has heard of yet.
    var checks: [VolumeID: FileSystemCheck] = [:]
    /// Where devices are mounted that accepted no writes before.
    private var closedToWrites: Set<String> = []

    /// `toolPath` is the folder of mkfs.xfs, mkfs.ext4 and e2fsck.
    package init(
        devPath: String = "/dev", sysPath: String = "/sys", toolPath: String = "/sbin"
    ) {
        tree = DeviceTree(devPath: devPath, sysPath: sysPath)
        self.toolPath = toolPath
    }

    /// What is on `device`. A read that fails is an error, never a blank device.
    package func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent {
        let doing = "probe \(volume) on \(device.path)"
        let tree = tree
        return try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            try ProvenDevice.open(device, of: volume, in: tree, doing: doing).content()
        }
    }

    /// Mounts the `type` file system of a device that is proved to be the volume, and proves that
    /// it is this device's that is mounted. The directory is made, mode 0755, where it is missing;
    /// its parent must be there, and its path free of links. Refused where the mountpoint or the device is mounted already.
    /// `options` are as mount(8) has them; `nouuid` is added for xfs.
    ///
    /// Without a replay the kernel is told to refuse all writes to the device while it is mounted:
    /// an ext4 that is mounted read-only, even with `norecovery`, still writes what it frees and the
    /// errors that it finds. A device that accepts no writes by itself is mounted the same way.
    ///
    /// The outcome says whether `grow` has something to do; it would take another thread's time to
    /// learn.
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

    /// Unmounts, never lazily, and removes the directory where it is empty. Where nothing is
    /// mounted there is nothing to do, and that is no error. A busy mount is one that names who
    /// uses it, and leaves all as it was.
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

    /// Whether it is this device's file system that is at `mountpoint`, in this mount namespace. The
    /// mountpoint's last part may be the volume's id.
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

    /// Whose workers a call takes that names the device alone. On Xen that does not tell the volume.
    private func owner(of device: BlockDevice) -> BlockingOwner {
        let serial = tree.serial(of: baseName(of: device.path))
        let volume = serial.flatMap { VolumeID("vol-" + $0.dropFirst(3)) }
        return volume.map { .volume($0) } ?? .device(device.number)
    }

    /// What has been under way on the volume's device for longest: a system call, or a program.
    package func workUnderWay(on volume: VolumeID) -> WorkUnderWay? {
        RingActor.ring.workUnderWay(for: .volume(volume))
    }

    /// Who uses the file system of `device`, as far as /proc shows it, one text each; for messages.
    /// Empty proves nothing: processes of other PID namespaces may not be seen.
    package func holders(of device: BlockDevice) async -> [String] {
        await RingActor.ring.blocking(
            for: owner(of: device), doing: "find who uses \(device.path)"
        ) { Holders.find(of: device.number) }
    }

    /// All that is mounted in this process's mount namespace, bind mounts too, in the kernel's
    /// order: of two on one mountpoint, the later one is on top.
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
        // By a mount of another namespace, which may be writing: its writes are not to fail. The
        // kernel shares a file system that is mounted read-only, and refuses a writable one.
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

/// Has the kernel accept writes again to the device of a file system that was mounted read-only,
/// also by an earlier run of the daemon. What has gone meanwhile needs it no more.
private func allowWrites(to mounted: MountInfoLine) {
    guard let descriptor = try? openDevice(mounted.source, exclusive: false),
        (try? Node(descriptor: descriptor.rawValue))?.blockDevice == mounted.device
    else { return }
    _ = CLinux_set_device_read_only(descriptor.rawValue, false)
}
