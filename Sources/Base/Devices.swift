/// A block device's number, `major:minor`, which identifies a device whatever its node is named.
package struct DeviceNumber: Hashable, Sendable, CustomStringConvertible {
    package var major: UInt32
    package var minor: UInt32

    package init(major: UInt32, minor: UInt32) {
        self.major = major
        self.minor = minor
    }

    package var description: String { "\(major):\(minor)" }
}

/// A block device of this instance, found by its identity.
package struct BlockDevice: Hashable, Sendable {
    /// The node, `/dev/nvme1n1`.
    package var path: String
    package var number: DeviceNumber

    package init(path: String, number: DeviceNumber) {
        self.path = path
        self.number = number
    }

    /// Whether the device itself identifies its volume, as NVMe controllers do by their serial
    /// number. On Xen only EC2 knows which volume has a name.
    package var bearsVolumeID: Bool {
        path.split(separator: "/").last?.hasPrefix("nvme") == true
    }
}

/// What a probe found on a device.
package enum DeviceContent: Sendable, Equatable {
    /// A file system; `type` is libblkid's name for it (`xfs`, `ext4`).
    case fileSystem(type: String, label: String?, uuid: String?)
    /// Another known signature: a partition table (`dos`, `gpt`), `LVM2_member`, `crypto_LUKS`.
    case signature(String)
    /// Two or more signatures that claim the device, for example a file system under a partition
    /// table.
    case several([String])
    /// A file system whose creation was interrupted: no kernel mounts it, and it never contained a
    /// file.
    case unfinished(type: String)
    /// Nothing that libblkid knows, but not all blocks that were read are zero.
    case unknownData
    /// Every read succeeded, there is no signature, and the first MiB, the last MiB and blocks
    /// between are zero.
    case blank
}

/// A file system that a blank volume can be given; the raw value is what mount(2) takes.
package enum FileSystemType: String, Sendable, CaseIterable {
    case xfs, ext4
}

/// How to create a file system.
package struct FormatPlan: Sendable, Equatable {
    package var type: FileSystemType
    /// Arguments of `mkfs.xfs` or `mkfs.ext4`, without the device.
    package var arguments: [String]
    /// Whether an unfinished file system may be overwritten. Otherwise the device must be blank.
    package var overwritesUnfinished: Bool

    package init(
        type: FileSystemType, arguments: [String], overwritesUnfinished: Bool = false
    ) {
        self.type = type
        self.arguments = arguments
        self.overwritesUnfinished = overwritesUnfinished
    }
}

/// How far a file system was grown. Sizes are in bytes.
package struct Growth: Sendable, Equatable {
    package var from: UInt64
    package var to: UInt64

    package init(from: UInt64, to: UInt64) {
        self.from = from
        self.to = to
    }
}

/// What a mount may do to the volume.
package enum MountAccess: Sendable, Equatable {
    case writable
    /// Only replay the journal, as mount(8) does with `-o ro`, so that all acknowledged data is
    /// visible.
    case readOnly
    /// Write nothing, not even replay the journal, because others may be writing to it.
    case withoutReplay
}

/// The outcome of a mount.
package struct MountOutcome: Sendable, Equatable {
    /// Whether the file system is smaller than its device, or its size could not be determined.
    package var canGrow: Bool
    /// Whether its journal was not replayed and is not empty: the contents may be older than what
    /// was written.
    package var mayBeOutdated: Bool

    package init(canGrow: Bool = false, mayBeOutdated: Bool = false) {
        self.canGrow = canGrow
        self.mayBeOutdated = mayBeOutdated
    }
}

/// A line of /proc/self/mountinfo: the fields that matter here.
package struct MountedFileSystem: Sendable, Equatable {
    package var mountpoint: String
    package var device: DeviceNumber
    package var type: String
    package var source: String
    package var readOnly: Bool
    /// Whether its journal was not replayed and is not empty.
    package var mayBeOutdated: Bool

    package init(
        mountpoint: String, device: DeviceNumber, type: String, source: String, readOnly: Bool,
        mayBeOutdated: Bool = false
    ) {
        self.mountpoint = mountpoint
        self.device = device
        self.type = type
        self.source = source
        self.readOnly = readOnly
        self.mayBeOutdated = mayBeOutdated
    }
}

/// Whether a device is mounted at its mountpoint.
package enum MountState: Sendable {
    case mounted
    /// It is mounted, but its file system has shut down after an error: nothing on it can be
    /// accessed.
    case broken
    case notMounted
}
