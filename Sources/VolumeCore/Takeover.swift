package import Base

/// May a volume be taken from the instance that it is attached to?
package enum TakeoverPolicy: String, Sendable, CaseIterable {
    case never
    /// From a running instance only if this plugin attached it there and has released it.
    case ifReleased = "if-released"
    /// Unless that instance, running, bears the volume's lease.
    case unlessMounted = "unless-mounted"
    case always
}

/// The mark of a volume that is mounted: a tag that names the instance.
///
/// EC2 has no compare-and-swap, so the lease narrows the race of two hosts for a volume;
/// AttachVolume of a free volume decides it. A lease counts while its instance is the one that the
/// volume is attached to: what an instance left behind when it lost the volume says nothing.
package enum Lease {
    package static let tag = "polarity-ecs-ebs-plugin:mounted-on"

    /// Whether `owner`, which the volume is attached to, bears its lease.
    package static func isHeld(by owner: InstanceID, on volume: VolumeDescription) -> Bool {
        volume.tags[tag] == owner.description
    }

    /// Whether the lease can be written at all: a resource bears 50 tags, besides AWS's own.
    ///
    /// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html, tag restrictions.
    package static func hasRoom(on volume: VolumeDescription) -> Bool {
        volume.tags[tag] != nil
            || volume.tags.keys.count { !$0.hasPrefix("aws:") } < Limit.tagsPerVolumeMax
    }
}

/// The mark of an attachment that this plugin made: a tag that names the instance and the volume.
/// The volume's own id is part of it because tags are copied, with a backup for instance.
package enum AttachmentMark {
    package static let tag = "polarity-ecs-ebs-plugin:attached-by"

    package static func value(of volume: VolumeID, on instance: InstanceID) -> String {
        "\(instance) \(volume)"
    }

    package static func isBorne(by volume: VolumeDescription, for instance: InstanceID) -> Bool {
        volume.tags[tag] == value(of: volume.id, on: instance)
    }
}

/// What EC2 said of the instance that has a volume.
package struct OwnerLook: Sendable, Equatable {
    package var id: InstanceID
    /// Nil for an instance that EC2 does not know.
    package var description: InstanceDescription?
    /// When EC2 was asked.
    package var askedAt: Instant

    package init(id: InstanceID, description: InstanceDescription?, askedAt: Instant) {
        self.id = id
        self.description = description
        self.askedAt = askedAt
    }

    /// Whether the instance is surely down, for good or until somebody starts it. Its kernel is
    /// gone, and with it what it had not written: a detachment from it that does not end by itself
    /// may be forced. A hibernated one's kernel is not gone.
    ///
    /// An instance that EC2 does not know is no proof while a volume is attached to it: EC2
    /// detaches what a terminated instance had, and an answer may be missing something.
    package var isDown: Bool {
        guard let description, !description.isHibernated else { return false }
        return description.state == .stopped || description.state == .terminated
    }

    /// Whether the look still tells enough at that time: an instance can be started at any moment.
    package func isFresh(at now: Instant) -> Bool { now < askedAt + Limit.ownerLookAgeMax }

    /// Throws for a volume that the instance boots from: what is on it belongs to that instance.
    package func refuseRoot(_ volume: VolumeID, attachedAs name: String?) throws(OperationError) {
        guard let root = description?.rootDeviceName, root == name else { return }
        throw unusable(
            volume, "it is the root volume of \(id), attached there as \(root)",
            advice: "use another volume, or a snapshot of this one")
    }
}

/// What a host has seen of a volume that another instance has, in the course of one Mount.
package struct TakeoverFacts: Sendable {
    package var policy: TakeoverPolicy
    package var owner: InstanceID
    /// The newest answer of DescribeVolumes, and when it was asked for.
    package var volume: VolumeDescription
    package var lookedAt: Instant
    package var ownerLook: OwnerLook?
    /// Whether a look of this Mount has shown the owner's lease.
    package var hasSeenLease: Bool
    /// When the first look was asked for that showed no lease; nil before, and after one that did.
    package var unleasedSince: Instant?
    /// Whether this host may write leases; nil while it is not known.
    package var mayLease: Bool?
    /// Until when the end of a running owner's lease is waited for.
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
    /// Ask EC2 for the owner.
    case askOwner
    /// Ask EC2 whether this host may write the volume's tags.
    case askPermission
    /// Ask EC2 to detach the volume. The request has to go out by then: later, the owner may have
    /// mounted it.
    case detach(sentBy: Instant)
    /// Look at the volume again, at that time or, without one, after a pause.
    case lookAgain(at: Instant?)

    /// Throws where the volume stays where it is.
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

    /// The owner's task may have just ended: its lease goes soon after. One that goes down is
    /// waited for in any case.
    private static func whileLeased(
        _ facts: TakeoverFacts, _ look: OwnerLook, _ now: Instant
    ) throws(OperationError) -> TakeoverStep {
        if look.description?.isHibernated == true {
            throw unusable(
                facts.volume.id,
                "it is mounted on \(facts.owner), which is hibernated: its memory has what is not "
                    + "written yet",
                advice: "start that instance and stop the task there")
        }
        let isGoingDown = [.stopping, .shuttingDown].contains(look.description?.state)
        if isGoingDown || now < facts.patience { return .lookAgain(at: nil) }
        throw unusable(
            facts.volume.id, "it is mounted on \(facts.owner), which is running",
            advice: "stop the task there; takeover=always takes the volume from under it, and what "
                + "the task there has not written is lost")
    }

    /// A running owner without a lease: what DescribeVolumes tells of tags may be seconds old, so
    /// it is looked at twice, unless the lease was seen to go.
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
                        ? "the volume has as many tags as it may: nothing tells whether it is mounted"
                        : "this instance's role may not write tags, so its neighbours may not be able "
                            + "to tell by one that they have it mounted"),
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
