import EC2Model
import Glibc
import Synchronization

/// One instance's /dev and sysfs: where its devices appear and go, as on the real machine.
///
/// Calls block, and may come from several threads at once.
final class DeviceTree: Sendable {
    let devPath: String
    let sysPath: String
    private let footprint: Footprint
    /// Held from the choice of a free name until it is taken.
    private let lock = Mutex(())

    /// What was made for one device.
    struct Device: Sendable {
        var node: String
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

    /// Makes the directories; says so if nodes in devPath cannot be opened.
    func prepare() throws(SystemError) {
        try footprint.makeDirectory(devPath)
        try footprint.makeDirectory(sysPath + "/block")
        // ST_NODEV of statvfs(3), a GNU extension.
        let nodev: UInt = 4
        var status = statvfs()
        if statvfs(devPath, &status) == 0, status.f_flag & nodev != 0 {
            say("\(devPath) is on a file system mounted nodev: its nodes cannot be opened")
        }
    }

    /// Makes the device's sysfs entry, then its node, then its link: who sees the node finds the
    /// entry complete. `beforeNode` is called right before the node appears.
    func add(
        _ plug: DeviceOrder.Plug, minor: UInt32, bytes: UInt64, beforeNode: () -> Void
    ) throws(SystemError) -> Device {
        try lock.withLock { (_) throws(SystemError) in
            try addLocked(plug, minor: minor, bytes: bytes, beforeNode: beforeNode)
        }
    }

    private func addLocked(
        _ plug: DeviceOrder.Plug, minor: UInt32, bytes: UInt64, beforeNode: () -> Void
    ) throws(SystemError) -> Device {
        let name: String
        if let node = plug.xenNode { name = node } else { name = try freeName(plug.number) }
        var device = Device(node: "\(devPath)/\(name)", entry: "\(sysPath)/block/\(name)")
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

    /// Shows the device's partitions, as the kernel does: some time after the device itself.
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

    func resize(_ device: Device, bytes: UInt64) throws(SystemError) {
        try writeFile(device.entry + "/size", "\(bytes / 512)\n")
    }

    /// nvme0n1 is the root volume's.
    private func freeName(_ wanted: Int?) throws(SystemError) -> String {
        for number in wanted.map({ $0...$0 }) ?? 1...999 {
            let name = "nvme\(number)n1"
            if case .none = FileKind("\(devPath)/\(name)") { return name }
        }
        throw SystemError("find a free nvme number in \(devPath)", EEXIST)
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
        // The kernel shows the identify structure's fields as they are: padded with spaces.
        try writeFile(controller + "/serial", padded(plug.serial, 20) + "\n")
        try writeFile(controller + "/model", padded("Amazon Elastic Block Store", 40) + "\n")
        try writeFile(controller + "/firmware_rev", padded("2.0", 8) + "\n")
        try writeFile(controller + "/state", "live\n")
    }

    private func makeLink(_ name: String, _ serial: String) throws(SystemError) -> String? {
        let directory = devPath + "/disk/by-id"
        try footprint.makeDirectory(directory)
        let link = "\(directory)/nvme-Amazon_Elastic_Block_Store_\(serial)"
        // A link of that name is another device's with the same serial number: it stays.
        guard case .none = FileKind(link) else { return nil }
        try footprint.makeLink(link, to: "../../\(name)")
        return link
    }
}

private func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.utf8.count))
}
