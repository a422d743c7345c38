import Base
import CLinux
import Glibc
import Ring
import SystemPackage

/// A volume's device, or a partition of it, held open, whose identity was proved on the open
/// descriptor.
///
/// While it is open, the kernel does not give its number to another device, so an operation by its
/// path or number affects this volume or none. Every call may block, so it must run on a worker
/// thread.
struct ProvenDevice: ~Copyable {
    let descriptor: Descriptor
    let device: BlockDevice
    /// What the device is used for, for errors: `probe vol-… on /dev/nvme1n1`.
    let doing: String

    private init(_ descriptor: consuming Descriptor, _ device: BlockDevice, doing: String) {
        self.descriptor = descriptor
        self.device = device
        self.doing = doing
    }

    /// Opens the device and proves its identity. Fails closed: if something cannot be read or does
    /// not match, the device is not the volume. With `exclusive`, also proves that no mount in any
    /// namespace, no swap and no RAID holds the device.
    static func open(
        _ device: BlockDevice, of volume: VolumeID, in tree: DeviceTree, exclusive: Bool = false,
        doing: String
    ) throws(OperationError) -> ProvenDevice {
        let descriptor = try explaining(
            "open", .device, doing: doing,
            advice:
                "'busy' means that a mount, perhaps in another namespace, holds it; a missing node "
                + "means that the volume was detached"
        ) { () throws(Errno) in
            try openDevice(device.path, exclusive: exclusive)
        }
        let proven = ProvenDevice(descriptor, device, doing: doing)
        try proven.proveNumber()
        let name = baseName(of: device.path)
        if isNVMe(diskName(of: name)) {
            try proven.proveSerial(name, of: volume, in: tree)
        } else {
            try proven.proveXen(name, in: tree)
        }
        return proven
    }

    /// A Xen device contains no information about the volume: only its name, by which it was found,
    /// and its number can be checked.
    private func proveXen(_ name: String, in tree: DeviceTree) throws(OperationError) {
        let disk = diskName(of: name)
        guard xenNames(for: disk).contains(disk) else {
            throw mismatch("\(name) is neither an NVMe disk's name nor a Xen disk's")
        }
        if let number = tree.number(of: name), number != device.number {
            throw mismatch("it is device \(device.number), but sysfs has \(number) for \(name)")
        }
    }

    private func proveNumber() throws(OperationError) {
        let actual = try explaining("statx", .device, doing: doing) { () throws(Errno) in
            try Node(descriptor: descriptor.rawValue).blockDevice
        }
        guard let actual else { throw mismatch("\(device.path) is not a block device") }
        guard actual == device.number else {
            throw mismatch("\(device.path) is device \(actual), but \(device.number) was found")
        }
    }

    private func proveSerial(
        _ name: String, of volume: VolumeID, in tree: DeviceTree
    ) throws(OperationError) {
        let number = tree.number(of: name)
        guard number == device.number else {
            let number = number?.description ?? "no number"
            throw mismatch("it is device \(device.number), but sysfs has \(number) for \(name)")
        }
        guard let serial = tree.serial(of: name) else {
            throw mismatch("its serial number cannot be read in sysfs")
        }
        guard serial == volume.nvmeSerial else {
            throw mismatch("its serial number in sysfs is \(serial), not \(volume.nvmeSerial)")
        }
        let controller = try explaining(
            "ioctl NVME_IOCTL_ADMIN_CMD", .device, doing: doing
        ) { () throws(Errno) in
            try NVMeController(asking: descriptor.rawValue)
        }
        if let controller, !controller.isVolume(volume) {
            throw mismatch("its NVMe controller says: \(controller)")
        }
    }

    private func mismatch(_ found: String) -> OperationError {
        OperationError(
            .device, doing: doing,
            found: "the device could not be proved to be the volume: \(found)",
            advice: "nothing was done to it; try again, and if it persists compare "
                + "'lsblk -o NAME,SERIAL,MAJ:MIN' on the instance with the volume's attachment")
    }

    /// The device's size in bytes, never 0.
    func size() throws(OperationError) -> UInt64 {
        var bytes: UInt64 = 0
        let code = CLinux_device_size(descriptor.rawValue, &bytes)
        try explaining("ioctl BLKGETSIZE64", .device, doing: doing) { () throws(Errno) in
            if code != 0 { throw Errno(rawValue: code) }
        }
        guard bytes > 0 else {
            throw OperationError(
                .device, doing: doing, found: "the device is 0 bytes long",
                advice: "it may have been detached just now; look at the volume's attachment in EC2"
            )
        }
        return bytes
    }

    /// Whether the kernel refuses writes to the device, or the device itself does.
    var acceptsNoWrites: Bool {
        var isReadOnly = false
        return CLinux_device_is_read_only(descriptor.rawValue, &isReadOnly) == 0 && isReadOnly
    }

    /// Makes the kernel reject all writes to the device, or allow them again.
    func refuseWrites(_ refuse: Bool) throws(OperationError) {
        try explaining(
            "ioctl BLKROSET", .device, doing: doing, advice: "this needs CAP_SYS_ADMIN"
        ) { () throws(Errno) in
            let code = CLinux_set_device_read_only(descriptor.rawValue, refuse)
            if code != 0 { throw Errno(rawValue: code) }
        }
    }
}

/// Opens a node for reading without waiting for the device. With `exclusive`, fails with EBUSY if a
/// mount in any namespace, swap or RAID holds the device.
func openDevice(_ path: String, exclusive: Bool) throws(Errno) -> Descriptor {
    let flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (exclusive ? O_EXCL : 0)
    let descriptor = Glibc.open(path, flags)
    guard descriptor >= 0 else { throw lastErrno }
    return Descriptor(owning: descriptor)
}

/// Whether a mount in any namespace, swap or RAID holds the device.
func isClaimed(_ device: BlockDevice) throws(Errno) -> Bool {
    do throws(Errno) {
        // Declared before the descriptor, so it runs after that is closed.
        defer { ChildProcess.awaitStarts() }
        let descriptor = try openDevice(device.path, exclusive: true)
        let actual = try Node(descriptor: descriptor.rawValue).blockDevice
        guard actual == device.number else { throw .noSuchAddressOrDevice }
        return false
    } catch {
        guard error == .resourceBusy else { throw error }
        return true
    }
}
