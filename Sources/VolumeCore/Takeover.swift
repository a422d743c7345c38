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
    case detach(force: Bool)
    /// The owner is on its way down: it is looked at again.
    case wait

    /// - Parameters:
    ///   - ownerState: nil for an instance that EC2 does not know any more. Needed only where
    ///     `TakeoverDecision.dependsOnOwner`; the answer to "is it running" else is yes.
    package init(
        of volume: VolumeDescription, from owner: InstanceID,
        ownerState: InstanceDescription.State?, policy: TakeoverPolicy
    ) throws(OperationError) {
        switch ownerState {
        // Its kernel is gone, and with it whatever was not written: nothing is left to be gentle to.
        case .stopped, .terminated, nil:
            guard policy != .never else { throw Self.refusal(volume.id, owner, policy) }
            self = .detach(force: true)
        case .stopping, .shuttingDown:
            guard policy != .never else { throw Self.refusal(volume.id, owner, policy) }
            self = policy == .always ? .detach(force: false) : .wait
        case .pending, .running, .other:
            switch policy {
            case .always: self = .detach(force: false)
            case .unlessMounted where !Lease.isHeld(by: owner, on: volume):
                self = .detach(force: false)
            case .never, .unlessMounted: throw Self.refusal(volume.id, owner, policy)
            }
        }
    }

    private static func refusal(
        _ id: VolumeID, _ owner: InstanceID, _ policy: TakeoverPolicy
    ) -> OperationError {
        switch policy {
        case .never:
            unusable(
                id, "it is attached to \(owner), and takeover is never",
                advice: "detach it there, or create it with -o takeover=unless-mounted")
        case .unlessMounted, .always:
            unusable(
                id, "it is mounted on \(owner), which is running",
                advice: "stop the task there; takeover=always takes it from a running instance, "
                    + "which then loses what it has not written")
        }
    }
}
