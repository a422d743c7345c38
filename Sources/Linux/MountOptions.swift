import Base
import Glibc

/// The arguments of mount(2): the flags, and the text for the file system.
struct MountOptions: Equatable {
    var flags: UInt = 0
    var data = ""

    /// Converts options with their names in mount(8). Adds neither nosuid nor nodev: as with
    /// Docker's local driver, a volume behaves like a directory of the container's image, and the
    /// container's own device rules block its device nodes.
    ///
    /// `nouuid` is added for xfs: a volume made from a snapshot has the UUID of its origin, and the
    /// kernel rejects a UUID that is already mounted.
    init(type: String, readOnly: Bool, options: [String], doing: String) throws(OperationError) {
        var texts: [String] = []
        for option in options {
            if let (set, clear) = Self.flagOptions[option] {
                flags = flags & ~clear | set
            } else if Self.refused.contains(option) || option.isEmpty || option.contains(",") {
                throw OperationError(
                    .invalidInput, doing: doing,
                    found: "the mount option '\(option)' is not one for a volume",
                    advice: "leave it out of mount-options")
            } else if option != "defaults" {
                texts.append(option)
            }
        }
        if readOnly { flags |= UInt(MS_RDONLY) }
        if type == "xfs", !texts.contains("nouuid") { texts.append("nouuid") }
        data = texts.joined(separator: ",")
    }

    var isReadOnly: Bool { flags & UInt(MS_RDONLY) != 0 }

    /// The same, but the kernel does not replay the journal; xfs(5) and ext4(5).
    var withoutReplay: MountOptions {
        var options = self
        options.data = (data.isEmpty ? "" : data + ",") + "norecovery"
        return options
    }

    /// These options change another mount, or the propagation of this one.
    private static let refused: Set = [
        "bind", "rbind", "move", "remount", "shared", "rshared", "private", "rprivate", "slave",
        "rslave", "unbindable", "runbindable", "loop",
    ]

    /// The flags that each option sets and clears.
    private static let flagOptions: [String: (set: UInt, clear: UInt)] = [
        "ro": (UInt(MS_RDONLY), 0), "rw": (0, UInt(MS_RDONLY)),
        "nosuid": (UInt(MS_NOSUID), 0), "suid": (0, UInt(MS_NOSUID)),
        "nodev": (UInt(MS_NODEV), 0), "dev": (0, UInt(MS_NODEV)),
        "noexec": (UInt(MS_NOEXEC), 0), "exec": (0, UInt(MS_NOEXEC)),
        "sync": (UInt(MS_SYNCHRONOUS), 0), "async": (0, UInt(MS_SYNCHRONOUS)),
        "dirsync": (UInt(MS_DIRSYNC), 0),
        "noatime": (UInt(MS_NOATIME), 0), "atime": (0, UInt(MS_NOATIME)),
        "nodiratime": (UInt(MS_NODIRATIME), 0), "diratime": (0, UInt(MS_NODIRATIME)),
        "relatime": (UInt(MS_RELATIME), 0), "norelatime": (0, UInt(MS_RELATIME)),
        "strictatime": (UInt(MS_STRICTATIME), 0), "nostrictatime": (0, UInt(MS_STRICTATIME)),
        "lazytime": (1 << 25, 0), "nolazytime": (0, 1 << 25),
    ]
}
