import Base
import Logging
import VolumeCore

// The lease tells other hosts that a volume is mounted here.

extension VolumeManager {
    /// Secures the lease of a volume whose device is here; false if it is not attached here.
    /// Without the first look, the lease of a host that has already taken the volume would be
    /// overwritten.
    func secureLeaseOfPresent(_ id: VolumeID, by deadline: Instant) async throws -> Bool {
        let host = try await ports.host.host(by: deadline)
        let lookedAt = ports.time.now
        guard try await lookWhetherHere(id, on: host, by: deadline) != nil else { return false }
        return try await secureLease(of: id, seenAt: lookedAt, on: host, by: deadline)
    }

    /// Writes the lease of a volume that was seen attached here at `seenAt`, and looks at it some
    /// time later: by then, a host that did not see the lease has asked EC2 to detach the volume.
    /// False if it is no longer attached here.
    ///
    /// If the look shows no lease, or another host's, it is written again: a request of a host that
    /// lost the volume may have been delayed for long.
    func secureLease(
        of id: VolumeID, seenAt: Instant, on host: Host, by deadline: Instant
    ) async throws -> Bool {
        var seenAt = seenAt
        var tries = 0
        while tries < Limit.leaseTriesMax {
            let writing = try await writeLease(of: id, host, seenAt: seenAt, by: deadline)
            if writing == .done { tries += 1 }
            if writing == .done {
                try await ports.time.sleep(until: ports.time.now + Limit.leaseSettleTime)
            }
            seenAt = ports.time.now
            guard let seen = try await lookWhetherHere(id, on: host, by: deadline) else {
                return false
            }
            if writing == .refused || seen.multiAttachEnabled { return true }
            if writing == .done, Lease.isHeld(by: host.instance, on: seen) {
                volumes[id]?.state.leaseSeen()
                return true
            }
            guard ports.time.now < deadline else {
                throw OperationError(
                    .deadline, doing: "mark \(id) as mounted on \(host.instance)",
                    found: "CreateTags could not be sent soon enough after a look at the volume",
                    advice: "EC2 is slow or throttles this account: look at its request rates")
            }
        }
        log.warning(
            "EC2 does not show the written lease; it is checked again later",
            metadata: ["volume": "\(id)"])
        return true
    }

    private enum LeaseWriting {
        case done
        /// There can be no lease: the permission for the tag is missing, or the volume has the
        /// maximum number of tags, or it is a Multi-Attach volume.
        case refused
        /// It could not be sent soon enough after the attachment was seen.
        case outdated
    }

    /// Writes the lease together with the mark of the attachment. A rejection is logged once per
    /// volume, but each Mount tries again, because the permission may be granted later.
    private func writeLease(
        of id: VolumeID, _ host: Host, seenAt: Instant, by deadline: Instant
    ) async throws -> LeaseWriting {
        guard let volume = volumes[id], volume.state.description?.multiAttachEnabled != true else {
            return .refused
        }
        if let leaseDrop = volume.leaseDrop { _ = try? await leaseDrop.value }
        var tags = [Lease.tag: host.instance.description]
        if volume.state.isOurs {
            tags[AttachmentMark.tag] = AttachmentMark.value(of: id, on: host.instance)
        }
        // If the response is lost, the lease may exist nevertheless.
        volume.state.leaseWritingBegan()
        defer { volume.state.leaseWritingEnded() }
        saveInBackground()
        do {
            try await ports.ec2.setTags(
                tags, on: id, sentBy: seenAt + Limit.leaseFactsAgeMax, by: deadline)
            refusedLeases.remove(id)
            volume.state.markWritten()
            return .done
        } catch {
            guard let failure = error.ec2Failure else { throw error }
            switch LeaseRecovery(after: failure) {
            case .writeLater: return .outdated
            case .goWithout:
                volume.state.leaseRefused()
                noteRefusedLease(of: id, failure)
                return .refused
            case .giveUp:
                throw failure.told(
                    doing: "mark \(id) as mounted on \(host.instance)", on: .createTags,
                    otherwise: "without the mark another instance could take the volume")
            }
        }
    }

    private func noteRefusedLease(of id: VolumeID, _ failure: EC2Failure) {
        guard refusedLeases.insert(id).inserted else { return }
        log.warning(
            "the lease cannot be written: other instances may take the mounted volume",
            metadata: [
                "volume": "\(id)", "error": "\(failure)",
                "advice": "\(failure.advice(on: .createTags) ?? "see the request in CloudTrail")",
            ])
    }

    /// Drops the lease of a volume that nothing holds, unless another instance has written its own
    /// in the meantime. A Mount waits until this ends, and writes the lease again.
    func dropLease(of volume: Volume, by deadline: Instant) async throws {
        // A second one might outlast the first and the Mount that waited for it.
        if let running = volume.leaseDrop { return try await running.value }
        // A check of the lease that is under way would write it again. It is waited for before it
        // finds a dropping, for which it would wait in turn.
        if let restoring = volume.leaseRestoring {
            await restoring.value
            if let running = volume.leaseDrop { return try await running.value }
        }
        let id = volume.id
        let task = Task(executorPreference: executor) {
            try await self.removeLease(of: id, by: deadline)
        }
        volume.leaseDrop = task
        defer { volume.leaseDrop = nil }
        try await task.value
    }

    private func removeLease(of id: VolumeID, by deadline: Instant) async throws {
        guard let volume = volumes[id] else { return }
        let host = try await ports.host.host(by: deadline)
        let provenAt = ports.time.now
        if let device = try await deviceHere(of: volume, by: deadline) {
            try await refuseHeld(device, doing: "drop the lease of \(id)")
        }
        // A Mount that has arrived in the meantime relies on the lease.
        guard !volume.isUsed else { return }
        volume.state.leaseRemovalBegan()
        defer { volume.state.leaseRemovalFailed() }
        do {
            try await ports.ec2.removeTag(
                Lease.tag, value: host.instance.description, from: id,
                sentBy: provenAt + Limit.unheldProofAgeMax, by: deadline)
        } catch {
            guard isTagRemovalVain(after: error) else { throw error }
            log.notice(
                "the lease could not be removed",
                metadata: ["volume": "\(id)", "error": "\(error)"])
        }
        if volume.state.isMarkStale { try await removeStaleMark(of: volume, host, by: deadline) }
        volumes[id]?.state.leaseRemoved()
        saveInBackground()
    }

    /// Removes the mark of an ended attachment if that failed before.
    private func removeStaleMark(
        of volume: Volume, _ host: Host, by deadline: Instant
    ) async throws {
        guard await removeMark(of: volume.id, host, by: deadline) else {
            throw OperationError(
                .cloud, doing: "remove the mark of an attachment of \(volume.id) that has ended",
                found: "EC2 did not accept the call",
                advice: "nothing: the plugin tries again")
        }
        volume.state.staleMarkRemoved()
    }
}

// MARK: While the volume is mounted

extension VolumeManager {
    /// Checks regularly that the volume still has its lease, because another tool that manages its
    /// tags may remove it. Returns when the volume is no longer mounted, was lost, or a wait has
    /// failed.
    func keepLease(of id: VolumeID) async {
        var pause = Limit.leaseCheckDelay
        while true {
            do { try await ports.time.sleep(until: ports.time.now + pause) } catch {
                // Cancelled if it is no longer mounted.
                guard !Task.isCancelled else { return }
                volumes[id]?.leaseWatch = nil
                return noteStalledWatch(of: id, error)
            }
            guard let volume = volumes[id], !volume.state.isLost else { return }
            let check = Task(executorPreference: executor) { await self.checkLease(of: id) }
            volume.leaseRestoring = check
            await check.value
            volume.leaseRestoring = nil
            pause = Limit.leaseCheckInterval
        }
    }

    private func checkLease(of id: VolumeID) async {
        let deadline = ports.time.now + Limit.createTimeMax
        do {
            let host = try await ports.host.host(by: deadline)
            let lookedAt = ports.time.now
            let seen = try await describe(id, by: deadline)
            guard let volume = volumes[id], volume.state.mountedDevice != nil, !volume.state.isLost,
                !seen.multiAttachEnabled, !refusedLeases.contains(id)
            else { return }
            volume.state.described(seen)
            let situation = try Situation(of: seen, seenFrom: host, readOnly: true)
            guard case .here(let name) = situation else { return noteTaken(volume, situation) }
            // The mark may be gone when the volume is released.
            if let name, !volume.state.isOurs {
                noteOrigin(of: volume, attachedAs: name, seen, on: host)
                claim(name, for: volume)
            }
            guard !Lease.isHeld(by: host.instance, on: seen) else { return }
            volume.state.leaseDoubted()
            log.warning(
                "somebody removed or changed the lease of a mounted volume: writing it again",
                metadata: [
                    "volume": "\(id)", "tag": "\(Lease.tag)",
                    "value": "\(quoted(seen.tags[Lease.tag] ?? ""))",
                    "advice":
                        "let no other tool manage the tags that begin with polarity-ecs-ebs-plugin:",
                ])
            _ = try await writeLease(of: id, host, seenAt: lookedAt, by: deadline)
        } catch {
            log.warning(
                "the lease of a mounted volume could not be checked",
                metadata: ["volume": "\(id)", "error": "\(error)"])
        }
    }

    private func noteTaken(_ volume: Volume, _ situation: Situation) {
        volume.state.leaseDoubted()
        log.error(
            "EC2 says that a mounted volume is no longer attached here",
            metadata: ["volume": "\(volume.id)", "situation": "\(situation)"])
    }
}
