import Base
import CLinux
import Glibc
import Ring
import SystemPackage

/// Mounts a proven device's file system, and proves that it is this one that is mounted. Blocks.
///
/// Afterwards either all is done, or nothing is left mounted and no directory left behind. Returns
/// whether the journal holds what was not replayed, which only happens on a device that accepts no
/// writes.
func mountProven(
    _ device: borrowing ProvenDevice, type: String, at mountpoint: String, options: MountOptions
) throws(OperationError) -> Bool {
    let doing = device.doing
    precondition(mountpoint.hasPrefix("/"), "a mountpoint is absolute")
    guard type != "btrfs" else {
        throw OperationError(
            .content, doing: doing,
            found: "the device has a btrfs, whose mount cannot be proved to be of this device",
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

/// Returns whether the journal had to be replayed and was not.
///
/// On a device that accepts no writes the kernel answers EROFS just where there is something to
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

/// Returns whether the directory was made. Its parents must be there.
private func makeMountpoint(_ path: String, doing: String) throws(OperationError) -> Bool {
    try explaining(
        "mkdir \(path)", .system, doing: doing,
        advice: "see that its parent is a directory on a writable file system"
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
            advice: "where its file system has shut down ('dmesg' has the reason), stop every "
                + "container that still has the volume, and mount it again")
    }
    guard home != device.device.number else { return }
    takeBack(device, from: mountpoint)
    throw OperationError(
        .device, doing: device.doing,
        found: "what was mounted is device \(home), not \(device.device.number)",
        advice: "it was unmounted again; look at 'dmesg' on the instance")
}

/// Unmounts what was just mounted: at its path, and where else the kernel says that the device is, for
/// the directory may have been moved meanwhile.
private func takeBack(_ device: borrowing ProvenDevice, from mountpoint: String) {
    umount2(mountpoint, Int32(UMOUNT_NOFOLLOW))
    let table = try? MountTable(doing: device.doing)
    for line in table?.mounts(of: device.device.number) ?? [] {
        umount2(line.mountpoint, Int32(UMOUNT_NOFOLLOW))
    }
}

/// Unmounts what is on top at `mountpoint`, never lazily and never by force, and removes the
/// directory where it is empty. Returns what was unmounted, nil where nothing was. Blocks while data
/// is written.
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
                found: "beneath it, \(beneath.source) (device \(beneath.device)) is mounted too",
                advice: "unmount it with 'umount \(mountpoint)'")
        }
    }
    // Where it is not empty, someone wrote there while nothing was mounted, and that is theirs to
    // remove. A copy of the mount that another namespace still has at this very directory, as one
    // that shows all of the host's file system, is detached by this (Linux 3.18, rmdir(2)); one at
    // a directory of the container's own stays, and holds the device.
    if rmdir(mountpoint) != 0, lastErrno == .resourceBusy {
        throw OperationError(
            .system, doing: doing,
            found: refusal(of: "rmdir", .resourceBusy)
                + ", so something is mounted there that /proc/self/mountinfo shows elsewhere",
            advice: "see 'findmnt', and unmount it with 'umount'")
    }
    return mounted
}

private func unmountRefused(
    _ error: Errno, _ mounted: MountInfoLine, in table: MountTable, doing: String
) -> OperationError {
    var found = refusal(of: "umount2", error)
    var advice = "'dmesg' on the instance may tell more"
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
