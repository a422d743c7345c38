package import Base

/// Whether a volume may be taken from the instance that it is attached to.
package enum TakeoverPolicy: String, Sendable, CaseIterable {
    case never
    /// From a running instance only if this plugin attached it there and has released it.
    case ifReleased = "if-released"
    /// Unless that instance is running and holds the volume's lease.
    case unlessMounted = "unless-mounted"
    case always
}

/// The lease of a mounted volume: a tag that names the instance.
///
/// EC2 has no compare-and-swap, so the lease narrows the race of two hosts for a volume;
/// AttachVolume of a free volume decides it. A lease counts only while its instance is the one that
/// the volume is attached to: a lease that an instance left behind when it lost the volume means
/// nothing.
package enum Lease {
    package static let tag = "polarity-ecs-ebs-plugin:mounted-on"

    /// Whether `owner`, which the volume is attached to, holds its lease.
    package static func isHeld(by owner: InstanceID, on volume: VolumeDescription) -> Bool {
        volume.tags[tag] == owner.description
    }

    /// Whether the lease can be written at all: a resource can have 50 tags in addition to AWS's
    /// own.
    ///
    /// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html, tag restrictions.
    package static func hasRoom(on volume: VolumeDescription) -> Bool {
        volume.tags[tag] != nil
            || volume.tags.keys.count { !$0.hasPrefix("aws:") } < Limit.tagsPerVolumeMax
    }
}

/// The mark of an attachment that this plugin made: a tag that names the instance, the volume and
/// the device name. The volume's own id is part of it because tags are copied, for example with a
/// backup; the device name, because the mark of an attachment that has ended may have stayed.
package enum AttachmentMark {
    package static let tag = "polarity-ecs-ebs-plugin:attached-by"

    package static func value(
        of volume: VolumeID, on instance: InstanceID, as name: String
    ) -> String { "\(instance) \(volume) \(name)" }

    /// Whether the volume is attached to the instance, and has the mark of that attachment.
    package static func isBorne(by volume: VolumeDescription, for instance: InstanceID) -> Bool {
        guard let name = volume.attachment(to: instance)?.device else { return false }
        return volume.tags[tag] == value(of: volume.id, on: instance, as: name)
    }
}

/// EC2's description of the instance that has a volume.
package struct OwnerLook: Sendable, Equatable {
    package var id: InstanceID
    /// Nil if EC2 does not know the instance.
    package var description: InstanceDescription?
    /// When EC2 was asked.
    package var askedAt: Instant

    package init(id: InstanceID, description: InstanceDescription?, askedAt: Instant) {
        self.id = id
        self.description = description
        self.askedAt = askedAt
    }

    /// Whether the instance is certainly down, permanently or until somebody starts it. Then its
    /// kernel is gone, together with unwritten data, so a detachment that does not finish may be
    /// forced. The kernel of a hibernated instance is not gone.
    ///
    /// If EC2 does not know the instance, this proves nothing while a volume is attached to it: EC2
    /// detaches the volumes of a terminated instance, and a response may be incomplete.
    package var isDown: Bool {
        guard let description, !description.isHibernated else { return false }
        return description.state == .stopped || description.state == .terminated
    }

    /// Whether the look is still fresh enough at that time: an instance can be started at any
    /// moment.
    package func isFresh(at now: Instant) -> Bool { now < askedAt + Limit.ownerLookAgeMax }

    /// Throws if the instance boots from the volume: its contents belong to that instance.
    package func refuseRoot(_ volume: VolumeID, attachedAs name: String?) throws(OperationError) {
        guard let root = description?.rootDeviceName, root == name else { return }
        throw unusable(
            volume, "it is the root volume of \(id), attached there as \(root)",
            advice: "use another volume, or a snapshot of this one")
    }
}

/// What a host has seen, during one Mount, of a volume that another instance has.
package struct TakeoverFacts: Sendable {
    package var policy: TakeoverPolicy
    package var owner: InstanceID
    /// The newest response of DescribeVolumes, and when it was requested.
    package var volume: VolumeDescription
    package var lookedAt: Instant
    package var ownerLook: OwnerLook?
    /// Whether a look of this Mount has shown the owner's lease.
    package var hasSeenLease: Bool
    /// When the first look without a lease was requested; nil before, and after a look with one.
    package var unleasedSince: Instant?
    /// Whether this host may write leases; nil while unknown.
    package var mayLease: Bool?
    /// Until when to wait for the end of a running owner's lease.
    package var patience: Instant

    package init(
        policy: TakeoverPolicy, owner: InstanceID, volume: VolumeDescription, lookedAt: Instant,
        ownerLook: OwnerLook?, hasSeenLease: Bool, unleasedSince: Instant?, mayLease: Bool?,
        patience: Instant
    ) {
        self.policy = policy
        self.owner = owner
        self.volume = volume
        self.lookedAt = lookedAt
        self.ownerLook = ownerLook
        self.hasSeenLease = hasSeenLease
        self.unleasedSince = unleasedSince
        self.mayLease = mayLease
        self.patience = patience
    }
}

/// What to do next about a volume that is attached to another instance.
package enum TakeoverStep: Sendable, Equatable {
    /// Ask EC2 to describe the owner.
    case askOwner
    /// Ask EC2 whether this host may write the volume's tags.
    case askPermission
    /// Ask EC2 to detach the volume. The request must be sent by then: later, the owner may have
    /// mounted it.
    case detach(sentBy: Instant)
    /// Look at the volume again, at that time, or after a pause if nil.
    case lookAgain(at: Instant?)

    /// Throws if the volume must stay where it is.
    package static func next(
        _ facts: TakeoverFacts, now: Instant
    ) throws(OperationError) -> TakeoverStep {
        if facts.policy == .never {
            throw unusable(
                facts.volume.id, "it is attached to \(facts.owner), and takeover is never",
                advice: "detach it there, or create it with -o takeover=unless-mounted")
        }
        guard let look = facts.ownerLook, look.id == facts.owner, look.isFresh(at: now) else {
            return .askOwner
        }
        let attachment = facts.volume.attachments.first { $0.instance == facts.owner }
        try look.refuseRoot(facts.volume.id, attachedAs: attachment?.device)
        guard facts.policy != .always, !look.isDown, look.description != nil else {
            return detachSoon(facts, now)
        }
        if Lease.isHeld(by: facts.owner, on: facts.volume) {
            return try whileLeased(facts, look, now)
        }
        return try unleased(facts, now)
    }

    /// The owner's task may have just ended; then its lease is dropped soon. An owner that is
    /// shutting down is waited for in any case.
    private static func whileLeased(
        _ facts: TakeoverFacts, _ look: OwnerLook, _ now: Instant
    ) throws(OperationError) -> TakeoverStep {
        if look.description?.isHibernated == true {
            throw unusable(
                facts.volume.id,
                "it is mounted on \(facts.owner), which is hibernated: its memory has data that is not "
                    + "written yet",
                advice: "start that instance and stop the task there")
        }
        let isGoingDown = [.stopping, .shuttingDown].contains(look.description?.state)
        if isGoingDown || now < facts.patience { return .lookAgain(at: nil) }
        throw unusable(
            facts.volume.id, "it is mounted on \(facts.owner), which is running",
            advice: "stop the task there; takeover=always takes the mounted volume, and data that "
                + "the task there has not written is lost")
    }

    /// A running owner without a lease: DescribeVolumes may return tags that are seconds old, so
    /// there are two looks, unless the lease was seen to disappear.
    private static func unleased(
        _ facts: TakeoverFacts, _ now: Instant
    ) throws(OperationError) -> TakeoverStep {
        if facts.policy == .ifReleased,
            !AttachmentMark.isBorne(by: facts.volume, for: facts.owner)
        {
            throw unusable(
                facts.volume.id,
                "it is attached to \(facts.owner), takeover is if-released, and no tag says that this "
                    + "plugin attached it there and has released it",
                advice: "detach it there, or create it with -o takeover=unless-mounted")
        }
        guard let mayLease = facts.mayLease else { return .askPermission }
        guard mayLease, Lease.hasRoom(on: facts.volume) else {
            throw unusable(
                facts.volume.id,
                "it is attached to \(facts.owner), which is running, and "
                    + (mayLease
                        ? "the volume has no room for a tag: nothing says whether it is mounted"
                        : "this instance's role may not write tags, so other instances may not be able "
                            + "to show by a tag that they have it mounted"),
                advice: (mayLease
                    ? "remove a tag of the volume" : "allow ec2:CreateTags to the instances' role")
                    + ", or detach it there, or create it with -o takeover=always")
        }
        let second = (facts.unleasedSince ?? facts.lookedAt) + Limit.tagLagMax
        if !facts.hasSeenLease, facts.lookedAt < second { return .lookAgain(at: second) }
        return detachSoon(facts, now)
    }

    private static func detachSoon(_ facts: TakeoverFacts, _ now: Instant) -> TakeoverStep {
        let latest = facts.lookedAt + Limit.takeoverLookAgeMax
        return now < latest ? .detach(sentBy: latest) : .lookAgain(at: now)
    }
}
