package import Base

/// The device names under which this instance can attach volumes, and which of them are taken.
///
/// EC2 requires a name for each attachment; on Nitro instances it does not determine the node. The
/// free name that was used longest ago is taken, because a name that is reused at once can leave an
/// attachment in `attaching` forever (github.com/kubernetes/kubernetes/issues/31891). Source of the
/// names: docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html.
package struct DeviceNames: Sendable {
    /// Every name, in the order of their first use.
    package static let all: [String] =
        "fghijklmnop".map { "/dev/sd\($0)" }
        + "bc".flatMap { first in
            "abcdefghijklmnopqrstuvwxyz".map { "/dev/xvd\(first)\($0)" }
        }

    /// Free names, the one to use next first.
    private var free = DeviceNames.all
    private var taken: Set<String> = []
    /// Names that EC2 says are in use although nothing here took them, whose node belongs to
    /// another disk, or whose attachment was stuck.
    private var quarantined: Set<String> = []
    /// Names that are taken only according to a record of an earlier run.
    private var presumed: Set<String> = []

    package init() {}

    /// Takes a name; nil if all are taken.
    package mutating func take() -> String? {
        if free.isEmpty {
            // It does no harm to try names again that EC2 rejected before.
            free = Self.all.filter { quarantined.contains($0) }
            quarantined = []
        }
        if free.isEmpty {
            free = Self.all.filter { presumed.contains($0) }
            presumed = []
        }
        guard !free.isEmpty else { return nil }
        let name = free.removeFirst()
        taken.insert(name)
        return name
    }

    /// Marks names of existing attachments as taken, in either spelling: on Xen `/dev/sdf` and
    /// `/dev/xvdf` are the same node. Ignores other names.
    package mutating func claim(_ names: [String]) { for name in names { claim(name) } }

    package mutating func claim(_ name: String) {
        let name = Self.spelling(of: name)
        if let index = free.firstIndex(of: name) {
            taken.insert(free.remove(at: index))
        } else if let name = quarantined.remove(name) ?? presumed.remove(name) {
            taken.insert(name)
        }
    }

    /// Marks a free name as taken while there are others: only a record says that it is, neither
    /// EC2 nor a device.
    package mutating func presume(_ name: String) {
        let name = Self.spelling(of: name)
        guard let index = free.firstIndex(of: name) else { return }
        presumed.insert(free.remove(at: index))
    }

    /// Takes the name that the record of an earlier run gives to a volume.
    ///
    /// - Parameter isPresent: whether a device shows that the volume is still here.
    package mutating func recall(_ name: String, isPresent: Bool) {
        if isPresent { claim(name) } else { presume(name) }
    }

    /// The volumes that are attached to an instance under names of this plugin.
    package static func given(
        on instance: InstanceDescription
    ) -> [(name: String, volume: VolumeID)] {
        instance.mappings.filter { isGiven($0.deviceName) }
            .compactMap { mapping in mapping.volume.map { (mapping.deviceName, $0) } }
    }

    /// Gives a name back.
    package mutating func release(_ name: String) {
        let name = Self.spelling(of: name)
        if let name = taken.remove(name) ?? presumed.remove(name) { free.append(name) }
    }

    /// Sets aside a name that did not work.
    package mutating func quarantine(_ name: String) {
        if let name = taken.remove(Self.spelling(of: name)) { quarantined.insert(name) }
    }

    /// Whether this plugin attaches volumes under this name, in either spelling.
    package static func isGiven(_ name: String) -> Bool { all.contains(spelling(of: name)) }

    /// The spelling in `all`.
    private static func spelling(of name: String) -> String {
        name.hasPrefix("/dev/xvd") && name.utf8.count == 9 ? "/dev/sd" + name.suffix(1) : name
    }
}
