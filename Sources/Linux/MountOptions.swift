import Glibc

/// What mount(2) is told: its flags, and the text for the file system itself.
struct MountOptions: Equatable {
    var flags: UInt = 0
    var data = ""

    /// Takes options as mount(8) names them; which ones a volume may be given is decided elsewhere.
    /// Only what was asked for is set, no nosuid and no nodev of our own: a container's volume behaves
    /// as a directory of its image does, as with Docker's local driver, and its device nodes are barred
    /// by the container's own device rules.
    ///
    /// `nouuid` is added for xfs: a volume made from a snapshot has the UUID of its origin, and the
    /// kernel refuses a UUID that is mounted already.
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

    /// The same, but that the kernel leaves the journal as it is; xfs(5) and ext4(5).
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
