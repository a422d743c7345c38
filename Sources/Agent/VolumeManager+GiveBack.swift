import Base
import Logging
import VolumeCore

// How an unused volume is released, so that the next instance finds it free.

extension VolumeManager {
    /// Starts the linger of an unused volume. A Mount ends it.
    func giveBackWhenUnused(_ volume: Volume, since lastUse: Instant? = nil) {
        stopGivingBack(volume)
        forgetIfDone(volume)
        // While the owner of the records is unknown, nothing is done for them.
        guard volumes[volume.id] != nil, origin.isConfirmed || volume.state.device != nil else {
            return
        }
        startGivingBack(volume, since: lastUse ?? ports.time.now)
        resumeStalledReleases()
    }

    private func startGivingBack(_ volume: Volume, since lastUse: Instant) {
        let id = volume.id
        volume.state.lingerBegan(at: lastUse)
        volume.givingBack = Task(executorPreference: executor) {
            await self.giveBack(id, lastUsed: lastUse)
        }
    }

    func stopGivingBack(_ volume: Volume) {
        volume.givingBack?.cancel()
        volume.givingBack = nil
    }

    /// Takes the steps one after the other, each when it is due, and again after a pause if one
    /// fails or has no effect.
    private func giveBack(_ id: VolumeID, lastUsed: Instant) async {
        var pace = GiveBackPace(since: lastUsed)
        while let volume = volumes[id] {
            // The operation in progress decides which step is next.
            if let operation = volume.operation { _ = try? await operation.value }
            guard let (step, delay) = nextStep(for: volume, linger: settings.detachAfter) else {
                break
            }
            guard await sleep(until: pace.due(after: delay), by: volume) else { return }
            guard !volume.isUsed, !Task.isCancelled else { return }
            await take(step, for: volume, &pace)
        }
        guard !Task.isCancelled, let volume = volumes[id] else { return }
        volume.givingBack = nil
        forgetIfDone(volume)
    }

    /// Takes a step that is due, and notes at which pace to go on.
    private func take(
        _ step: GiveBackStep, for volume: Volume, _ pace: inout GiveBackPace
    ) async {
        do {
            try await take(step, for: volume, by: ports.time.now + Limit.unmountTimeMax)
            let next = nextStep(for: volume, linger: settings.detachAfter)?.step
            pace.ended(step, next: next, at: ports.time.now)
        } catch {
            // A Mount has cancelled it.
            guard !Task.isCancelled else { return }
            log.warning(
                "the unused volume is not released yet",
                metadata: ["volume": "\(volume.id)", "step": "\(step)", "error": "\(error)"])
            pace.failed(at: ports.time.now)
        }
    }

    /// False if the volume must not be released now. If the loop has no room for another timer, the
    /// release does not end for good: the next release that begins resumes it.
    private func sleep(until instant: Instant, by volume: Volume) async -> Bool {
        do {
            try await ports.time.sleep(until: instant)
            return true
        } catch is CancellationError {
            return false
        } catch {
            guard !Task.isCancelled else { return false }
            log.error(
                "the unused volume will be released later: the wait failed",
                metadata: ["volume": "\(volume.id)", "error": "\(error)"])
            volume.givingBack = nil
            stalledReleases.insert(volume.id)
            return false
        }
    }

    private func resumeStalledReleases() {
        for id in stalledReleases {
            guard let volume = volumes[id], !volume.isUsed, volume.givingBack == nil else {
                continue
            }
            startGivingBack(volume, since: volume.state.unusedSince)
        }
        stalledReleases = []
    }

    /// Releases an unused volume at once, whatever the linger. Throws if a step fails. The volume
    /// stays in this case, and also if it is used again in the meantime.
    func giveBackNow(_ volume: Volume, by deadline: Instant) async throws {
        stopGivingBack(volume)
        let lastUse = volume.state.unusedSince
        defer { if !volume.isUsed { giveBackWhenUnused(volume, since: lastUse) } }
        while volume.isLingering, let (step, _) = nextStep(for: volume, linger: .zero) {
            try await take(step, for: volume, by: deadline)
        }
    }

    private func nextStep(
        for volume: Volume, linger: Duration?
    ) -> (step: GiveBackStep, after: Duration)? {
        GiveBackStep.next(
            isMounted: volume.state.device != nil, hasLease: volume.state.hasLease,
            isHere: volume.state.isHere && volume.state.isOurs, linger: linger)
    }

    private func take(
        _ step: GiveBackStep, for volume: Volume, by deadline: Instant
    ) async throws {
        if step != .unmount {
            await confirmOrigin(try await ports.host.host(by: deadline))
            // What belonged to another instance is not released.
            guard volume.state.isHere || volume.state.hasLease else { return }
        }
        switch step {
        case .unmount: try await becomeUnmounted(volume)
        case .dropLease:
            let id = volume.id
            try await leases.drop(id, by: deadline) {
                try await self.isReleasable(id, by: deadline)
            }
        case .detach: try await becomeDetached(volume, by: deadline)
        }
    }

    /// Whether the volume's lease may go. Throws if something holds its device.
    private func isReleasable(_ id: VolumeID, by deadline: Instant) async throws -> Bool {
        guard let volume = volumes[id] else { return false }
        if let device = try await deviceHere(of: volume, by: deadline) {
            try await refuseHeld(device, doing: "drop the lease of \(id)")
        }
        // A Mount that has arrived in the meantime relies on the lease.
        return !volume.isUsed
    }

    private func becomeDetached(_ volume: Volume, by deadline: Instant) async throws {
        if let running = volume.operation { return try await running.value }
        guard volume.state.mount == .unmounted, volume.state.isHere else { return }
        let id = volume.id
        let task = Task(executorPreference: executor) { try await self.detach(id, by: deadline) }
        volume.begin({ $0.releaseBegan() }, task)
        try await task.value
    }

    /// Detaches a volume that is proved unheld, and waits until its device is gone.
    private func detach(_ id: VolumeID, by deadline: Instant) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table attached") }
        defer {
            volume.state.releaseEnded()
            forgetIfDone(volume)
        }
        let start = ports.time.now
        let host = try await ports.host.host(by: deadline)
        guard try await confirmOurs(volume, host, by: deadline) else { return }
        let unmarking = Task(executorPreference: executor) {
            await self.dropMark(of: id, host, by: deadline)
        }
        do {
            let device = try await detachHere(volume, host, by: deadline)
            if let device {
                try await ports.devices.departure(of: device, volume: id, by: deadline)
            }
        } catch {
            await unmarking.value
            throw error
        }
        await unmarking.value
        slots.deviceGone(at: ports.time.now)
        noteDetached(volume)
        log.info(
            "detached",
            metadata: ["volume": "\(id)", "detach_ms": "\(tenths(ports.time.now - start))"])
    }

    /// Makes sure that the attachment which this plugin made is there still. False where it is not,
    /// which is noted: the volume may have been detached since, and attached here by hand, now or
    /// before DetachVolume goes out, and then it is not this plugin's to detach. One look alone may
    /// be older than the attachment. Throws where only a later one can tell.
    private func confirmOurs(
        _ volume: Volume, _ host: Host, by deadline: Instant
    ) async throws -> Bool {
        var missed = MissedAttachment()
        while true {
            let lookedAt = ports.time.now
            if volume.state.isSurelyAttached(at: lookedAt) { return true }
            let seen: VolumeDescription
            do { seen = try await describe(volume.id, by: deadline) } catch let error
                as OperationError where error.reason == .noSuchVolume
            {
                // DetachVolume decides whether it has been deleted.
                return true
            }
            if let own = seen.attachment(to: host.instance) {
                return try judge(own, of: volume, seen, lookedAt: lookedAt, on: host)
            }
            guard
                let next = missed.nextLook(
                    afterLookAt: lookedAt, attachedAt: volume.state.attachedAt)
            else { return await !noteIfEnded(volume, host, by: deadline) }
            try await ports.time.sleep(until: next)
        }
    }

    /// Notes that an attachment which looks do not show has ended, if its device has gone; false if
    /// not.
    private func noteIfEnded(
        _ volume: Volume, _ host: Host, by deadline: Instant
    ) async -> Bool {
        guard await isSurelyGone(volume) else { return false }
        await dropMark(of: volume.id, host, by: deadline)
        noteDetached(volume)
        log.info("detached by somebody else in the meantime", metadata: ["volume": "\(volume.id)"])
        return true
    }

    /// Notes what a look shows of the attachment here; true where this plugin made it. Throws where
    /// only a later look can tell.
    private func judge(
        _ own: VolumeAttachment, of volume: Volume, _ seen: VolumeDescription,
        lookedAt: Instant, on host: Host
    ) throws -> Bool {
        guard let name = own.device,
            !volume.state.isPlugins(attachedAs: name, seen, on: host.instance)
        else {
            volume.state.ownAttachmentSeen()
            // The record may have the name of an earlier attempt.
            if let name = own.device, name != volume.state.deviceName { claim(name, for: volume) }
            return true
        }
        guard volume.state.isSurelyForeign(at: lookedAt) else {
            volume.state.foreignAttachmentSeen(at: lookedAt)
            throw foreign(volume, attachedAs: name, host)
        }
        noteEnded(volume)
        claim(name, for: volume)
        log.notice(
            "somebody attached the volume here by hand: it stays attached",
            metadata: ["volume": "\(volume.id)", "name": "\(name)"])
        return false
    }

    private func foreign(
        _ volume: Volume, attachedAs name: String, _ host: Host
    ) -> OperationError {
        OperationError(
            .cloud, doing: "detach \(volume.id) from \(host.instance)",
            found: "EC2 says that it is attached as \(name), which this plugin did not ask for",
            advice: "nothing: the plugin looks again")
    }

    /// Notes that the attachment which this plugin made has ended without its doing. The mark is
    /// removed with the lease.
    func noteEnded(_ volume: Volume) {
        let name = volume.state.deviceName
        noteDetached(volume)
        if let name { volume.state.markEnded(as: name, isRemoved: false) }
    }

    func noteDetached(_ volume: Volume) {
        releaseDeviceName(of: volume)
        volume.state.detached()
        saveInBackground()
    }

    func dropMark(of id: VolumeID, _ host: Host, by deadline: Instant) async {
        await leases.dropMark(of: id, host, by: deadline)
    }

    /// The volume's device, if it is here. On Xen only the name identifies it, and EC2 knows its
    /// volume: the remembered name may now belong to another volume, or be lost.
    func deviceHere(
        of volume: Volume, by deadline: Instant
    ) async throws -> BlockDevice? {
        let found = try await ports.devices.find(
            volume.id, attachedAs: volume.state.deviceName)
        if let found, found.bearsVolumeID { return found }
        let host = try await ports.host.host(by: deadline)
        let description = try await ports.ec2.describeVolume(volume.id, by: deadline)
        let own = description?.attachments.first { $0.instance == host.instance }
        guard let told = own?.device else { return nil }
        return try await ports.devices.find(volume.id, attachedAs: told)
    }

    /// Throws if a mount namespace has the device mounted, for example that of a container that
    /// outlived the removal or a crash of the plugin.
    func refuseHeld(_ device: BlockDevice, doing: String) async throws {
        guard try await ports.fileSystems.isHeld(device) else { return }
        throw OperationError(
            .device, doing: doing, found: "\(device.path) is mounted in a mount namespace",
            advice: "a container that outlived the plugin may hold it: stop that container")
    }

    /// Returns when EC2 has accepted the detachment or has nothing to detach; returns the device
    /// that disappears now, if there is one. Each request follows a proof that nothing holds the
    /// device, and each further one also a look that shows whose attachment it ends now.
    func detachHere(
        _ volume: Volume, _ host: Host, by deadline: Instant
    ) async throws -> BlockDevice? {
        let doing = "detach \(volume.id) from \(host.instance)"
        var backoff = Backoff.looks
        while true {
            let provenAt = ports.time.now
            let device = try await deviceHere(of: volume, by: deadline)
            if let device { try await refuseHeld(device, doing: doing) }
            volume.state.detachBegan()
            do {
                _ = try await ports.ec2.detach(
                    volume.id, from: host.instance, force: false,
                    sentBy: provenAt + Limit.unheldProofAgeMax, by: deadline)
                return device
            } catch {
                guard let failure = error.ec2Failure else { throw error }
                if let code = failure.code, isAlreadyDetached(code: code) { return device }
                guard !isFinal(detachmentFailure: failure, isForced: false),
                    ports.time.now + backoff.pause < deadline
                else { throw failure.told(doing: doing, on: .detachVolume) }
            }
            try await ports.time.sleep(until: ports.time.now + backoff.next())
            try await refuseForeign(volume, host, by: deadline)
        }
    }

    /// Throws if a look shows an attachment here that is not the plugin's: after a DetachVolume
    /// whose response was lost, the attachment may have ended and somebody may have attached the
    /// volume again.
    private func refuseForeign(
        _ volume: Volume, _ host: Host, by deadline: Instant
    ) async throws {
        let seen = try await describe(volume.id, by: deadline)
        guard let name = seen.attachment(to: host.instance)?.device,
            !volume.state.isPlugins(attachedAs: name, seen, on: host.instance)
        else { return }
        throw foreign(volume, attachedAs: name, host)
    }
}
