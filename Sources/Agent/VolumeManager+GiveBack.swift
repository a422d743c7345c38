import Base
import Logging
import VolumeCore

// How an unused volume is given back, so that the next instance finds it free.

extension VolumeManager {
    /// Starts the linger of a volume that nobody uses. A Mount meanwhile ends it.
    func giveBackWhenUnused(_ volume: Volume, since lastUse: Instant? = nil) {
        stopGivingBack(volume)
        forgetIfDone(volume)
        // While it is not known whose the records are, nothing is done for them.
        guard volumes[volume.id] != nil, origin.isConfirmed || volume.device != nil else { return }
        let id = volume.id
        let lastUse = lastUse ?? ports.time.now
        volume.unusedSince = lastUse
        volume.givingBack = Task(executorPreference: executor) {
            await self.giveBack(id, lastUsed: lastUse)
        }
    }

    func stopGivingBack(_ volume: Volume) {
        volume.givingBack?.cancel()
        volume.givingBack = nil
    }

    /// Takes the steps one after the other, each when it is due, and again after a while where one
    /// fails.
    private func giveBack(_ id: VolumeID, lastUsed: Instant) async {
        var earliest = lastUsed
        var pause = Limit.leaseDropDelay
        while let volume = volumes[id],
            let (step, delay) = nextStep(for: volume, linger: settings.detachAfter)
        {
            do {
                try await ports.time.sleep(until: max(earliest, lastUsed + delay))
            } catch { return }
            guard !volume.isUsed, !Task.isCancelled else { return }
            let deadline = ports.time.now + Limit.unmountTimeMax
            do { try await take(step, for: volume, by: deadline) } catch {
                log.warning(
                    "the unused volume is not given back yet",
                    metadata: ["volume": "\(id)", "step": "\(step)", "error": "\(error)"])
                earliest = ports.time.now + pause
                pause = min(pause * 2, Limit.detachRetryInterval)
            }
        }
        guard !Task.isCancelled, let volume = volumes[id] else { return }
        volume.givingBack = nil
        forgetIfDone(volume)
    }

    /// Gives an unused volume back at once, whatever the linger. Throws where a step fails; then, and
    /// where it came to be used meanwhile, it stays.
    func giveBackNow(_ volume: Volume, by deadline: Instant) async throws {
        stopGivingBack(volume)
        let lastUse = volume.unusedSince
        defer { if !volume.isUsed { giveBackWhenUnused(volume, since: lastUse) } }
        while volume.isLingering, let (step, _) = nextStep(for: volume, linger: .zero) {
            try await take(step, for: volume, by: deadline)
        }
    }

    private func nextStep(
        for volume: Volume, linger: Duration?
    ) -> (step: GiveBackStep, after: Duration)? {
        GiveBackStep.next(
            isMounted: volume.device != nil, hasLease: volume.record.hasLease,
            isHere: volume.isHere, linger: linger)
    }

    private func take(
        _ step: GiveBackStep, for volume: Volume, by deadline: Instant
    ) async throws {
        if step != .unmount {
            await confirmOrigin(try await ports.host.host(by: deadline))
            // What was another instance's is not given back.
            guard volume.isHere || volume.record.hasLease else { return }
        }
        switch step {
        case .unmount: try await becomeUnmounted(volume)
        case .dropLease: try await dropLease(of: volume, by: deadline)
        case .detach: try await becomeDetached(volume, by: deadline)
        }
    }

    private func becomeDetached(_ volume: Volume, by deadline: Instant) async throws {
        if case .detaching(let task) = volume.phase { return try await task.value }
        guard case .unmounted = volume.phase, volume.isHere else { return }
        let id = volume.id
        let task = Task(executorPreference: executor) { try await self.detach(id, by: deadline) }
        volume.phase = .detaching(task)
        try await task.value
    }

    /// Detaches a volume that is proved unheld, and waits until its device is gone.
    private func detach(_ id: VolumeID, by deadline: Instant) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table attached") }
        defer {
            volume.phase = .unmounted
            forgetIfDone(volume)
        }
        let start = ports.time.now
        let host = try await ports.host.host(by: deadline)
        let device = try await deviceHere(of: volume, by: deadline)
        if let device {
            try await refuseHeld(device, doing: "detach \(id) from \(host.instance)")
        }
        volume.isLeaving = true
        try await detachHere(id, host, by: deadline)
        if let device {
            try await ports.devices.departure(of: device, volume: id, by: deadline)
        }
        attachmentFacts.lastDeparture = ports.time.now
        releaseDeviceName(of: volume)
        volume.isHere = false
        volume.isLeaving = false
        volume.description?.attachments = []
        volume.description?.state = .available
        saveInBackground()
        log.info(
            "detached",
            metadata: ["volume": "\(id)", "detach_ms": "\(tenths(ports.time.now - start))"])
    }

    /// The volume's device, if it is here. On Xen a name alone tells, and EC2 knows one that was lost.
    func deviceHere(
        of volume: Volume, by deadline: Instant
    ) async throws -> BlockDevice? {
        let name = volume.record.deviceName
        if let device = try await ports.devices.find(volume.id, attachedAs: name) {
            return device
        }
        guard name == nil else { return nil }
        let host = try await ports.host.host(by: deadline)
        let description = try await ports.ec2.describeVolume(volume.id, by: deadline)
        let own = description?.attachments.first { $0.instance == host.instance }
        guard let told = own?.device else { return nil }
        return try await ports.devices.find(volume.id, attachedAs: told)
    }

    /// Throws where some mount namespace has the device mounted: a container that outlived a
    /// plugin's removal or crash does.
    func refuseHeld(_ device: BlockDevice, doing: String) async throws {
        guard try await ports.fileSystems.isHeld(device) else { return }
        throw OperationError(
            .device, doing: doing, found: "\(device.path) is mounted in some mount namespace",
            advice: "a container that outlived the plugin may hold it: stop that container")
    }

    /// Returns when EC2 has accepted the detachment, or has nothing to detach. One whose answer was
    /// lost is asked for again: doing it twice is as good as once.
    func detachHere(_ id: VolumeID, _ host: Host, by deadline: Instant) async throws {
        for attempt in 1... {
            do {
                _ = try await ports.ec2.detach(
                    id, from: host.instance, force: false, sentBy: deadline, by: deadline)
                return
            } catch let failure as EC2Failure {
                if let code = failure.code, isAlreadyDetached(code: code) { return }
                if case .unanswered(_, mayHaveApplied: true) = failure, attempt < Limit.attemptsMax
                {
                    continue
                }
                throw OperationError(
                    .cloud, doing: "detach \(id) from \(host.instance)",
                    found: failure.description)
            }
        }
    }
}
