package import Base

/// May a volume be taken from the instance that it is attached to?
package enum TakeoverPolicy: String, Sendable, CaseIterable {
    case never
    /// Unless that instance, running, bears the volume's lease.
    case unlessMounted = "unless-mounted"
    case always
}

/// The mark of a volume that is mounted: a tag that names the instance.
///
/// EC2 has no compare-and-swap, so the lease narrows the race of two hosts for a volume; AttachVolume
/// of a free volume decides it. A lease counts while its instance is the one that the volume is
/// attached to: what an instance left behind when it lost the volume says nothing.
package enum Lease {
    package static let tag = "polarity-ecs-ebs-plugin:mounted-on"

    /// Whether `owner`, which the volume is attached to, bears its lease.
    package static func isHeld(by owner: InstanceID, on volume: VolumeDescription) -> Bool {
        volume.tags[tag] == owner.description
    }
}

/// What to do about a volume that is attached elsewhere.
package enum TakeoverDecision: Sendable, Equatable {
    case detach
    /// The owner bears the lease: whether it is alive decides.
    case askOwner
    /// The owner is on its way down: it is looked at again.
    case wait

    /// Throws where the policy refuses, whatever the owner's state.
    package init(
        of volume: VolumeDescription, from owner: InstanceID, policy: TakeoverPolicy
    ) throws(OperationError) {
        switch policy {
        case .always: self = .detach
        case .unlessMounted:
            self = Lease.isHeld(by: owner, on: volume) ? .askOwner : .detach
        case .never:
            throw unusable(
                volume.id, "it is attached to \(owner), and takeover is never",
                advice: "detach it there, or create it with -o takeover=unless-mounted")
        }
    }

    /// The answer to `askOwner`. Throws for an owner that runs.
    ///
    /// - Parameter state: nil for an instance that EC2 does not know any more.
    package init(
        of id: VolumeID, from owner: InstanceID, in state: InstanceDescription.State?
    ) throws(OperationError) {
        switch state {
        case .stopped, .terminated, nil: self = .detach
        case .stopping, .shuttingDown: self = .wait
        default:
            throw unusable(
                id, "it is mounted on \(owner), which is running",
                advice: "stop the task there; with takeover=always it is taken all the same, and "
                    + "that instance loses what it has not written")
        }
    }
}

/// Whether an instance is surely down, for good or until somebody starts it. Its kernel is gone, and
/// with it what it had not written: a detachment from it that does not end by itself may be forced.
///
/// - Parameter state: nil for an instance that EC2 does not know. With a volume attached to it that is
///   no proof: EC2 detaches what a terminated instance had, and an answer may be missing something.
package func isDown(_ state: InstanceDescription.State?) -> Bool {
    state == .stopped || state == .terminated
}
