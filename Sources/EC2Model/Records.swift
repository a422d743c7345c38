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
    package var type: String
    package var multiAttach: Bool
    /// The ARN of the key of an encrypted volume.
    package var kmsKeyID: String?
    package var createdAt: Int64
    package var attachments: [Attachment] = []
    package var tags: [String: String]

    package init(
        id: VolumeID, state: State = .available, zone: String, bytes: UInt64,
        snapshotID: String? = nil, type: String = "gp3", multiAttach: Bool = false,
        kmsKeyID: String? = nil, createdAt: Int64, tags: [String: String] = [:]
    ) {
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
    package var gibibytes: UInt64 { (bytes + (1 << 30) - 1) >> 30 }

    func index(of instance: InstanceID) -> Int? {
        attachments.firstIndex { $0.instance == instance }
    }
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
