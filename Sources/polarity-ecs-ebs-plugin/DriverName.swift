import Base
import JSON
import Linux

/// By what name Docker's users call this plugin: `docker volume create -d NAME`, `docker plugin set
/// NAME`. The user who installs a plugin chooses it, with a tag or an alias, and the engine tells the
/// plugin nothing of that.
enum DriverName {
    /// Where nobody has chosen another one.
    static let usual = "polarity-ecs-ebs-plugin"

    /// Of the managed plugin that this process is: the name in the engine's record of it, or, where
    /// no mount shows that record, the first 12 digits of its id, which the engine takes as well.
    /// Nil where this process is no managed plugin. Blocks.
    static func ofPlugin(mountedAt mountpoint: String) -> String? {
        guard let folder = PluginFolder(mountedAt: mountpoint) else { return nil }
        let names = folder.readRecords().lazy.compactMap { name(in: $0, of: folder.id) }
        return names.first ?? String(folder.id.prefix(12))
    }

    /// Nil where the record is another plugin's, or none that is understood. The tag `latest` is left
    /// out, as it may be in all commands.
    static func name(in record: [UInt8], of id: String) -> String? {
        guard let plugin = try? JSONValue.parse(record)["plugin"], plugin["Id"]?.string == id,
            let name = plugin["Name"]?.string, isReference(name)
        else { return nil }
        let latest = ":latest"
        return name.hasSuffix(latest) ? String(name.dropLast(latest.count)) : name
    }

    /// Whether it is made of the characters of a name and tag, as distribution's reference package
    /// has them: so it can stand in a command line and in the log.
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
