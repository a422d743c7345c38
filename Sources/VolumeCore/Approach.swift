package import Base

/// What to do next until EC2 has a volume attached to this instance.
package enum AttachStep: Sendable, Equatable {
    /// Ask EC2 where the volume is.
    case look
    /// Ask again, at that time or, without one, after a pause.
    case lookAgain(at: Instant?)
    /// Use the attachment to this instance that EC2 tells of, by this name.
    case use(deviceName: String)
    /// Ask EC2 to attach the volume.
    case attach
    /// Ask EC2 for the instance that has the volume.
    case askOwner(InstanceID)
    /// Ask EC2 whether this host may write the volume's tags.
    case askPermission
    /// Ask EC2 to detach the volume from that instance. The request has to go out by then.
    case detach(from: InstanceID, force: Bool, sentBy: Instant)
}

/// One Mount's way to an attachment here: what it has seen so far, and what follows from that.
///
/// Whoever holds it takes the steps that `next` names, and notes here what came of each.
package struct Approach: Sendable {
    /// What EC2 has said of the volume, and what has become of it.
    private struct Look {
        let volume: VolumeDescription
        /// When EC2 was asked; nil where that was before this Mount.
        let askedAt: Instant?
        let situation: Situation
        /// Whether another volume here has the name that EC2 gives to this one: the answer is old
        /// then.
        var isNameAnothers = false
        /// The instance that the volume is leaving, asked for after this look.
        var leavingOwner: OwnerLook?
        /// Whether the one step that it justifies has been taken: nothing is asked twice on one
        /// look.
        var isUsedUp = false
    }

    private let id: VolumeID
    private let host: Host
    private let policy: TakeoverPolicy
    private let readOnly: Bool
    /// Until when to wait for the lease of a running instance.
    private let patience: Instant
    private var backoff = Backoff.looks
    private var look: Look?
    /// What keeps the volume from being attached, for the error at the deadline.
    private var obstacle = ""
    /// From when on the detachment from an instance that is down is forced; nil before one is seen.
    private var forcesFrom: Instant?
    private var ownerLook: OwnerLook?
    private var hasSeenLease = false
    private var unleasedSince: Instant?
    private var mayLease: Bool?

    package init(
        of id: VolumeID, to host: Host, policy: TakeoverPolicy, readOnly: Bool, since start: Instant
    ) {
        self.id = id
        self.host = host
        self.policy = policy
        self.readOnly = readOnly
        patience = start + Limit.leaseWaitMax
    }

    /// Takes what EC2 said before this Mount, where that is enough to attach the volume without
    /// another look: it was free. EC2 refuses what is attached by now. Not where an AttachVolume
    /// was not answered, for then the volume may be here.
    package mutating func recall(
        _ volume: VolumeDescription, isAttachUnanswered: Bool
    ) throws(OperationError) {
        guard volume.attachments.isEmpty, !isAttachUnanswered else { return }
        look = Look(
            volume: volume, askedAt: nil,
            situation: try Situation(of: volume, seenFrom: host, readOnly: readOnly))
    }

    /// Notes what EC2 says of the volume, asked at `askedAt`; returns where it stands. Throws where
    /// it cannot be used.
    ///
    /// - Parameter isAnothers: whether another volume that is here has that name.
    @discardableResult
    package mutating func note(
        _ volume: VolumeDescription, askedAt: Instant, now: Instant,
        isAnothers: (String) -> Bool
    ) throws(OperationError) -> Situation {
        let situation = try Situation(of: volume, seenFrom: host, readOnly: readOnly)
        obstacle = "EC2 says that the volume is \(situation)"
        var look = Look(volume: volume, askedAt: askedAt, situation: situation)
        switch situation {
        case .here(let name?): look.isNameAnothers = isAnothers(name)
        case .elsewhere(let owner): noteLease(on: volume, askedAt: askedAt, owner: owner)
        case .leaving(let owner) where isForcible(owner):
            forcesFrom = forcesFrom ?? now + Limit.gentleDetachTimeMax
        case .here, .leaving, .free, .creating: break
        }
        self.look = look
        return situation
    }

    private mutating func noteLease(
        on volume: VolumeDescription, askedAt: Instant, owner: InstanceID
    ) {
        if ownerLook?.id != owner { (ownerLook, hasSeenLease, unleasedSince) = (nil, false, nil) }
        if Lease.isHeld(by: owner, on: volume) {
            hasSeenLease = true
            unleasedSince = nil
        } else {
            unleasedSince = unleasedSince ?? askedAt
        }
    }

    /// Notes what EC2 says of the instance that has the volume.
    package mutating func note(_ owner: OwnerLook) {
        if case .leaving = look?.situation { look?.leavingOwner = owner } else { ownerLook = owner }
    }

    /// Notes whether this host may write the volume's tags.
    package mutating func notePermission(_ mayLease: Bool) { self.mayLease = mayLease }

    /// Notes that EC2 was asked to detach the volume elsewhere.
    package mutating func noteDetach() {
        forcesFrom = nil
        look?.isUsedUp = true
    }

    /// Notes why an AttachVolume led to no attachment.
    package mutating func noteNotAttached(_ reason: String) {
        obstacle = reason
        look?.isUsedUp = true
    }

    /// When the next look is due, at `instant` or after a pause. Throws where the deadline comes
    /// first.
    package mutating func pause(
        until instant: Instant?, now: Instant, by deadline: Instant
    ) throws(OperationError) -> Instant {
        let end = instant ?? now + backoff.pause
        guard end < deadline else {
            throw OperationError(
                .deadline, doing: "attach \(id)",
                found: "when the time for a mount was over, \(obstacle)",
                advice: "find out in EC2 where the volume is attached, and detach it there")
        }
        backoff.grow()
        look = nil
        return end
    }

    /// Throws where the volume cannot be used, or its owner keeps it.
    package func next(now: Instant) throws(OperationError) -> AttachStep {
        guard let look else { return .look }
        let again = look.askedAt == nil ? AttachStep.look : .lookAgain(at: nil)
        if look.isUsedUp { return again }
        switch look.situation {
        case .free: return .attach
        case .here(let name?): return look.isNameAnothers ? again : .use(deviceName: name)
        case .here(nil):
            throw unusable(id, "EC2 gives no device name for its attachment here")
        case .elsewhere(let owner):
            guard let askedAt = look.askedAt else { return again }
            return try takeOver(look.volume, askedAt: askedAt, from: owner, now)
        case .leaving(let owner) where isForcible(owner): return try force(look, owner, now)
        case .leaving, .creating: return again
        }
    }

    private func takeOver(
        _ volume: VolumeDescription, askedAt: Instant, from owner: InstanceID, _ now: Instant
    ) throws(OperationError) -> AttachStep {
        let facts = TakeoverFacts(
            policy: policy, owner: owner, volume: volume, lookedAt: askedAt, ownerLook: ownerLook,
            hasSeenLease: hasSeenLease, unleasedSince: unleasedSince, mayLease: mayLease,
            patience: patience)
        switch try TakeoverStep.next(facts, now: now) {
        case .askOwner: return .askOwner(owner)
        case .askPermission: return .askPermission
        case .detach(let latest): return .detach(from: owner, force: false, sentBy: latest)
        case .lookAgain(let instant): return .lookAgain(at: instant)
        }
    }

    private func isForcible(_ owner: InstanceID) -> Bool {
        owner != host.instance && policy != .never
    }

    /// A detachment that does not end is forced where its instance is down: one that has come up
    /// since it was asked holds what it has mounted.
    private func force(
        _ look: Look, _ owner: InstanceID, _ now: Instant
    ) throws(OperationError) -> AttachStep {
        guard let forcesFrom, now >= forcesFrom else { return .lookAgain(at: nil) }
        guard let seen = look.leavingOwner else { return .askOwner(owner) }
        let attachment = look.volume.attachments.first { $0.instance == owner }
        try seen.refuseRoot(id, attachedAs: attachment?.device)
        guard seen.isDown else { return .lookAgain(at: nil) }
        return .detach(from: owner, force: true, sentBy: seen.askedAt + Limit.ownerLookAgeMax)
    }
}
