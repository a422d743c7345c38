package import Base

/// A volume of the simulated Region.
package struct Volume: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case creating, available, inUse = "in-use", deleting
    }

    package var id: VolumeID
    package var state: State
    package var zone: String
    /// The size of the backing file, in bytes.
    package var bytes: UInt64
    package var snapshotID: String?
    /// The volume of which it is a copy, by CopyVolumes.
    package var sourceVolumeID: VolumeID?
    package var type: String
    /// As ordered, or the default of its type; nil for a type without provisioned IOPS.
    package var iops: Int?
    /// In MiB/s; only gp3 has one.
    package var throughput: Int?
    package var multiAttach: Bool
    /// In MiB/s, if it was ordered.
    package var initializationRate: Int?
    /// The ARN of the key of an encrypted volume.
    package var kmsKeyID: String?
    package var createdAt: Int64
    package var attachments: [Attachment] = []
    package var tags: [String: String]

    /// `iops` and `throughput` have the defaults of the type.
    package init(
        id: VolumeID, state: State = .available, zone: String, bytes: UInt64,
        snapshotID: String? = nil, type: String = "gp3", multiAttach: Bool = false,
        kmsKeyID: String? = nil, createdAt: Int64, tags: [String: String] = [:]
    ) {
        let rules = VolumeTypeRules(type)
        iops = rules?.defaultIOPS
        throughput = rules?.defaultThroughput
        self.id = id
        self.state = state
        self.zone = zone
        self.bytes = bytes
        self.snapshotID = snapshotID
        self.type = type
        self.multiAttach = multiAttach
        self.kmsKeyID = kmsKeyID
        self.createdAt = createdAt
        self.tags = tags
    }

    /// As EC2 reports it: whole GiB, rounded up.
    package var gibibytes: UInt64 { roundedGibibytes(bytes) }

    func index(of instance: InstanceID) -> Int? {
        attachments.firstIndex { $0.instance == instance }
    }
}

func roundedGibibytes(_ bytes: UInt64) -> UInt64 { (bytes + (1 << 30) - 1) >> 30 }

/// A snapshot of a volume.
package struct Snapshot: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable { case pending, completed, error }

    /// `snap-` and 8 or 17 hexadecimal digits.
    package var id: String
    package var state: State
    package var volume: VolumeID
    /// The size of the volume's backing file when it was taken.
    package var bytes: UInt64
    package var kmsKeyID: String?
    package var description: String
    package var startedAt: Int64
    package var tags: [String: String]
    /// From its start to its completion.
    var span: Span
    /// Whether it is deleted as soon as it is no longer pending.
    var isDeletedWhenDone = false

    package init(
        id: String, state: State = .completed, volume: VolumeID, bytes: UInt64,
        kmsKeyID: String? = nil, description: String = "", startedAt: Int64,
        tags: [String: String] = [:]
    ) {
        self.id = id
        self.state = state
        self.volume = volume
        self.bytes = bytes
        self.kmsKeyID = kmsKeyID
        self.description = description
        self.startedAt = startedAt
        self.tags = tags
        span = Span(begin: Instant(nanoseconds: 0), end: Instant(nanoseconds: 0))
    }

    /// As EC2 reports it: whole GiB, rounded up.
    package var gibibytes: UInt64 { roundedGibibytes(bytes) }

    package static func isID(_ text: String) -> Bool {
        let digits = text.dropFirst(5)
        return text.hasPrefix("snap-") && (digits.count == 8 || digits.count == 17)
            && digits.allSatisfy { $0.isHexDigit && !$0.isUppercase }
    }
}

/// Something that progresses evenly.
struct Span: Sendable, Equatable {
    var begin: Instant
    var end: Instant

    /// From 0 to 99 before the end, then 100.
    func percent(at now: Instant) -> Int {
        guard now > begin else { return 0 }
        guard now < end else { return 100 }
        return Int(99 * (now - begin).nanoseconds / max(1, (end - begin).nanoseconds))
    }
}

/// A modification of a volume.
package struct Modification: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case modifying, optimizing, completed, failed
    }

    package var volume: VolumeID
    package var state = State.modifying
    package var original: Specification
    package var target: Specification
    package var startedAt: Int64
    package var endedAt: Int64?
    var span: Span

    /// Whether another modification has to wait.
    var isRunning: Bool { state == .modifying || state == .optimizing }
}

/// What can be ordered of a volume, and modified.
package struct Specification: Sendable, Equatable {
    package var type: String
    package var gibibytes: Int
    package var iops: Int?
    package var throughput: Int?
    package var multiAttach: Bool
}

/// The account's limits in the Region; nil means none. Each is for one volume type.
package struct Quotas: Sendable, Equatable {
    /// GiB of all volumes of the type.
    package var storage: [String: Int] = [:]
    /// Provisioned IOPS of all volumes of the type.
    package var iops: [String: Int] = [:]

    package init() {}
}

/// A volume's attachment to one instance.
package struct Attachment: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case attaching, attached, detaching, busy
    }

    /// The state of the device on the instance.
    package enum Device: Sendable, Equatable {
        /// Absent, without a pending order.
        case absent
        /// Ordered, or present.
        case present
        /// Its removal is ordered.
        case leaving
    }

    package var instance: InstanceID
    /// The requested name, `/dev/sdf`.
    package var deviceName: String
    package var state: State
    package var device = Device.absent
    /// The device's path, once it is present.
    package var node: String?
    package var attachedAt: Int64
    /// Whether the volume is deleted with its instance.
    package var deleteOnTermination = false
    /// The EBS card that carries it; nil if the instance has only one.
    package var ebsCard: Int?
    var force = false
    /// Distinguishes this attachment from a later one of the same volume and instance.
    var number: Int
    var plug: DeviceOrder.Plug
}

/// An instance of the simulated Region.
package struct Instance: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case pending, running, stopping, stopped, shuttingDown = "shutting-down", terminated

        /// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html.
        var code: Int {
            switch self {
            case .pending: 0
            case .running: 16
            case .shuttingDown: 32
            case .terminated: 48
            case .stopping: 64
            case .stopped: 80
            }
        }
    }

    package enum Mode: String, Sendable, CaseIterable { case nitro, xen }

    /// Whether each network interface after the first reduces the limit by one, on Nitro.
    package enum LimitType: String, Sendable, CaseIterable { case shared, dedicated }

    package var id: InstanceID
    package var type: String
    package var zone: String
    package var mode: Mode
    package var state: State
    package var launchedAt: Int64
    /// How many volumes it can have with one network interface, including the root volume.
    package var attachmentsMax: Int
    /// Nil: DescribeInstanceTypes reports neither this nor the limit, as before September 2025.
    package var limitType: LimitType? = .shared
    package var networkInterfaces = 1
    /// How many EBS cards it has.
    package var ebsCards = 1
    /// NVMe disks of the instance store; `attachmentsMax` already excludes them.
    package var instanceStoreDisks = 0
    /// Whether DetachVolume waits in the state `busy` until the guest has unmounted the volume, as
    /// on Xen. Nitro removes the device even while it is mounted.
    package var holdsDetachBack: Bool
    /// Whether it was launched with hibernation enabled.
    package var canHibernate = false
    /// Why it is not running, as EC2's code: `Client.UserInitiatedHibernate`.
    package var stateReason: String?
    package var tags: [String: String] = [:]

    package init(
        id: InstanceID, type: String, zone: String, mode: Mode = .nitro, state: State = .running,
        launchedAt: Int64, attachmentsMax: Int? = nil
    ) {
        self.id = id
        self.type = type
        self.zone = zone
        self.mode = mode
        self.state = state
        self.launchedAt = launchedAt
        holdsDetachBack = mode == .xen
        // As in DescribeInstanceTypes: 28 less one network interface for Nitro; 40 for Xen.
        self.attachmentsMax = attachmentsMax ?? (mode == .nitro ? 27 : 40)
    }

    package var rootDeviceName: String { mode == .nitro ? "/dev/xvda" : "/dev/sda1" }

    /// Whether its memory, including its mounts, survives its stop.
    var isHibernated: Bool { stateReason == Self.hibernated }

    static let hibernated = "Client.UserInitiatedHibernate"

    /// The root volume of an instance without an attachment under the root device's name.
    /// DescribeVolumes does not list it.
    var rootVolumeID: String { "vol-ffff" + id.description.dropFirst(6) }
}

/// An order of the model to the code that creates the devices, which reports the outcome to the
/// `Region`.
package struct DeviceOrder: Sendable, Equatable {
    package struct Plug: Sendable, Equatable {
        /// nvme<number>n1; nil for the next free one.
        package var number: Int?
        /// The serial number that the controller reports.
        package var serial: String
        /// Xen: the name of the node, `xvdf`; nil on Nitro.
        package var xenNode: String?
        /// Whether its node and sysfs entry survive a detachment while something has it mounted.
        package var stays = false

        package init(number: Int? = nil, serial: String, xenNode: String? = nil) {
            self.number = number
            self.serial = serial
            self.xenNode = xenNode
        }
    }

    package enum Kind: Sendable, Equatable {
        case plug(Plug)
        /// Removes the device unless something holds it; with `force`, even then.
        case unplug(force: Bool)
    }

    package var kind: Kind
    package var volume: VolumeID
    package var instance: InstanceID
    package var attachment: Int
}

/// An order of the model to the code that keeps the contents of volumes and snapshots. Orders are
/// executed one after another.
package enum StorageOrder: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        case blank
        case snapshot(String)
        case volume(VolumeID)
    }

    /// Creates a volume's content, of this size.
    case make(VolumeID, bytes: UInt64, from: Source)
    case grow(VolumeID, bytes: UInt64)
    case remove(VolumeID)
    /// Keeps the present content of the volume as a snapshot.
    case takeSnapshot(String, of: VolumeID)
    case removeSnapshot(String)
}

/// How long things take.
package struct Latency: Sendable, Equatable {
    /// An API call, from request to response; it is applied after half of this time.
    package var api = Duration.zero
    /// From an accepted AttachVolume until the device appears.
    package var device = Duration.zero
    /// From an accepted AttachVolume until the attachment is `attached`; EC2 couples this only
    /// loosely to the device, hence two figures.
    package var attached = Duration.zero
    /// From an accepted DetachVolume until the device disappears.
    package var detach = Duration.zero
    /// Until an instance has started, stopped or terminated, and a volume is created or deleted.
    package var change = Duration.zero
    /// From an accepted ModifyVolume until the state `optimizing`, in which the volume has its new
    /// size.
    package var modifying = Duration.zero
    /// From then until the modification is completed.
    package var optimizing = Duration.zero
    /// From an accepted CreateSnapshot until the snapshot is completed.
    package var snapshot = Duration.zero
    /// The age of the index that filters by tag use: a new volume or tag is found by id before it
    /// is found by tag.
    package var tagFilters = Duration.zero
    /// The age of DescribeVolumes' responses: EC2 is only eventually consistent.
    package var consistency = Duration.zero
    /// The age of the tags in them, if that is longer.
    package var tagConsistency = Duration.zero

    package init() {}
}

/// Something that happened, for timelines.
package struct Event: Sendable, Equatable {
    package var sequence: Int
    package var at: Instant
    package var name: String
    package var volume: VolumeID?
    package var instance: InstanceID?
    package var detail: String?
}
