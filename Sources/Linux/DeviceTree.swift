import Base
import SystemPackage

/// Looks up the block devices of this instance: their nodes, and what sysfs says about them.
///
/// A Nitro instance shows a volume as an NVMe namespace whose controller's serial number is the
/// volume's id; the number of the node says nothing, because it follows the order of arrival. A Xen
/// instance shows it under the name that AttachVolume requested, `/dev/sdf` as `xvdf` or `sdf`.
/// Sources: docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html and
/// docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html.
struct DeviceTree: Sendable {
    var devPath: String
    var sysPath: String

    /// An NVMe namespace in sysfs.
    struct Disk: Sendable, Equatable {
        /// `nvme1n1`.
        var name: String
        /// Nil if it cannot be read.
        var serial: String?
        /// The sign that the kernel has given up the namespace, which remains visible as long as
        /// something holds it; nil while it works.
        var death: String?
    }

    /// The NVMe namespaces that sysfs shows now, or why it shows none.
    struct Census: Sendable {
        var disks: [Disk] = []
        var trouble: String?
    }

    /// Whether a volume's device is here.
    enum Sighting: Equatable {
        case present(BlockDevice)
        /// It is not here, or not yet; the text says what is here instead.
        case absent(String)
        /// It was not found, but a disk whose serial number cannot be read may be it.
        case unclear(String)
        /// Two working devices claim to be the volume: neither can be trusted.
        case ambiguous(String)
    }

    /// Where sysfs shows a disk before its node comes. `/sys/block` shows it only after: who looked
    /// there at the notice of the node would miss it, and no further notice need come.
    ///
    /// Source: device_add in drivers/base/core.c and device_add_disk in block/genhd.c.
    private var entries: String { "\(sysPath)/class/block" }

    func census() -> Census {
        do {
            let disks = try names(in: entries).filter(isNVMe).sorted()
            return Census(disks: disks.compactMap(disk))
        } catch {
            return Census(trouble: "\(entries) cannot be read: \(refusal(of: "open", error))")
        }
    }

    /// Finds `volume` in `census`, or on Xen by the name that it is attached as.
    func sighting(of volume: VolumeID, attachedAs name: String?, in census: Census) -> Sighting {
        let bearers = census.disks.filter { $0.serial == volume.nvmeSerial && $0.death == nil }
        if bearers.count > 1 {
            let names = bearers.map(\.name).joined(separator: " and ")
            return .ambiguous("\(names) both have the serial number \(volume.nvmeSerial)")
        }
        if let bearer = bearers.first { return nvmeSighting(bearer) }
        // If volumes appear as NVMe devices, a disk of that name is not a volume.
        let isNitro = census.disks.contains { $0.serial?.hasPrefix("vol") == true }
        if !isNitro, let name, let device = xenDevice(attachedAs: name) { return .present(device) }
        let unread = census.disks.filter { $0.serial == nil && $0.death == nil }.map(\.name)
        if !unread.isEmpty {
            return .unclear(
                "the serial number of \(list(unread)) cannot be read in \(entries), so it "
                    + "may be the volume's device")
        }
        return .absent(absence(of: volume, attachedAs: name, in: census))
    }

    /// Whether `device` still exists and still belongs to `volume`. A device that cannot be read
    /// does not count as gone.
    func isPresent(_ device: BlockDevice, of volume: VolumeID) -> Bool {
        do throws(Errno) {
            let node = try Node(device.path, following: false)
            guard node.blockDevice == device.number else { return false }
        } catch {
            return error != .noSuchFileOrDirectory
        }
        let name = baseName(of: device.path)
        let diskName = diskName(of: name)
        guard isNVMe(diskName) else { return true }
        guard let serial = serial(of: name), !serial.isEmpty, let number = number(of: name) else {
            let entry = "\(entries)/\(diskName)/device/serial"
            return (try? Node(entry, following: true)) != nil
        }
        return serial == volume.nvmeSerial && number == device.number && death(of: diskName) == nil
    }

    /// The partition with that number on `disk`, the device of `volume`.
    func partition(_ number: Int, of disk: BlockDevice, volume: VolumeID) -> Sighting {
        guard isPresent(disk, of: volume) else {
            return .absent("\(disk.path) is no longer the device of \(volume)")
        }
        let diskName = baseName(of: disk.path)
        let name = partitionName(number, of: diskName)
        guard let known = self.number(of: name),
            attribute("\(diskName)/\(name)/partition") == "\(number)"
        else {
            let all = (try? names(in: "\(entries)/\(diskName)")) ?? []
            let others = all.filter { $0 != diskName && Linux.diskName(of: $0) == diskName }
            return .absent("the kernel shows no \(name) (it shows: \(list(others.sorted())))")
        }
        let path = "\(devPath)/\(name)"
        guard let node = try? Node(path, following: false), node.blockDevice == known else {
            return .absent("sysfs has \(known) for \(name), but \(path) is not that device")
        }
        return .present(BlockDevice(path: path, number: known))
    }

    /// The serial number of the controller of an NVMe namespace or one of its partitions, without
    /// padding; nil if it cannot be read.
    func serial(of name: String) -> String? { attribute("\(diskName(of: name))/device/serial") }

    /// Nil if the namespace has disappeared since it was listed.
    private func disk(_ name: String) -> Disk? {
        let disk = Disk(name: name, serial: serial(of: name), death: death(of: name))
        guard disk.serial == nil else { return disk }
        do throws(Errno) { _ = try Node("\(entries)/\(name)", following: true) } catch {
            if error == .noSuchFileOrDirectory { return nil }
        }
        return disk
    }

    /// The sign that the kernel has given up a namespace, for example after a volume was detached
    /// while mounted. The entry remains as long as something holds it, and the volume may appear
    /// again next to it.
    ///
    /// Source: drivers/nvme/host: nvme_ns_remove and nvme_mark_namespaces_dead set the capacity to
    /// 0, nvme_sysfs_show_state reports the controller's state. A controller that is resetting or
    /// connecting comes back.
    private func death(of name: String) -> String? {
        if attribute("\(name)/size") == "0" { return "its size is 0" }
        guard let state = attribute("\(name)/device/state"),
            ["dead", "deleting", "deleting (no IO)"].contains(state)
        else { return nil }
        return "its controller is \(state)"
    }

    /// The number of a disk or a partition.
    func number(of name: String) -> DeviceNumber? {
        let text = attribute("\(name)/dev") ?? attribute("\(diskName(of: name))/\(name)/dev")
        return text.flatMap { DeviceNumber($0) }
    }

    private func attribute(_ path: String) -> String? {
        guard let bytes = try? contents(of: "\(entries)/\(path)", limit: 256) else {
            return nil
        }
        let padding = " \n\0".utf8
        let end = bytes.lastIndex { !padding.contains($0) }.map { $0 + 1 } ?? 0
        return String(decoding: bytes[..<end], as: UTF8.self)
    }

    private func nvmeSighting(_ disk: Disk) -> Sighting {
        let path = "\(devPath)/\(disk.name)"
        guard let number = number(of: disk.name) else {
            return .absent("\(disk.name) has the serial number, but sysfs shows no number for it")
        }
        do {
            guard let actual = try Node(path, following: false).blockDevice else {
                return .absent("\(path) is not a block device")
            }
            guard actual == number else {
                return .absent("\(path) is device \(actual), but sysfs says \(number)")
            }
            return .present(BlockDevice(path: path, number: number))
        } catch {
            return .absent(
                "sysfs shows it as \(disk.name), but \(path) is not there yet: "
                    + refusal(of: "stat", error))
        }
    }

    /// Links are not followed: on Nitro images a udev rule creates a link of that name, and a stale
    /// link leads to another volume.
    private func xenDevice(attachedAs name: String) -> BlockDevice? {
        for name in xenNames(for: name) {
            let path = "\(devPath)/\(name)"
            if let number = try? Node(path, following: false).blockDevice {
                return BlockDevice(path: path, number: number)
            }
        }
        return nil
    }

    private func absence(
        of volume: VolumeID, attachedAs name: String?, in census: Census
    ) -> String {
        let shown = census.disks.map { disk in
            "\(disk.name) \(disk.serial ?? "without serial number")"
                + (disk.death.map { ", which is dead: \($0)" } ?? "")
        }
        var text = "no NVMe device that works has the serial number \(volume.nvmeSerial) "
        text += census.trouble.map { "(\($0))" } ?? "(there are: \(list(shown)))"
        if let name, !xenNames(for: name).isEmpty {
            let paths = xenNames(for: name).map { "\(devPath)/\($0)" }
            text += ", and no block device is at \(paths.joined(separator: " or "))"
        }
        return text
    }

    private func list(_ items: [String]) -> String {
        items.isEmpty ? "none" : items.joined(separator: ", ")
    }
}

/// `nvme1n1`: a whole namespace, not a partition or controller.
func isNVMe(_ name: String) -> Bool {
    guard name.hasPrefix("nvme") else { return false }
    let numbers = name.dropFirst(4).split(separator: "n", omittingEmptySubsequences: false)
    return numbers.count == 2
        && numbers.allSatisfy { !$0.isEmpty && $0.utf8.allSatisfy(isDigit) }
}

/// The disk of a partition: `nvme1n1` for `nvme1n1p2`, `xvdf` for `xvdf2`. Other names are returned
/// unchanged.
///
/// Source: disk_name in the kernel's block/partitions/core.c.
func diskName(of name: String) -> String {
    var disk = name[...]
    while let last = disk.utf8.last, isDigit(last) { disk.removeLast() }
    guard disk.count < name.count else { return name }
    if disk.hasSuffix("p"), isNVMe(String(disk.dropLast())) { return String(disk.dropLast()) }
    return disk.hasPrefix("xvd") || disk.hasPrefix("sd") ? String(disk) : name
}

func partitionName(_ number: Int, of disk: String) -> String {
    isNVMe(disk) ? "\(disk)p\(number)" : "\(disk)\(number)"
}

/// The possible kernel names of a volume that was attached as `name` on Xen: `/dev/sdf` becomes
/// `xvdf` or stays `sdf`; `/dev/xvdba` stays. Empty if `name` is not a disk's name.
func xenNames(for name: String) -> [String] {
    let bare = name.hasPrefix("/dev/") ? String(name.dropFirst(5)) : name
    let isPlain = bare.utf8.allSatisfy {
        isDigit($0) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
    }
    guard isPlain else { return [] }
    if bare.hasPrefix("xvd"), bare.count > 3 { return [bare] }
    if bare.hasPrefix("sd"), bare.count > 2 { return ["xvd" + bare.dropFirst(2), bare] }
    return []
}

func baseName(of path: String) -> String {
    path.split(separator: "/").last.map { String($0) } ?? ""
}

private func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
}
