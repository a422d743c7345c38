/// What DescribeVolumes says of one volume.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Volume.html. A value that this
/// version does not know is kept as its text, so that it reaches the operator.
package struct VolumeDescription: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case creating, available, inUse, deleting, deleted, error
        case other(String)
    }

    package var id: VolumeID
    package var state: State
    package var availabilityZone: String
    /// In GiB.
    package var size: Int
    /// Nil for a volume that was created empty.
    package var snapshotID: String?
    package var volumeType: String
    package var multiAttachEnabled: Bool
    /// The KMS key of an encrypted volume, as EC2 names it: an ARN.
    package var kmsKeyID: String?
    package var attachments: [VolumeAttachment]
    package var tags: [String: String]

    package init(
        id: VolumeID, state: State, availabilityZone: String, size: Int, snapshotID: String? = nil,
        volumeType: String = "", multiAttachEnabled: Bool = false, kmsKeyID: String? = nil,
        attachments: [VolumeAttachment] = [], tags: [String: String] = [:]
    ) {
        self.id = id
        self.state = state
        self.availabilityZone = availabilityZone
        self.size = size
        self.snapshotID = snapshotID
        self.volumeType = volumeType
        self.multiAttachEnabled = multiAttachEnabled
        self.kmsKeyID = kmsKeyID
        self.attachments = attachments
        self.tags = tags
    }
}

/// One attachment of a volume, as DescribeVolumes, AttachVolume and DetachVolume give it.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_VolumeAttachment.html.
package struct VolumeAttachment: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case attaching, attached, detaching, detached, busy
        case other(String)
    }

    package var volume: VolumeID
    /// Nil if EC2 names no instance, as for a volume that an AWS service (Fargate) uses.
    package var instance: InstanceID?
    /// The device name that was requested, `/dev/sdf`; nil if EC2 gives none.
    package var device: String?
    package var state: State
    /// Whether EC2 deletes the volume when the instance is terminated.
    package var deleteOnTermination: Bool

    package init(
        volume: VolumeID, instance: InstanceID?, device: String?, state: State,
        deleteOnTermination: Bool = false
    ) {
        self.volume = volume
        self.instance = instance
        self.device = device
        self.state = state
        self.deleteOnTermination = deleteOnTermination
    }
}

/// What DescribeInstances says of one instance.
package struct InstanceDescription: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case pending, running, shuttingDown, terminated, stopping, stopped
        case other(String)
    }

    package var id: InstanceID
    package var state: State
    package var instanceType: String
    package var availabilityZone: String
    package var mappings: [BlockDeviceMapping]
    /// The number of attached network interfaces.
    package var networkInterfaces: Int
    /// The device name of its root volume, `/dev/xvda`; nil if EC2 gives none.
    package var rootDeviceName: String?
    /// Whether it is stopped or stopping by hibernation: its next start restores its kernel's
    /// memory, including mounts and unwritten pages.
    package var isHibernated: Bool

    package init(
        id: InstanceID, state: State, instanceType: String = "", availabilityZone: String = "",
        mappings: [BlockDeviceMapping] = [], networkInterfaces: Int = 1,
        rootDeviceName: String? = nil, isHibernated: Bool = false
    ) {
        self.id = id
        self.state = state
        self.instanceType = instanceType
        self.availabilityZone = availabilityZone
        self.mappings = mappings
        self.networkInterfaces = networkInterfaces
        self.rootDeviceName = rootDeviceName
        self.isHibernated = isHibernated
    }
}

/// How many volumes an instance of one type can have, according to DescribeInstanceTypes.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsInfo.html. `volumesMax` already
/// excludes what the type itself uses: one network interface, the disks of its instance store, and
/// accelerators. So EC2 answers 27 for a t3.micro, whose limit is 28, and 26 for an m5d.large,
/// which has one disk (the table in github.com/kubernetes-sigs/aws-ebs-csi-driver,
/// pkg/cloud/limits).
package struct AttachmentLimit: Sendable, Equatable {
    package var instanceType: String
    /// Including the root volume.
    package var volumesMax: Int
    /// Whether each network interface after the first reduces the limit by one.
    package var isShared: Bool
    package var instanceStoreDisks: Int

    package init(
        instanceType: String, volumesMax: Int, isShared: Bool, instanceStoreDisks: Int = 0
    ) {
        self.instanceType = instanceType
        self.volumesMax = volumesMax
        self.isShared = isShared
        self.instanceStoreDisks = instanceStoreDisks
    }
}

/// A device name of an instance, and the volume that is attached under it; nil if it is not a
/// volume.
package struct BlockDeviceMapping: Sendable, Equatable {
    /// `/dev/sda1`.
    package var deviceName: String
    package var volume: VolumeID?

    package init(deviceName: String, volume: VolumeID?) {
        self.deviceName = deviceName
        self.volume = volume
    }
}

/// Why a call to EC2 failed.
package enum EC2Failure: Error, Sendable, Equatable, CustomStringConvertible {
    /// EC2 answered with an error. `code` is the API's error code, `VolumeInUse`.
    case refused(code: String, message: String, requestID: String)
    /// EC2 did not answer within the deadline. `mayHaveApplied` says that the request was sent, so
    /// it may have taken effect nevertheless.
    case unanswered(reason: String, mayHaveApplied: Bool)
    /// EC2's response cannot be understood.
    case malformed(reason: String)
    /// The request was not sent, because the facts that justify it would have been too old by then.
    case outdated(reason: String)
    /// There are no credentials to sign the request with; the reason says where they were looked
    /// for.
    case noCredentials(reason: String)

    /// EC2's error code, if EC2 answered with one.
    package var code: String? {
        if case .refused(let code, _, _) = self { code } else { nil }
    }

    /// Whether EC2 throttled the call, that is, rejected it because of the request rate, without
    /// executing it.
    ///
    /// Sources: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, and the list
    /// of docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html.
    package var isThrottling: Bool {
        switch code {
        case "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException",
            "RequestThrottled", "RequestThrottledException", "EC2ThrottledException",
            "TooManyRequestsException", "BandwidthLimitExceeded", "SlowDown",
            "PriorRequestNotComplete":
            true
        default: false
        }
    }

    package var description: String {
        switch self {
        case .refused(let code, let message, let requestID):
            "EC2 answered \(code): \(message) (request \(requestID))"
        case .unanswered(let reason, _): "EC2 did not answer: \(reason)"
        case .outdated(let reason): "the request was not sent: \(reason)"
        case .malformed(let reason): "EC2's answer cannot be understood: \(reason)"
        case .noCredentials(let reason): "no AWS credentials: \(reason)"
        }
    }
}
