import Glibc

/// The arguments of mount(2): the flags, and the text for the file system.
struct MountOptions: Equatable {
    var flags: UInt = 0
    var data = ""

    /// Converts options with their names in mount(8); VolumeCore decides which ones a volume may
    /// have. Adds neither nosuid nor nodev: as with Docker's local driver, a volume behaves like a
    /// directory of the container's image, and the container's own device rules block its device
    /// nodes.
    ///
    /// `nouuid` is added for xfs: a volume made from a snapshot has the UUID of its origin, and the
    /// kernel rejects a UUID that is already mounted.
    init(type: String, readOnly: Bool, options: [String]) {
        var texts: [String] = []
        for option in options {
            if let flag = Self.flags[option] { flags |= flag } else { texts.append(option) }
        }
        if readOnly { flags |= UInt(MS_RDONLY) }
        if type == "xfs" { texts.append("nouuid") }
        data = texts.joined(separator: ",")
    }

    var isReadOnly: Bool { flags & UInt(MS_RDONLY) != 0 }

    /// The same, but the kernel does not replay the journal; xfs(5) and ext4(5).
    var withoutReplay: MountOptions {
        var options = self
        options.data = (data.isEmpty ? "" : data + ",") + "norecovery"
        return options
    }

    /// The options that the kernel takes as flags; the others are the file system's own.
    private static let flags: [String: UInt] = [
        "lazytime": 1 << 25, "noatime": UInt(MS_NOATIME), "nodev": UInt(MS_NODEV),
        "nodiratime": UInt(MS_NODIRATIME), "noexec": UInt(MS_NOEXEC), "nosuid": UInt(MS_NOSUID),
        "relatime": UInt(MS_RELATIME), "sync": UInt(MS_SYNCHRONOUS),
    ]
}
