import Base
import Logging
import VolumeCore

// How a volume's device comes to this instance.

extension VolumeManager {
    /// The volume's device, if it is here already.
    func presentDevice(
        of volume: Volume, _ timeline: inout MountTimeline
    ) async throws -> BlockDevice? {
        // What is being detached may be here still.
        guard !volume.isLeaving else { return nil }
        let known = volume.record.deviceName
        guard let device = try await ports.devices.find(volume.id, attachedAs: known) else {
            return nil
        }
        volume.isHere = true
        timeline.mark(.device, at: ports.time.now)
        return device
    }

    /// The volume's device, which comes by attaching, here or first away from elsewhere.
    func attachedDevice(
        of volume: Volume, by deadline: Instant, _ timeline: inout MountTimeline
    ) async throws -> BlockDevice {
        let host = try await ports.host.host(by: deadline)
        volume.isLeaseSure = false
        let first = try await attach(volume, to: host, by: deadline)
        timeline.mark(.attach, at: ports.time.now)
        let soon = min(deadline, ports.time.now + Limit.attachingTimeMax)
        let device: BlockDevice
        do {
            device = try await leasedDevice(of: volume, first, on: host, by: soon)
        } catch let error as OperationError {
            try await overcome(error, awaiting: first, of: volume, on: host, by: deadline)
            let second = try await attach(volume, to: host, by: deadline)
            device = try await leasedDevice(of: volume, second, on: host, by: deadline)
        }
        timeline.mark(.device, at: ports.time.now)
        return device
    }

    /// Prepares another attempt after a device has not come; throws `error` where that is hopeless.
    private func overcome(
        _ error: OperationError, awaiting attachment: Attachment, of volume: Volume, on host: Host,
        by deadline: Instant
    ) async throws {
        switch error.reason {
        case .deadline where ports.time.now < deadline:
            // Stuck in `attaching`: another name helps where the kernel still holds the old one.
            try await detachStuck(volume, from: host, by: deadline)
        case .device where !attachment.isAccepted:
            // It was looked up, by an answer that was old.
            volume.description = nil
        default: throw error
        }
    }

    /// An attachment here, as EC2 has it.
    private struct Attachment {
        let name: String
        /// Whether EC2 has just accepted it. Another one was looked up, and may have ended since.
        let isAccepted: Bool
    }

    /// The device as it comes. The lease of an attachment that was accepted is written meanwhile.
    private func leasedDevice(
        of volume: Volume, _ attachment: Attachment, on host: Host, by deadline: Instant
    ) async throws -> BlockDevice {
        let id = volume.id
        let leasing = Task(executorPreference: executor) {
            if attachment.isAccepted { try await self.takeLease(of: id, host, by: deadline) }
        }
        let device: BlockDevice
        do {
            device = try await awaitDevice(
                of: id, attachedAs: attachment.name, on: host, by: deadline)
        } catch {
            _ = try? await leasing.value
            throw error
        }
        try await leasing.value
        return device
    }

    private func detachStuck(
        _ volume: Volume, from host: Host, by deadline: Instant
    ) async throws {
        log.warning(
            "the device did not come: detaching the volume, to attach it by another name",
            metadata: [
                "volume": "\(volume.id)", "name": "\(volume.record.deviceName ?? "")",
                "waited_s": "\(Limit.attachingTimeMax.components.seconds)",
            ])
        try await detachHere(volume.id, host, by: deadline)
        if let name = volume.record.deviceName { deviceNames.quarantine(name) }
        volume.record.deviceName = nil
        volume.isHere = false
        // Should its device come all the same, it is one that leaves.
        volume.isLeaving = true
        volume.isLeaseSure = false
        volume.description = nil
    }

    /// Asks EC2 until it has the volume attached, or being attached, here.
    ///
    /// A volume that was last seen free is attached without another look, so that the usual Mount
    /// costs one call; any other step is decided on facts that are new, and that of a volume which may
    /// have come to have several attachments.
    private func attach(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> Attachment {
        if volume.isLeaving { volume.description = nil }
        var isNew = false
        var obstacle = Obstacle(since: ports.time.now)
        while true {
            if let seen = volume.description, isNew || seen.isSurelyFree {
                let attachment = try await comeCloser(
                    volume, as: seen, isNew: isNew, &obstacle, host, by: deadline)
                if let attachment { return attachment }
            }
            volume.description = try await describe(volume.id, by: deadline)
            isNew = true
        }
    }

    /// One step towards an attachment here, from what EC2 has said of the volume; nil when it is to be
    /// looked at again, after a pause where the facts were new.
    private func comeCloser(
        _ volume: Volume, as seen: VolumeDescription, isNew: Bool, _ obstacle: inout Obstacle,
        _ host: Host, by deadline: Instant
    ) async throws -> Attachment? {
        let situation = try Situation(
            of: seen, seenFrom: host, readOnly: volume.record.options.readOnly)
        // Whether it is still attached here is for DetachVolume to say: a look may be older than an
        // attachment.
        if isNew, !situation.isOn(host.instance) { releaseDeviceName(of: volume) }
        if isNew, situation != .free {
            obstacle.found = "EC2 says that the volume is \(situation)"
        }
        switch situation {
        case .here(let name?):
            // An earlier run may have written it.
            if Lease.isHeld(by: host.instance, on: seen) { volume.record.hasLease = true }
            claim(name, for: volume)
            return Attachment(name: name, isAccepted: false)
        case .here(nil):
            throw unusable(volume.id, "EC2 gives no device name for its attachment here")
        case .free:
            switch try await attachOnce(volume, to: host, by: deadline) {
            case .accepted(let name): return Attachment(name: name, isAccepted: true)
            case .lookAgain(let why): obstacle.found = why
            }
        case .elsewhere(let owner):
            try await takeOver(
                seen, from: owner, policy(of: volume), patience: obstacle.patience, by: deadline)
        case .leaving(let owner)
        where owner != host.instance && policy(of: volume) != .never:
            try await hurry(volume.id, from: owner, &obstacle, by: deadline)
        case .leaving, .creating: break
        }
        // EC2 needs time.
        if isNew { try await pause(volume.id, &obstacle, by: deadline) }
        return nil
    }

    private enum AttachOutcome {
        /// By this device name.
        case accepted(String)
        /// The volume is not as it was thought to be, or EC2's answer was lost.
        case lookAgain(String)
    }

    /// One AttachVolume by a free name.
    private func attachOnce(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> AttachOutcome {
        try await reservePlace(for: volume, on: host, by: deadline)
        defer { endReservation(of: volume) }
        for _ in DeviceNames.all {
            guard let name = takeDeviceName() else { break }
            do {
                if try await isForeign(name, to: volume) { continue }
                let attachment = try await ports.ec2.attach(
                    volume.id, to: host.instance, as: name, by: deadline)
                volume.description?.attachments = [attachment]
                claim(name, for: volume)
                return .accepted(name)
            } catch let failure as EC2Failure {
                if case .unanswered(_, mayHaveApplied: true) = failure { volume.isHere = true }
                if try await isRetried(failure, volume.id, name, host, by: deadline) { continue }
                return .lookAgain(failure.description)
            } catch {
                deviceNames.release(name)
                throw error
            }
        }
        if await makePlace(on: host, by: deadline) {
            return .lookAgain("all device names were in use")
        }
        throw OperationError(
            .limitReached, doing: "attach \(volume.id) to \(host.instance)",
            found: "all \(DeviceNames.all.count) device names are taken or refused",
            advice: "place the task on another instance")
    }

    /// Whether something else already has the node that the name would get, on Xen, where the name
    /// is all that tells the volume: an instance store, or what bears the name in its other spelling.
    private func isForeign(_ name: String, to volume: Volume) async throws -> Bool {
        guard let device = try await ports.devices.find(volume.id, attachedAs: name),
            !device.bearsVolumeID
        else { return false }
        deviceNames.quarantine(name)
        log.warning(
            "another disk is where the volume would come; another name is tried",
            metadata: ["volume": "\(volume.id)", "name": "\(name)", "disk": "\(device.path)"])
        return true
    }

    /// True when another name is to be tried, false when the volume is to be looked at again.
    private func isRetried(
        _ failure: EC2Failure, _ id: VolumeID, _ name: String, _ host: Host, by deadline: Instant
    ) async throws -> Bool {
        var advice: String?
        switch failure {
        case .refused(let code, let message, _):
            switch AttachRefusal(code: code, message: message) {
            case .nameInUse:
                deviceNames.quarantine(name)
                log.notice(
                    "EC2 says that a device name is in use; another is tried",
                    metadata: ["volume": "\(id)", "name": "\(name)"])
                return true
            case .volumeChanged:
                deviceNames.release(name)
                return false
            case .limitReached where isPlaceComing:
                deviceNames.release(name)
                return false
            case .limitReached where await makePlace(on: host, by: deadline):
                deviceNames.release(name)
                return false
            case .limitReached:
                advice = "detach a volume from this instance, or place the task on another"
            case .final(let known): advice = known
            }
        case .unanswered(_, mayHaveApplied: true):
            // If it was applied, the next look finds the volume here by this name.
            deviceNames.release(name)
            return false
        default: break
        }
        deviceNames.release(name)
        throw OperationError(
            .cloud, doing: "attach \(id) to \(host.instance) as \(name)",
            found: failure.description, advice: advice)
    }

    func claim(_ name: String, for volume: Volume) {
        let isNew = volume.record.deviceName != name || !volume.isHere
        if volume.record.deviceName != name { releaseDeviceName(of: volume) }
        deviceNames.claim(name)
        volume.record.deviceName = name
        volume.isHere = true
        volume.isPresumed = false
        volume.isLeaving = false
        if isNew { saveInBackground() }
    }

    /// Waits for the device, and meanwhile asks EC2 now and then, to learn of a failure.
    private func awaitDevice(
        of id: VolumeID, attachedAs name: String, on host: Host, by deadline: Instant
    ) async throws -> BlockDevice {
        let devices = ports.devices
        return try await withThrowingTaskGroup(of: BlockDevice.self) { group in
            group.addTask { try await devices.arrival(of: id, attachedAs: name, by: deadline) }
            group.addTask { try await self.failureOfAttachment(of: id, on: host, by: deadline) }
            defer { group.cancelAll() }
            guard let device = try await group.next() else { throw CancellationError() }
            return device
        }
    }

    /// Throws as soon as EC2 says that the volume is not on its way here any more; never returns.
    private func failureOfAttachment(
        of id: VolumeID, on host: Host, by deadline: Instant
    ) async throws -> Never {
        var misses = 0
        while true {
            try await ports.time.sleep(until: ports.time.now + Limit.attachmentCheckInterval)
            guard let description = try? await describe(id, by: deadline) else { continue }
            // Zone and state are not in question here, and a deleted volume is no attachment.
            let situation = try Situation(of: description, seenFrom: host, readOnly: true)
            if case .here = situation {
                misses = 0
                continue
            }
            // One answer may be older than the attachment.
            misses += 1
            guard misses > 1 else { continue }
            throw OperationError(
                .device, doing: "attach \(id) to \(host.instance)",
                found: "EC2 accepted the attachment, and now says that the volume is \(situation)",
                advice: "see CloudTrail for who detached it; the next mount tries again")
        }
    }

    func describe(_ id: VolumeID, by deadline: Instant) async throws -> VolumeDescription {
        let description: VolumeDescription?
        do {
            description = try await ports.ec2.describeVolume(id, by: deadline)
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "look up \(id)", found: failure.description,
                advice: failure.code == "UnauthorizedOperation"
                    ? "allow ec2:DescribeVolumes to the instance's role" : nil)
        }
        guard let description else {
            throw OperationError(
                .noSuchVolume, doing: "use \(id)",
                found: "EC2 knows no such volume in this account and region",
                advice: "check the id, and that the volume is in this instance's region")
        }
        return description
    }

    /// Pauses between two looks at what EC2 tells no event of. Throws when the deadline is nearer
    /// than the pause is long.
    private func pause(
        _ id: VolumeID, _ obstacle: inout Obstacle, by deadline: Instant
    ) async throws {
        let end = ports.time.now + obstacle.pause
        guard end < deadline else {
            throw OperationError(
                .deadline, doing: "attach \(id)",
                found: "after as long as a mount may take, \(obstacle.found)",
                advice: "an instance that has the volume mounted keeps it: unmount it there")
        }
        try await ports.time.sleep(until: end)
        obstacle.pause = min(obstacle.pause * 3 / 2, Limit.lookIntervalMax)
    }
}

extension VolumeDescription {
    /// Whether AttachVolume fails if it is attached by now: not so for a volume that may have been made
    /// a Multi-Attach one meanwhile, which io1 and io2 can be.
    fileprivate var isSurelyFree: Bool {
        attachments.isEmpty && state != .inUse && !volumeType.hasPrefix("io")
    }
}
