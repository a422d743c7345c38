/// The device names that this instance can attach volumes by, and which of them are taken.
///
/// EC2 wants a name for each attachment; on Nitro instances it does not decide the node. The free
/// name that was used longest ago is taken, because a name used again at once can leave an
/// attachment in `attaching` for ever (github.com/kubernetes/kubernetes/issues/31891).
/// Source of the names: docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html.
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
    /// Names that EC2 says are in use though nothing here took them, where another disk's node is,
    /// or whose attachment was stuck.
    private var quarantined: Set<String> = []
    /// Names that nothing but a record of an earlier run says are taken.
    private var presumed: Set<String> = []

    package init() {}

    /// Takes a name; nil when all are taken.
    package mutating func take() -> String? {
        if free.isEmpty {
            // Nothing is lost by asking EC2 again for names that it refused before.
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

    /// Marks names as taken that attachments bear already, in either spelling: on Xen `/dev/sdf`
    /// and `/dev/xvdf` are one node. Other names are of no concern.
    package mutating func claim(_ names: [String]) { for name in names { claim(name) } }

    package mutating func claim(_ name: String) {
        let name = Self.spelling(of: name)
        if let index = free.firstIndex(of: name) {
            taken.insert(free.remove(at: index))
        } else if let name = quarantined.remove(name) ?? presumed.remove(name) {
            taken.insert(name)
        }
    }

    /// Marks a free name as taken as long as there is another: a record says so, and neither EC2
    /// nor a device.
    package mutating func presume(_ name: String) {
        let name = Self.spelling(of: name)
        guard let index = free.firstIndex(of: name) else { return }
        presumed.insert(free.remove(at: index))
    }

    /// Gives a name back.
    package mutating func release(_ name: String) {
        let name = Self.spelling(of: name)
        if let name = taken.remove(name) ?? presumed.remove(name) { free.append(name) }
    }

    /// Sets a name aside that did not serve.
    package mutating func quarantine(_ name: String) {
        if let name = taken.remove(Self.spelling(of: name)) { quarantined.insert(name) }
    }

    /// Whether it is one of the names that this plugin attaches volumes by, in either spelling.
    package static func isGiven(_ name: String) -> Bool { all.contains(spelling(of: name)) }

    /// As `all` spells it.
    private static func spelling(of name: String) -> String {
        name.hasPrefix("/dev/xvd") && name.utf8.count == 9 ? "/dev/sd" + name.suffix(1) : name
    }
}
