import Base
import Logging
import VolumeCore

// How a volume is got from another instance, where `Approach` allows that.

extension VolumeManager {
    func look(at owner: InstanceID, by deadline: Instant) async throws -> OwnerLook {
        let askedAt = ports.time.now
        do {
            let description = try await ports.ec2.describeInstance(owner, by: deadline)
            return OwnerLook(id: owner, description: description, askedAt: askedAt)
        } catch {
            throw error.told(
                doing: "see whether \(owner), which has the volume, is running",
                on: .describeInstances)
        }
    }

    /// Whether this host may write the volume's lease. Other hosts usually have the same role: if
    /// it may not, theirs are not visible either. EC2 is asked even after an earlier rejection,
    /// because the permission may have been granted since, and no Mount would show it.
    func mayLease(_ id: VolumeID, by deadline: Instant) async throws -> Bool {
        let host = try await ports.host.host(by: deadline)
        do {
            return try await ports.ec2.maySetTags(
                [Lease.tag: host.instance.description], on: id, by: deadline)
        } catch {
            throw error.told(
                doing: "see whether the lease of \(id) may be written", on: .createTags)
        }
    }

    /// Returns when EC2 has accepted the detachment, or when another look is needed: nothing is
    /// sent twice for one look.
    func detachElsewhere(
        _ id: VolumeID, from owner: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        log.notice(
            "the volume is attached to another instance: detaching it there",
            metadata: ["volume": "\(id)", "owner": "\(owner)", "force": "\(force)"])
        do {
            _ = try await ports.ec2.detach(
                id, from: owner, force: force, sentBy: latest, by: deadline)
        } catch {
            guard let failure = error.ec2Failure else { throw error }
            guard isFinal(detachmentFailure: failure, isForced: force) else {
                log.notice(
                    "EC2 has not detached the volume: looking again",
                    metadata: ["volume": "\(id)", "owner": "\(owner)", "error": "\(failure)"])
                return
            }
            throw failure.told(doing: "detach \(id) from \(owner)", on: .detachVolume)
        }
    }
}
