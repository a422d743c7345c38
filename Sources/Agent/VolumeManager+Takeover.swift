import Base
import Logging
import VolumeCore

// How a volume is got from another instance, where its policy and its lease allow that.

/// What one Mount has seen of a volume that it cannot attach yet.
struct Approach {
    /// What keeps it from being attached.
    var obstacle = ""
    /// The pause before the next look.
    var pause = Limit.lookIntervalMin
    /// Until when the lease of a running instance is waited for.
    let patience: Instant
    /// When the detachment from an instance that is down is forced; nil before one is seen.
    var force: Instant?
    var ownerLook: OwnerLook?
    var hasSeenLease = false
    var unleasedSince: Instant?
    var mayLease: Bool?

    init(since start: Instant) { patience = start + Limit.leaseWaitMax }

    /// Notes what a look shows of the lease of `owner`, which the volume is attached to.
    mutating func note(_ volume: VolumeDescription, lookedAt: Instant, owner: InstanceID) {
        if ownerLook?.id != owner { (ownerLook, hasSeenLease, unleasedSince) = (nil, false, nil) }
        if Lease.isHeld(by: owner, on: volume) {
            hasSeenLease = true
            unleasedSince = nil
        } else {
            unleasedSince = unleasedSince ?? lookedAt
        }
    }
}

extension VolumeManager {
    func policy(of volume: Volume) -> TakeoverPolicy {
        volume.record.options.takeover ?? settings.takeover
    }

    /// Comes as far towards the volume's detachment from `owner` as one look at it allows. Returns
    /// when to look again, nil: after a pause. Throws where the owner keeps it.
    func takeOver(
        _ seen: VolumeDescription, lookedAt: Instant, from owner: InstanceID,
        _ policy: TakeoverPolicy, _ approach: inout Approach, by deadline: Instant
    ) async throws -> Instant? {
        approach.note(seen, lookedAt: lookedAt, owner: owner)
        while true {
            let facts = TakeoverFacts(
                policy: policy, owner: owner, volume: seen, lookedAt: lookedAt,
                ownerLook: approach.ownerLook, hasSeenLease: approach.hasSeenLease,
                unleasedSince: approach.unleasedSince, mayLease: approach.mayLease,
                patience: approach.patience)
            switch try TakeoverStep.next(facts, now: ports.time.now) {
            case .askOwner: approach.ownerLook = try await look(at: owner, by: deadline)
            case .askPermission:
                approach.mayLease = try await mayLease(seen.id, by: deadline)
            case .detach(let latest):
                try await detachElsewhere(
                    seen.id, from: owner, force: false, sentBy: latest, by: deadline)
                return nil
            case .lookAgain(let instant): return instant
            }
        }
    }

    /// Forces a detachment that does not end, where its instance is down: one that has come up since
    /// it was asked holds what it has mounted.
    func hurry(
        _ seen: VolumeDescription, from owner: InstanceID, _ approach: inout Approach,
        by deadline: Instant
    ) async throws {
        let force = approach.force ?? ports.time.now + Limit.gentleDetachTimeMax
        approach.force = force
        guard ports.time.now >= force else { return }
        let look = try await look(at: owner, by: deadline)
        let attachment = seen.attachments.first { $0.instance == owner }
        try look.refuseRoot(seen.id, attachedAs: attachment?.device)
        guard look.isDown else { return }
        approach.force = nil
        try await detachElsewhere(
            seen.id, from: owner, force: true, sentBy: look.askedAt + Limit.ownerLookAgeMax,
            by: deadline)
    }

    func look(at owner: InstanceID, by deadline: Instant) async throws -> OwnerLook {
        let askedAt = ports.time.now
        do {
            let description = try await ports.ec2.describeInstance(owner, by: deadline)
            return OwnerLook(id: owner, description: description, askedAt: askedAt)
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "see whether \(owner), which has the volume, is running",
                found: failure.description, advice: failure.advice(on: .describeInstances))
        }
    }

    /// Whether this host may write the volume's lease. Its neighbours have the same role, as a rule: if
    /// it may not, theirs are not to be seen either. EC2 is asked also where it has refused one before,
    /// for the permission may have come since, and no Mount would show it.
    private func mayLease(_ id: VolumeID, by deadline: Instant) async throws -> Bool {
        let host = try await ports.host.host(by: deadline)
        do {
            return try await ports.ec2.maySetTags(
                [Lease.tag: host.instance.description], on: id, by: deadline)
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "see whether the lease of \(id) may be written",
                found: failure.description, advice: failure.advice(on: .createTags))
        }
    }

    /// Returns when EC2 has taken the detachment, or when only another look can tell what is true now:
    /// nothing is sent twice on one look.
    private func detachElsewhere(
        _ id: VolumeID, from owner: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        log.notice(
            "the volume is attached elsewhere: detaching it there",
            metadata: ["volume": "\(id)", "owner": "\(owner)", "force": "\(force)"])
        do {
            _ = try await ports.ec2.detach(
                id, from: owner, force: force, sentBy: latest, by: deadline)
        } catch let failure as EC2Failure {
            guard isFinal(detachmentFailure: failure, isForced: force) else {
                log.notice(
                    "EC2 has not detached the volume: it is looked at again",
                    metadata: ["volume": "\(id)", "owner": "\(owner)", "error": "\(failure)"])
                return
            }
            throw OperationError(
                .cloud, doing: "detach \(id) from \(owner)", found: failure.description,
                advice: failure.advice(on: .detachVolume))
        }
    }
}
