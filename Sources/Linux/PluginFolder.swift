import Base

/// The folder in which Docker Engine keeps a managed plugin. It is named by the plugin's id and has
/// the plugin's root file system, what the plugin mounts, and the engine's record of it.
/// Source: moby's plugin/manager.go and plugin/manager_linux.go.
package struct PluginFolder: Equatable, Sendable {
    /// 64 hexadecimal digits. The engine's commands accept it, or its beginning, instead of the
    /// name.
    package let id: String
    /// The paths at which a mount may show the engine's record to this process, the likeliest
    /// first.
    let records: [String]

    /// The folder whose `propagated-mount` is mounted at `mountpoint`; nil if this process is not a
    /// managed plugin. May wait for mounts in progress.
    package init?(mountedAt mountpoint: String) {
        guard let table = try? MountTable(doing: "find the plugin's folder") else { return nil }
        self.init(mountedAt: mountpoint, in: table)
    }

    init?(mountedAt mountpoint: String, in table: MountTable) {
        let suffix = "/propagated-mount"
        guard let mount = table.lines.first(where: { $0.mountpoint == mountpoint }),
            mount.root.hasSuffix(suffix)
        else { return nil }
        let folder = mount.root.dropLast(suffix.count)
        id = folder.split(separator: "/").last.map(String.init) ?? ""
        guard id.utf8.count == 64, id.utf8.allSatisfy("0123456789abcdef".utf8.contains) else {
            return nil
        }
        // The folder's path on the host is not known here, because Docker's data root can be
        // anywhere. But mountinfo shows both as paths within the same file system.
        records = table.mounts(of: mount.device).reversed().compactMap { line in
            let root = line.root == "/" ? "" : line.root
            guard folder.hasPrefix(root + "/") else { return nil }
            return line.mountpoint + folder.dropFirst(root.utf8.count) + "/config.json"
        }
    }

    /// The engine's records that exist at these paths, each of at most `Limit.pluginRecordMax`
    /// bytes. Only a record with `id` belongs to this plugin. Blocks.
    package func readRecords() -> [[UInt8]] {
        records.compactMap { try? contents(of: $0, limit: Limit.pluginRecordMax) }
    }
}
