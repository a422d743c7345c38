import Base
import JSON
import Linux

/// The name of this plugin in Docker's commands: `docker volume create -d NAME`, `docker plugin set
/// NAME`. Whoever installs the plugin chooses it, with a tag or an alias, and the engine does not
/// tell the plugin.
enum DriverName {
    /// The name unless the user has chosen another one.
    static let usual = "polarity-ecs-ebs-plugin"

    /// The name of this managed plugin from the engine's record, or, if no mount shows that record,
    /// the first 12 digits of its id, which the engine accepts as well. Nil if this process is not
    /// a managed plugin. Blocks.
    static func ofPlugin(mountedAt mountpoint: String) -> String? {
        guard let folder = PluginFolder(mountedAt: mountpoint) else { return nil }
        let names = folder.readRecords().lazy.compactMap { name(in: $0, of: folder.id) }
        return names.first ?? String(folder.id.prefix(12))
    }

    /// Nil if the record belongs to another plugin or is not understood. The tag `latest` is
    /// omitted, as it can be in all commands.
    static func name(in record: [UInt8], of id: String) -> String? {
        guard let plugin = try? JSONValue.parse(record)["plugin"], plugin["Id"]?.string == id,
            let name = plugin["Name"]?.string, isReference(name)
        else { return nil }
        let latest = ":latest"
        return name.hasSuffix(latest) ? String(name.dropLast(latest.count)) : name
    }

    /// Whether it consists of characters that are allowed in a name and tag, according to the
    /// reference package of distribution, and is thus safe in a command line and in the log.
    private static func isReference(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= Limit.driverNameMax
            && name.unicodeScalars.allSatisfy {
                switch $0 {
                case "a"..."z", "A"..."Z", "0"..."9", ".", "_", "/", ":", "-": true
                default: false
                }
            }
    }
}
