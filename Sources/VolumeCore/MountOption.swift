package import Base

/// An allowed mount option: one that can neither lose data, nor change another mount, nor make the
/// kernel trust the contents of the volume more than it does anyway.
///
/// Source: mount(8), xfs(5), ext4(5).
package struct MountOption: Sendable, Equatable {
    /// Its name in mount(8), with its value.
    package var text: String
    /// The file system that it is for; nil for all.
    package var type: String?

    private static let general: Set = [
        "discard", "lazytime", "noatime", "nodev", "nodiratime", "noexec", "norecovery", "nosuid",
        "relatime", "sync",
    ]
    /// Each option with its valid values.
    private static let xfs: [String: Set<String>] = [
        "inode64": [],
        "logbufs": ["2", "3", "4", "5", "6", "7", "8"],
        "logbsize": ["16k", "32k", "64k", "128k", "256k"],
    ]

    /// Nil if the option is not allowed.
    package init?(_ text: String) {
        self.text = text
        if Self.general.contains(text) { return }
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard let values = Self.xfs[String(parts[0])] else { return nil }
        type = "xfs"
        guard parts.count == 2 ? values.contains(String(parts[1])) : values.isEmpty else {
            return nil
        }
    }

    /// What to do instead of using `option`, which is not allowed.
    package static func advice(about option: String) -> String {
        if option == "ro" { return "use -o read-only=true" }
        let all = general.sorted() + xfs.keys.sorted().map { xfs[$0] == [] ? $0 : "\($0)=…" }
        return "the mount options are \(all.joined(separator: ", "))"
    }
}

extension VolumeOptions {
    /// Whether not even the journal may be replayed.
    package var skipsReplay: Bool { mountOptions.contains("norecovery") }

    /// What a mount may do to the volume.
    package func access(to volume: VolumeDescription) -> MountAccess {
        guard readOnly else { return .writable }
        // Another instance may be writing to it, and owns the journal.
        return skipsReplay || volume.multiAttachEnabled ? .withoutReplay : .readOnly
    }

    /// The mount options for a file system of `type`, except for those of `access`. Throws if an
    /// option is for another type.
    package func mountOptions(for type: String) throws(OperationError) -> [String] {
        for option in mountOptions.compactMap({ MountOption($0) }) {
            guard let wanted = option.type, wanted != type else { continue }
            throw OperationError(
                .invalidInput, doing: "mount a file system of type \(type)",
                found: "the mount option \(quoted(option.text)) is only for \(wanted)",
                advice: "leave it out of mount-options; nothing was changed")
        }
        return mountOptions.filter { $0 != "norecovery" }
    }
}
