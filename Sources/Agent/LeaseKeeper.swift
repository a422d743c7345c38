import Base
import Logging
import VolumeCore

/// Writes, checks and removes this instance's tags on volumes in EC2: the lease, which tells other
/// hosts that a volume is mounted here, and the mark of an attachment that this plugin made.
///
/// Its callers decide when a volume needs its lease and when it may go; they also look at the
/// attachment and at the device. An actor on the manager's executor, like `StateSaver`.
actor LeaseKeeper {
    /// Notes what a look at a mounted volume shows of its attachment.
    typealias Note = @Sendable (VolumeDescription, Host) async -> Void
    /// Looks whether a volume is attached here; nil if it is not.
    typealias Look = @Sendable () async throws -> VolumeDescription?

    private let volumes: VolumeTable
    private let ports: VolumeManager.Ports
    private let saver: StateSaver
    private let log: Logger
    private nonisolated let executor: VolumeManager.Executor
    /// Volumes whose lease EC2 has rejected.
    private var refused: Set<VolumeID> = []

    nonisolated var unownedExecutor: UnownedSerialExecutor {
        // The keeper keeps its executor alive, and nobody holds the reference for longer.
        unsafe executor.asUnownedSerialExecutor()
    }

    init(
        of volumes: VolumeTable, ports: VolumeManager.Ports, saver: StateSaver,
        executor: VolumeManager.Executor, log: Logger
    ) {
        self.volumes = volumes
        self.ports = ports
        self.saver = saver
        self.executor = executor
        self.log = log
    }

    /// Writes the lease of a volume that was seen attached here at `seenAt`, and looks at it some
    /// time later: by then, a host that did not see the lease has asked EC2 to detach the volume.
    /// False if it is no longer attached here.
    ///
    /// If the look shows no lease, or another host's, it is written again: a request of a host that
    /// lost the volume may have been delayed for long.
    func secure(
        _ id: VolumeID, seenAt: Instant, on host: Host, by deadline: Instant, look: Look
    ) async throws -> Bool {
        var seenAt = seenAt
        var proof = LeaseProof()
        while true {
            let writing = try await write(id, host, seenAt: seenAt, by: deadline)
            if writing == .done {
                try await ports.time.sleep(until: ports.time.now + Limit.leaseSettleTime)
            }
            seenAt = ports.time.now
            let seen = try await look()
            switch proof.next(
                after: writing, seen: seen, on: host.instance,
                isTimeLeft: ports.time.now < deadline)
            {
            case .writeAgain: continue
            case .notHere: return false
            case .goWithout: return true
            case .certain:
                volumes[id]?.state.leaseSeen()
                return true
            case .leaveUnproved:
                log.warning(
                    "EC2 does not show the written lease; it is checked again later",
                    metadata: ["volume": "\(id)"])
                return true
            case .giveUp:
                throw OperationError(
                    .deadline, doing: "mark \(id) as mounted on \(host.instance)",
                    found: "CreateTags could not be sent soon enough after a look at the volume",
                    advice: "EC2 is slow or throttles this account: look at its request rates")
            }
        }
    }

    /// Writes the lease together with the mark of the attachment. A rejection is logged once per
    /// volume, but each Mount tries again, because the permission may be granted later.
    private func write(
        _ id: VolumeID, _ host: Host, seenAt: Instant, by deadline: Instant
    ) async throws -> LeaseWriting {
        guard let volume = volumes[id], volume.state.description?.multiAttachEnabled != true else {
            return .refused
        }
        if let leaseDrop = volume.leaseDrop { _ = try? await leaseDrop.value }
        var tags = [Lease.tag: host.instance.description]
        if volume.state.isOurs, let name = volume.state.deviceName {
            tags[AttachmentMark.tag] = AttachmentMark.value(of: id, on: host.instance, as: name)
        }
        // If the response is lost, the lease may exist nevertheless.
        volume.state.leaseWritingBegan()
        defer { volume.state.leaseWritingEnded() }
        saveInBackground()
        do {
            try await ports.ec2.setTags(
                tags, on: id, sentBy: seenAt + Limit.leaseFactsAgeMax, by: deadline)
            refused.remove(id)
            volume.state.markWritten()
            return .done
        } catch {
            return try recovered(volume, after: error, host)
        }
    }

    /// What a CreateTags that has failed comes to. Throws if the lease must not be missing.
    private func recovered(
        _ volume: Volume, after error: any Error, _ host: Host
    ) throws -> LeaseWriting {
        guard let failure = error.ec2Failure else { throw error }
        switch LeaseRecovery(after: failure) {
        case .writeLater: return .outdated
        case .goWithout:
            volume.state.leaseRefused()
            noteRefusal(of: volume.id, failure)
            return .refused
        case .giveUp:
            throw failure.told(
                doing: "mark \(volume.id) as mounted on \(host.instance)", on: .createTags,
                otherwise: "without the mark another instance could take the volume")
        }
    }

    /// Saves without making anybody wait. A failure is logged, and the save is retried.
    private func saveInBackground() {
        Task(executorPreference: executor) { try? await self.save() }
    }

    private func save() async throws { try await saver.save() }

    private func noteRefusal(of id: VolumeID, _ failure: EC2Failure) {
        guard refused.insert(id).inserted else { return }
        log.warning(
            "the lease cannot be written: other instances may take the mounted volume",
            metadata: [
                "volume": "\(id)", "error": "\(failure)",
                "advice": "\(failure.advice(on: .createTags) ?? "see the request in CloudTrail")",
            ])
    }
}

// MARK: When the volume is released

extension LeaseKeeper {
    /// Removes the lease, unless another instance has written its own in the meantime. A Mount
    /// waits until this ends, and writes the lease again.
    ///
    /// - Parameter isUnused: whether nothing holds the volume and no Mount relies on the lease.
    ///   Throws if something holds it.
    func drop(
        _ id: VolumeID, by deadline: Instant, isUnused: @escaping @Sendable () async throws -> Bool
    ) async throws {
        guard let volume = volumes[id] else { return }
        // A second one might outlast the first and the Mount that waited for it.
        if let running = volume.leaseDrop { return try await running.value }
        // A check of the lease that is under way would write it again. It is waited for before it
        // finds a dropping, for which it would wait in turn.
        if let restoring = volume.leaseRestoring {
            await restoring.value
            if let running = volume.leaseDrop { return try await running.value }
        }
        let task = Task(executorPreference: executor) {
            try await self.remove(id, by: deadline, isUnused: isUnused)
        }
        volume.leaseDrop = task
        defer { volume.leaseDrop = nil }
        try await task.value
    }

    private func remove(
        _ id: VolumeID, by deadline: Instant, isUnused: @Sendable () async throws -> Bool
    ) async throws {
        let host = try await ports.host.host(by: deadline)
        let provenAt = ports.time.now
        guard try await isUnused(), let volume = volumes[id] else { return }
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
        if let name = volume.state.staleMarkName {
            try await removeStaleMark(of: volume, as: name, host, by: deadline)
        }
        volumes[id]?.state.leaseRemoved()
        saveInBackground()
    }

    /// Removes the mark of an ended attachment if that failed before.
    private func removeStaleMark(
        of volume: Volume, as name: String, _ host: Host, by deadline: Instant
    ) async throws {
        guard await removeMark(of: volume.id, as: name, host, by: deadline) else {
            throw OperationError(
                .cloud, doing: "remove the mark of an attachment of \(volume.id) that has ended",
                found: "EC2 did not accept the call",
                advice: "nothing: the plugin tries again")
        }
        volume.state.staleMarkRemoved()
    }

    /// Removes the mark of an attachment that ends. If this fails, the volume is released
    /// nevertheless, and the mark is removed with the lease at the next release.
    func dropMark(of id: VolumeID, _ host: Host, by deadline: Instant) async {
        guard let name = volumes[id]?.state.deviceName else { return }
        let isRemoved = await removeMark(of: id, as: name, host, by: deadline)
        volumes[id]?.state.markEnded(as: name, isRemoved: isRemoved)
    }

    /// Removes the mark of the attachment, because a later attachment by hand is not this plugin's.
    /// False if the mark may still exist and another attempt is worthwhile.
    private func removeMark(
        of id: VolumeID, as name: String, _ host: Host, by deadline: Instant
    ) async -> Bool {
        guard !refused.contains(id) else { return true }
        do {
            try await ports.ec2.removeTag(
                AttachmentMark.tag,
                value: AttachmentMark.value(of: id, on: host.instance, as: name),
                from: id, sentBy: deadline, by: deadline)
            return true
        } catch {
            log.notice(
                "the mark of an attachment could not be removed",
                metadata: ["volume": "\(id)", "tag": "\(AttachmentMark.tag)", "error": "\(error)"])
            return isTagRemovalVain(after: error)
        }
    }
}

// MARK: While the volume is mounted

extension LeaseKeeper {
    /// Checks regularly that the volume still has its lease, because another tool that manages its
    /// tags may remove it. Returns when the volume is no longer mounted or was lost; throws if a
    /// wait has failed.
    func watch(_ id: VolumeID, note: @escaping Note) async throws {
        var pause = Limit.leaseCheckDelay
        while true {
            try await ports.time.sleep(until: ports.time.now + pause)
            guard let volume = volumes[id], !volume.state.isLost else { return }
            let check = Task(executorPreference: executor) { await self.check(id, note) }
            volume.leaseRestoring = check
            await check.value
            volume.leaseRestoring = nil
            pause = Limit.leaseCheckInterval
        }
    }

    private func check(_ id: VolumeID, _ note: Note) async {
        let deadline = ports.time.now + Limit.createTimeMax
        do {
            let host = try await ports.host.host(by: deadline)
            let lookedAt = ports.time.now
            let seen = try await ports.describe(id, by: deadline)
            guard let volume = volumes[id], volume.state.mountedDevice != nil, !volume.state.isLost,
                !seen.multiAttachEnabled, !refused.contains(id)
            else { return }
            volume.state.described(seen)
            await note(seen, host)
            switch try LeaseCheck(seen, on: host) {
            case .held: break
            case .taken(let situation): noteTaken(volume, situation)
            case .missing:
                noteMissing(volume, seen)
                _ = try await write(id, host, seenAt: lookedAt, by: deadline)
            }
        } catch {
            log.warning(
                "the lease of a mounted volume could not be checked",
                metadata: ["volume": "\(id)", "error": "\(error)"])
        }
    }

    private func noteMissing(_ volume: Volume, _ seen: VolumeDescription) {
        volume.state.leaseDoubted()
        log.warning(
            "somebody removed or changed the lease of a mounted volume: writing it again",
            metadata: [
                "volume": "\(volume.id)", "tag": "\(Lease.tag)",
                "value": "\(quoted(seen.tags[Lease.tag] ?? ""))",
                "advice":
                    "let no other tool manage the tags that begin with polarity-ecs-ebs-plugin:",
            ])
    }

    private func noteTaken(_ volume: Volume, _ situation: Situation) {
        volume.state.leaseDoubted()
        log.error(
            "EC2 says that a mounted volume is no longer attached here",
            metadata: ["volume": "\(volume.id)", "situation": "\(situation)"])
    }
}
