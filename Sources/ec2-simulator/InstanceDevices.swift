import EC2Model
import Glibc
import Synchronization

/// One instance's /dev and sysfs, in which its devices appear and disappear as on a real machine.
///
/// Calls block, and several threads may make them at once.
final class InstanceDevices: Sendable {
    let devPath: String
    let sysPath: String
    private let footprint: Footprint
    /// The devices that were removed while mounted. Locked from the choice of a free name until it
    /// is used.
    private let dead = Mutex<[Device]>([])

    /// What was created for one device.
    struct Device: Sendable {
        var node: String
        /// The serial number that its controller reports; nil on Xen.
        var serial: String?
        var link: String?
        /// The nodes of its partitions.
        var partitions: [String] = []
        var entry: String
    }

    init(devPath: String, sysPath: String, footprint: Footprint) {
        self.devPath = devPath
        self.sysPath = sysPath
        self.footprint = footprint
    }

    /// Creates the directories; throws if device nodes in devPath cannot be opened.
    func prepare() throws(SystemError) {
        try footprint.makeDirectory(devPath)
        try footprint.makeDirectory(sysPath + "/class/block")
        // ST_NODEV of statvfs(3), a GNU extension.
        let nodev: UInt = 4
        var status = statvfs()
        if statvfs(devPath, &status) == 0, status.f_flag & nodev != 0 {
            say("\(devPath) is on a file system mounted nodev: its nodes cannot be opened")
        }
    }

    /// Creates the device's sysfs entry, then its node, then its link, so that the entry is
    /// complete when the node appears. `beforeNode` is called just before the node appears.
    func add(
        _ plug: DeviceOrder.Plug, minor: UInt32, bytes: UInt64, beforeNode: () -> Void
    ) throws(SystemError) -> Device {
        try dead.withLock { (dead) throws(SystemError) in
            let name: String
            if let node = plug.xenNode {
                name = node
            } else {
                name = try freeName(plug, beside: dead)
            }
            return try add(plug, as: name, minor: minor, bytes: bytes, beforeNode: beforeNode)
        }
    }

    private func add(
        _ plug: DeviceOrder.Plug, as name: String, minor: UInt32, bytes: UInt64,
        beforeNode: () -> Void
    ) throws(SystemError) -> Device {
        var device = Device(
            node: "\(devPath)/\(name)", serial: plug.xenNode == nil ? plug.serial : nil,
            entry: "\(sysPath)/class/block/\(name)")
        guard case .none = FileKind(device.node) else {
            throw SystemError("make \(device.node)", EEXIST)
        }
        do throws(SystemError) {
            try makeEntry(device.entry, plug, minor: minor, bytes: bytes)
            beforeNode()
            try footprint.makeNode(device.node, minor: minor)
            if plug.xenNode == nil { device.link = try makeLink(name, plug.serial) }
        } catch {
            remove(device)
            throw error
        }
        return device
    }

    /// Shows the device's partitions some time after the device itself, as the kernel does.
    func add(
        _ partitions: [LoopDevice.Partition], of device: inout Device
    ) throws(SystemError) {
        let disk = device.node.dropFirst(devPath.utf8.count + 1)
        for partition in partitions {
            let mark = disk.hasPrefix("nvme") ? "p" : ""
            let name = "\(disk)\(mark)\(partition.number)"
            let entry = "\(device.entry)/\(name)"
            guard mkdir(entry, 0o755) == 0 else { throw SystemError("mkdir \(entry)") }
            try writeFile(entry + "/dev", "\(Footprint.extendedMajor):\(partition.minor)\n")
            try writeFile(entry + "/partition", "\(partition.number)\n")
            let node = "\(devPath)/\(name)"
            try footprint.makePartitionNode(node, minor: partition.minor)
            device.partitions.append(node)
        }
    }

    func remove(_ device: Device) {
        for node in device.partitions { footprint.remove(node) }
        footprint.remove(device.node)
        footprint.remove(device.entry)
        if let link = device.link { footprint.remove(link) }
    }

    /// What remains of a device that was removed while mounted: if it `stays`, its node and an
    /// entry of size 0; otherwise only its number among the namespaces of its controller.
    func kill(_ device: Device, stays: Bool) throws(SystemError) {
        dead.withLock { $0.append(device) }
        guard stays else { return remove(device) }
        try resize(device, bytes: 0)
        if device.serial != nil { try writeFile(device.entry + "/device/state", "dead\n") }
    }

    /// Removes what remains of a dead device that nothing has mounted any more.
    func bury(_ device: Device) {
        dead.withLock { $0.removeAll { $0.node == device.node } }
        remove(device)
    }

    func resize(_ device: Device, bytes: UInt64) throws(SystemError) {
        try writeFile(device.entry + "/size", "\(bytes / 512)\n")
    }

    /// nvme0n1 belongs to the root volume. A controller that comes back while one of its dead
    /// namespaces is mounted keeps its number, and its new namespace gets the next one, nvme1n2
    /// (github.com/gardenlinux/gardenlinux/issues/263).
    private func freeName(
        _ plug: DeviceOrder.Plug, beside dead: [Device]
    ) throws(SystemError) -> String {
        let names = dead.map { String($0.node.dropFirst(devPath.utf8.count + 1)) }
        if let own = dead.firstIndex(where: { $0.serial == plug.serial }),
            let end = names[own].lastIndex(of: "n")
        {
            for namespace in 2...999 {
                let name = "\(names[own][..<end])n\(namespace)"
                if !names.contains(name), isFree(name) { return name }
            }
        }
        for number in plug.number.map({ $0...$0 }) ?? 1...999 {
            let controller = "nvme\(number)n"
            let isTaken = names.contains { $0.hasPrefix(controller) }
            if !isTaken, isFree(controller + "1") { return controller + "1" }
        }
        throw SystemError("find a free nvme number in \(devPath)", EEXIST)
    }

    private func isFree(_ name: String) -> Bool {
        if case .none = FileKind("\(devPath)/\(name)") { true } else { false }
    }

    private func makeEntry(
        _ entry: String, _ plug: DeviceOrder.Plug, minor: UInt32, bytes: UInt64
    ) throws(SystemError) {
        try footprint.makeTree(entry)
        try writeFile(entry + "/dev", "\(Footprint.loopMajor):\(minor)\n")
        try writeFile(entry + "/size", "\(bytes / 512)\n")
        let controller = entry + "/device"
        guard mkdir(controller, 0o755) == 0 else { throw SystemError("mkdir \(controller)") }
        if plug.xenNode != nil {
            try writeFile(controller + "/devtype", "vbd\n")
            return
        }
        // The kernel shows the fields of the identify structure unchanged, padded with spaces.
        try writeFile(controller + "/serial", padded(plug.serial, 20) + "\n")
        try writeFile(controller + "/model", padded("Amazon Elastic Block Store", 40) + "\n")
        try writeFile(controller + "/firmware_rev", padded("2.0", 8) + "\n")
        try writeFile(controller + "/state", "live\n")
    }

    private func makeLink(_ name: String, _ serial: String) throws(SystemError) -> String? {
        let directory = devPath + "/disk/by-id"
        try footprint.makeDirectory(directory)
        let link = "\(directory)/nvme-Amazon_Elastic_Block_Store_\(serial)"
        // An existing link of that name belongs to another device with the same serial number and
        // stays.
        guard case .none = FileKind(link) else { return nil }
        try footprint.makeLink(link, to: "../../\(name)")
        return link
    }
}

private func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.utf8.count))
}
