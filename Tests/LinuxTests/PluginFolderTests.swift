import Testing

@testable import Linux

@Suite struct PluginFolderTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)

    /// The mount table of a process with these mounts: device, mounted directory, mountpoint.
    private static func table(_ mounts: [(String, String, String)]) throws -> MountTable {
        let lines = try mounts.map { device, root, mountpoint in
            try #require(
                MountInfoLine(
                    Array("1 2 \(device) \(root) \(mountpoint) rw - ext4 /dev/x rw".utf8)))
        }
        return MountTable(lines: lines)
    }

    private static func folder(_ mounts: [(String, String, String)]) throws -> PluginFolder? {
        try PluginFolder(mountedAt: "/mnt", in: table(mounts))
    }

    @Test(arguments: [
        // The data root in the host's root file system, whose /var/lib the plugin sees.
        ("/var/lib/docker/plugins", "/var/lib", "/var/lib", "/var/lib/docker/plugins"),
        // Another data root, below state.source.
        ("/srv/docker/plugins", "/srv", "/var/lib", "/var/lib/docker/plugins"),
        // A file system of its own that is mounted as a whole.
        ("/docker/plugins", "/", "/var/lib", "/var/lib/docker/plugins"),
    ])
    func `the record is where a mount shows the folder`(
        plugins: String, root: String, mountpoint: String, seen: String
    ) throws {
        let folder = try #require(
            try Self.folder([
                ("8:1", "\(plugins)/\(Self.id)/rootfs", "/"),
                ("8:1", "\(plugins)/\(Self.id)/propagated-mount", "/mnt"),
                ("8:2", "/", "/other"), ("8:1", root, mountpoint),
                ("8:1", "/var/library", "/library"),
            ]))
        #expect(folder.id == Self.id)
        #expect(folder.records == ["\(seen)/\(Self.id)/config.json"])
    }

    @Test func `a plugin whose folder no mount shows still has its id`() throws {
        let folder = try #require(
            try Self.folder([
                ("8:2", "/plugins/\(Self.id)/propagated-mount", "/mnt"),
                ("8:1", "/var/lib", "/var/lib"),
            ]))
        #expect(folder.id == Self.id && folder.records == [] && folder.readRecords() == [])
    }

    @Test(arguments: [
        "/mnt", "/", "/plugins/0123/propagated-mount", "/propagated-mount",
        "/plugins/\(String(repeating: "A", count: 64))/propagated-mount",
        "/plugins/\(id)/rootfs", "/plugins/\(id)0/propagated-mount",
    ])
    func `another mount there does not belong to a plugin`(root: String) throws {
        #expect(try Self.folder([("8:1", root, "/mnt"), ("8:1", "/", "/host")]) == nil)
        #expect(try Self.folder([("8:1", "/", "/host")]) == nil)
    }
}
