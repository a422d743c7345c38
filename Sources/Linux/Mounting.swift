import Base
import CLinux
import Glibc
import Ring
import SystemPackage

/// Mounts the file system of a proven device, and proves that this file system was mounted. Blocks.
///
/// Either succeeds, or leaves nothing mounted and no new directory. Returns whether the journal was
/// not replayed although it is not empty, which happens only on a device that accepts no writes.
func mountProven(
    _ device: borrowing ProvenDevice, type: String, at mountpoint: String, options: MountOptions
) throws(OperationError) -> Bool {
    let doing = device.doing
    precondition(mountpoint.hasPrefix("/"), "a mountpoint is absolute")
    guard type != "btrfs" else {
        throw OperationError(
            .content, doing: doing,
            found:
                "the device has a btrfs, whose mount cannot be proved to be of this device",
            advice: "copy its data to a volume with xfs or ext4")
    }
    try refuseUsed(device, mountpoint)
    let isNew = try makeMountpoint(mountpoint, doing: doing)
    do {
        let target = try MountTarget(mountpoint, doing: doing)
        let isOutdated = try mountOrSkipReplay(device, type: type, at: target, options)
        try proveMounted(device, at: mountpoint)
        return isOutdated
    } catch {
        if isNew { rmdir(mountpoint) }
        throw error
    }
}

/// Returns whether the journal should have been replayed and was not.
///
/// On a device that accepts no writes, the kernel returns EROFS only if there is something to
/// replay: xlog_recover in fs/xfs/xfs_log_recover.c, ext4_load_journal in fs/ext4/super.c.
private func mountOrSkipReplay(
    _ device: borrowing ProvenDevice, type: String, at target: borrowing MountTarget,
    _ options: MountOptions
) throws(OperationError) -> Bool {
    do throws(Errno) {
        try target.mount(device.device, type: type, options)
        return false
    } catch {
        guard error == .readOnlyFileSystem, options.isReadOnly, device.acceptsNoWrites else {
            throw MountRefusal.error(
                error, type: type, device, isWritable: !options.isReadOnly)
        }
    }
    do throws(Errno) {
        try target.mount(device.device, type: type, options.withoutReplay)
        return true
    } catch {
        throw MountRefusal.error(error, type: type, device, isWritable: false)
    }
}

private func refuseUsed(
    _ device: borrowing ProvenDevice, _ mountpoint: String
) throws(OperationError) {
    let table = try MountTable(doing: device.doing)
    if let used = table.top(at: mountpoint) {
        throw OperationError(
            .system, doing: device.doing,
            found: "\(used.source) (\(used.type), device \(used.device)) is mounted there already",
            advice: "unmount it, or stop what uses it")
    }
    if let used = table.mounts(of: device.device.number).first {
        throw OperationError(
            .system, doing: device.doing,
            found: "the device is mounted already, at \(used.mountpoint)",
            advice: "unmount it there first")
    }
}

/// Returns whether the directory was created. Its parent must exist.
private func makeMountpoint(_ path: String, doing: String) throws(OperationError) -> Bool {
    try explaining(
        "mkdir \(path)", .system, doing: doing,
        advice: "check that its parent is a directory on a writable file system"
    ) { () throws(Errno) in
        if mkdir(path, 0o755) == 0 {
            // mkdir applies the umask.
            if chmod(path, 0o755) != 0 { throw lastErrno }
            return true
        }
        guard lastErrno == .fileExists else { throw lastErrno }
        guard try Node(path, following: false).isDirectory else { throw .notDirectory }
        return false
    }
}

private func proveMounted(
    _ device: borrowing ProvenDevice, at mountpoint: String
) throws(OperationError) {
    let home: DeviceNumber
    do throws(Errno) { home = try Node(mountpoint, following: false).home } catch {
        takeBack(device, from: mountpoint)
        throw OperationError(
            .device, doing: device.doing,
            found: "what was mounted cannot be read: \(refusal(of: "statx", error))",
            advice: "if its file system has shut down ('dmesg' has the reason), stop every "
                + "container that still uses the volume, and mount it again")
    }
    guard home != device.device.number else { return }
    takeBack(device, from: mountpoint)
    throw OperationError(
        .device, doing: device.doing,
        found: "what was mounted is device \(home), not \(device.device.number)",
        advice: "it was unmounted again; look at 'dmesg' on the instance")
}

/// Unmounts what was just mounted: at its path, and where else the kernel says that the device is,
/// for the directory may have been moved meanwhile.
private func takeBack(_ device: borrowing ProvenDevice, from mountpoint: String) {
    umount2(mountpoint, Int32(UMOUNT_NOFOLLOW))
    let table = try? MountTable(doing: device.doing)
    for line in table?.mounts(of: device.device.number) ?? [] {
        umount2(line.mountpoint, Int32(UMOUNT_NOFOLLOW))
    }
}

/// Unmounts the topmost mount at `mountpoint`, never lazily and never by force, and removes the
/// directory if it is empty. Returns what was unmounted; nil if nothing was. Blocks while data is
/// written.
@discardableResult
func unmountTop(at mountpoint: String, doing: String) throws(OperationError) -> MountInfoLine? {
    let table = try MountTable(doing: doing)
    let mounted = table.top(at: mountpoint)
    if let mounted {
        ChildProcess.awaitStarts()
        if umount2(mountpoint, Int32(UMOUNT_NOFOLLOW)) != 0 {
            throw unmountRefused(lastErrno, mounted, in: table, doing: doing)
        }
        if let beneath = try MountTable(doing: doing).top(at: mountpoint) {
            throw OperationError(
                .system, doing: doing,
                found: "\(beneath.source) (device \(beneath.device)) is also mounted, beneath it",
                advice: "unmount it with 'umount \(mountpoint)'")
        }
    }
    // If it is not empty, somebody wrote to it while nothing was mounted, and must remove that. If
    // another namespace still has a copy of the mount at this very directory, for example because
    // it shows the host's whole file system, this detaches the copy (Linux 3.18, rmdir(2)). A copy
    // at another directory stays, and holds the device.
    if rmdir(mountpoint) != 0, lastErrno == .resourceBusy {
        throw OperationError(
            .system, doing: doing,
            found: refusal(of: "rmdir", .resourceBusy)
                + ", so something is mounted there that /proc/self/mountinfo shows at another path",
            advice: "find it with 'findmnt', and unmount it with 'umount'")
    }
    return mounted
}

private func unmountRefused(
    _ error: Errno, _ mounted: MountInfoLine, in table: MountTable, doing: String
) -> OperationError {
    var found = refusal(of: "umount2", error)
    var advice = "'dmesg' on the instance may have details"
    if error == .resourceBusy {
        let below = table.mounts(below: mounted.mountpoint).map(\.mountpoint)
        if below.isEmpty {
            found += ", " + Holders.text(of: mounted.device)
        } else {
            found += ", there are mounts below it: " + below.joined(separator: ", ")
        }
        advice = "stop what uses it; nothing was unmounted"
    }
    return OperationError(.system, doing: doing, found: found, advice: advice)
}
