import Base
import Logging
import VolumeCore

// How a volume is got from another instance, where its policy and its lease allow that.

/// What keeps a volume from being attached, and how long that is borne.
struct Obstacle {
    var found = ""
    var pause = Limit.lookIntervalMin
    /// Until when the lease of a running instance is waited for.
    let patience: Instant
    /// When the detachment from an instance that is down is forced; nil before one is seen.
    var force: Instant?

    init(since start: Instant) { patience = start + Limit.leaseWaitMax }
}

extension VolumeManager {
    func policy(of volume: Volume) -> TakeoverPolicy {
        volume.record.options.takeover ?? settings.takeover
    }

    /// Detaches a volume from the instance that has it, if the policy and its lease allow that.
    func takeOver(
        _ volume: VolumeDescription, from owner: InstanceID, _ policy: TakeoverPolicy,
        patience: Instant, by deadline: Instant
    ) async throws {
        var decision = try TakeoverDecision(of: volume, from: owner, policy: policy)
        if decision == .askOwner {
            let state = try await state(of: owner, by: deadline)
            // The owner's task may have just ended: its lease goes soon after.
            let isPatient = ports.time.now < patience
            decision =
                try isPatient
                ? (try? TakeoverDecision(of: volume.id, from: owner, in: state)) ?? .wait
                : TakeoverDecision(of: volume.id, from: owner, in: state)
        }
        guard decision == .detach else { return }
        try await detachElsewhere(volume.id, from: owner, force: false, by: deadline)
    }

    /// Forces a detachment that does not end, where its instance is down: one that has come up since
    /// it was asked holds what it has mounted.
    func hurry(
        _ id: VolumeID, from owner: InstanceID, _ obstacle: inout Obstacle, by deadline: Instant
    ) async throws {
        let now = ports.time.now
        let force = obstacle.force ?? now + Limit.gentleDetachTimeMax
        obstacle.force = force
        guard now >= force, isDown(try await state(of: owner, by: deadline)) else { return }
        obstacle.force = nil
        // Sent later, it would rest on a look that is too old.
        let soon = min(deadline, now + Limit.forcedDetachTimeMax)
        try await detachElsewhere(id, from: owner, force: true, by: soon)
    }

    /// Nil for an instance that EC2 does not know.
    private func state(
        of instance: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription.State? {
        do {
            return try await ports.ec2.describeInstance(instance, by: deadline)?.state
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "see whether \(instance), which has the volume mounted, is running",
                found: failure.description,
                advice: failure.code == "UnauthorizedOperation"
                    ? "allow ec2:DescribeInstances to the instance's role" : nil)
        }
    }

    private func detachElsewhere(
        _ id: VolumeID, from owner: InstanceID, force: Bool, by deadline: Instant
    ) async throws {
        log.notice(
            "the volume is attached elsewhere: detaching it there",
            metadata: ["volume": "\(id)", "owner": "\(owner)", "force": "\(force)"])
        do {
            _ = try await ports.ec2.detach(
                id, from: owner, force: force, sentBy: deadline, by: deadline)
        } catch let failure as EC2Failure {
            if let code = failure.code, isAlreadyDetached(code: code) { return }
            if case .unanswered(_, mayHaveApplied: true) = failure { return }
            if force, failure.code != "UnauthorizedOperation" {
                log.notice(
                    "EC2 has not taken the forced detachment: the instance is looked at again",
                    metadata: ["volume": "\(id)", "owner": "\(owner)", "error": "\(failure)"])
                return
            }
            throw OperationError(
                .cloud, doing: "detach \(id) from \(owner)", found: failure.description,
                advice: failure.code == "UnauthorizedOperation"
                    ? "allow ec2:DetachVolume to the instance's role" : nil)
        }
    }
}
