package import Base

/// The situation of a volume, as seen from one instance.
package enum Situation: Sendable, Equatable {
    /// Attached to nothing: it can be attached here.
    case free
    /// Attached or being attached here, under this name.
    case here(deviceName: String?)
    /// Attached to another instance.
    case elsewhere(InstanceID)
    /// Being detached from an instance; free after a while.
    case leaving(InstanceID)
    /// Being created; free after a while.
    case creating

    /// Throws if the volume cannot be used, whatever is done.
    package init(
        of volume: VolumeDescription, seenFrom host: Host, readOnly: Bool
    ) throws(OperationError) {
        try Self.checkState(of: volume)
        try Self.checkZone(of: volume, host)
        if volume.multiAttachEnabled && !readOnly {
            throw unusable(
                volume.id, "it is enabled for Multi-Attach, but a file system has one writer",
                advice: "create it with -o read-only=true, or use a volume without Multi-Attach")
        }
        let attachments = volume.attachments.filter { $0.state != .detached }
        if let own = attachments.first(where: { $0.instance == host.instance }) {
            self = own.isLeaving ? .leaving(host.instance) : .here(deviceName: own.device)
        } else if let other = attachments.first, !volume.multiAttachEnabled {
            guard let instance = other.instance else {
                throw unusable(
                    volume.id,
                    "it is attached to something that is not an EC2 instance of this account",
                    advice: "an AWS service, such as Fargate, manages it: use another volume")
            }
            self = other.isLeaving ? .leaving(instance) : .elsewhere(instance)
        } else {
            self = volume.state == .creating ? .creating : .free
        }
    }

    private static func checkState(of volume: VolumeDescription) throws(OperationError) {
        switch volume.state {
        case .available, .inUse, .creating: return
        case .deleting, .deleted:
            throw unusable(
                volume.id, "it is being deleted, or deleted", advice: "use another volume")
        case .error:
            throw unusable(
                volume.id, "EC2 says that it is in the state error",
                advice: "its data is not accessible: restore a snapshot to a new volume")
        case .other(let state):
            throw unusable(volume.id, "EC2 says that it is in the state \(quoted(state))")
        }
    }

    private static func checkZone(
        of volume: VolumeDescription, _ host: Host
    ) throws(OperationError) {
        guard volume.availabilityZone == host.availabilityZone else {
            throw unusable(
                volume.id,
                """
                it is in the Availability Zone \(volume.availabilityZone), and this instance, \
                \(host.instance), is in \(host.availabilityZone)
                """,
                advice: """
                    place the task in \(volume.availabilityZone), or restore a snapshot of the \
                    volume in \(host.availabilityZone)
                    """)
        }
    }
}

extension Situation {
    /// Whether the volume is attached to this instance, which is the one that looked, or still
    /// being detached from it.
    package func isOn(_ instance: InstanceID) -> Bool {
        if case .here = self { true } else { self == .leaving(instance) }
    }
}

extension VolumeDescription {
    /// The volume's attachment to that instance, unless EC2 says that it has ended.
    package func attachment(to instance: InstanceID) -> VolumeAttachment? {
        attachments.first { $0.instance == instance && $0.state != .detached }
    }
}

extension Situation: CustomStringConvertible {
    package var description: String {
        switch self {
        case .free: "free"
        case .here(let name): "attached here as \(name ?? "an unknown name")"
        case .elsewhere(let owner): "attached to \(owner)"
        case .leaving(let owner): "being detached from \(owner)"
        case .creating: "being created"
        }
    }
}

extension VolumeDescription {
    /// The command that keeps the volume when its instance is terminated; nil if it is kept anyway.
    package var deletionWarning: String? {
        guard let own = attachments.first(where: \.deleteOnTermination),
            let instance = own.instance, let device = own.device
        else { return nil }
        return "to keep it: aws ec2 modify-instance-attribute --instance-id \(instance) "
            + "--block-device-mappings DeviceName=\(device),Ebs={DeleteOnTermination=false}"
    }
}

extension VolumeAttachment {
    /// Whether a detachment is in progress. `busy` means that it waits for the instance to unmount
    /// the volume, as on Xen.
    fileprivate var isLeaving: Bool { state == .detaching || state == .busy }
}

package func unusable(
    _ volume: VolumeID, _ found: String, advice: String? = nil
) -> OperationError {
    OperationError(.unusableVolume, doing: "use \(volume)", found: found, advice: advice)
}

/// The consequence of an error of AttachVolume.
package enum AttachRefusal: Sendable, Equatable {
    /// Another name may work.
    case nameInUse
    /// The volume is in another state than assumed: look again.
    case volumeChanged
    /// The instance has reached its attachment limit.
    case limitReached
    /// Nothing that can be fixed here.
    case final

    /// Codes: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
    package init(code: String, message: String) {
        switch code {
        case "InvalidParameterValue" where message.range(ofFirst: "already in use") != nil,
            "InvalidDevice.InUse":
            self = .nameInUse
        case "VolumeInUse", "IncorrectState": self = .volumeChanged
        case "AttachmentLimitExceeded": self = .limitReached
        default: self = .final
        }
    }

    /// Nil where EC2 has refused nothing.
    package init?(_ failure: EC2Failure) {
        guard case .refused(let code, let message, _) = failure else { return nil }
        self.init(code: code, message: message)
    }
}

/// Whether an error of DetachVolume says that there is nothing left to detach.
package func isAlreadyDetached(code: String) -> Bool {
    ["IncorrectState", "InvalidAttachment.NotFound", "InvalidVolume.NotFound"].contains(code)
}

/// What to do with a device, based on its contents.
package enum ContentDecision: Sendable, Equatable {
    case mount(type: String)
    case format

    /// The file systems that are mounted as they are. Not btrfs: it cannot be proved that a mount
    /// of btrfs is of this device.
    package static let mountable = ["xfs", "ext4", "ext3", "ext2"]

    /// Throws for contents that may neither be mounted nor formatted.
    ///
    /// - Parameter description: needed only for a blank device: a volume that was created from a
    ///   snapshot is not new, whatever its first and last MiB contain.
    /// - Parameter wasFormatting: whether a format was begun here and its end is not known.
    package init(
        _ content: DeviceContent, on device: BlockDevice, of description: VolumeDescription,
        options: VolumeOptions, wasFormatting: Bool = false
    ) throws(OperationError) {
        func refuse(_ found: String, _ advice: String) -> OperationError {
            OperationError(
                .content, doing: "mount \(description.id) from \(device.path)", found: found,
                advice: advice)
        }
        switch content {
        case .fileSystem(let type, _, _) where Self.mountable.contains(type):
            self = .mount(type: type)
        case .fileSystem(let type, _, _):
            throw refuse(
                "it holds a file system of type \(quoted(type)), which is not supported",
                "the types are \(Self.mountable.joined(separator: ", ")); nothing was changed")
        case .signature(let kind):
            throw refuse(
                "it holds \(kind), and only an empty volume is formatted",
                kind.range(ofFirst: "partition table") == nil
                    ? "use a volume whose file system is on the whole device; nothing was changed"
                    : "create it with -o partition=1, or 2 …, to mount that partition; nothing was "
                        + "changed")
        case .several(let kinds):
            throw refuse(
                "it holds \(kinds.joined(separator: " and ")) at once, and using one of them may "
                    + "destroy the other",
                "take a snapshot, see which of them has data ('wipefs' without options lists "
                    + "them and writes nothing), and erase the other with 'wipefs --offset'"
                    + (options.partition == nil
                        && kinds.contains { $0.range(ofFirst: "partition table") != nil }
                        ? "; or, if the data is in a partition, create it with -o partition=1, "
                            + "or 2 …" : "")
                    + "; nothing was changed")
        case .unfinished where wasFormatting && !options.readOnly && options.partition == nil:
            self = .format
        case .unfinished(let type):
            throw refuse(
                "the creation of the \(type) on it was interrupted, so it contains no files",
                "to have it formatted again, run 'blkdiscard --zeroout' on it; nothing was changed")
        case .unknownData:
            throw refuse(
                "it holds data without a known file system, and only an empty volume is formatted",
                "if the data is not needed, 'blkdiscard --zeroout' it, or use a new volume; "
                    + "nothing was changed")
        case .blank where options.partition != nil:
            throw refuse(
                "the partition is empty, and partitions are never formatted",
                "create a file system on it by hand; nothing was changed")
        case .blank where options.readOnly:
            throw refuse("it is empty, and was to be mounted read-only", "mount it writable once")
        case .blank where description.snapshotID != nil:
            throw refuse(
                "it looks empty, but was created from the snapshot \(description.snapshotID ?? "")",
                "create a file system on it by hand if it should be empty; nothing was changed")
        case .blank: self = .format
        }
    }
}

/// Whether a failed DetachVolume from another instance ends the attempt to take the volume.
/// Otherwise a new look decides: the volume may be free, its instance gone, or EC2 busy.
package func isFinal(detachmentFailure failure: EC2Failure, isForced: Bool) -> Bool {
    guard let code = failure.code else {
        if case .noCredentials = failure { return true }
        return false
    }
    guard !failure.isThrottling, !isAlreadyDetached(code: code),
        !passingDetachmentCodes.contains(code)
    else { return false }
    return !isForced || code == "UnauthorizedOperation"
}

/// Sources: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
private let passingDetachmentCodes: Set<String> = [
    "InvalidInstanceID.NotFound", "IncorrectInstanceState", "InternalError", "InternalFailure",
    "ServiceUnavailable", "Unavailable",
]

/// What to do after the tag of a lease could not be written.
package enum LeaseRecovery: Sendable, Equatable {
    /// The request could not go out soon enough after the look behind it: look again.
    case writeLater
    /// The volume cannot have a lease: this host may not write its tag, or there is no place for
    /// it.
    case goWithout
    case giveUp

    package init(after failure: EC2Failure) {
        if case .outdated = failure {
            self = .writeLater
            return
        }
        self =
            ["UnauthorizedOperation", "TagLimitExceeded"].contains(failure.code)
            ? .goWithout : .giveUp
    }
}

/// Whether to remove a tag again would fail again: this host may not, or the volume is gone.
package func isTagRemovalVain(after error: any Error) -> Bool {
    ["UnauthorizedOperation", "InvalidVolume.NotFound"].contains(error.ec2Failure?.code)
}
