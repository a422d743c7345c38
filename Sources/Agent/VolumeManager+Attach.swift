import Base
import Logging
import VolumeCore

// How a volume's device comes to this instance.

/// A volume's device that is here.
struct Arrival {
    let device: BlockDevice
    /// Whether the lease was written since it came, and looked at.
    let isSecured: Bool
}

extension VolumeManager {
    /// The volume's device, if it is here already.
    func presentDevice(
        of volume: Volume, _ timeline: inout MountTimeline
    ) async throws -> BlockDevice? {
        // What is being detached may be here still.
        guard !volume.isLeaving else { return nil }
        let device: BlockDevice?
        do {
            device = try await ports.devices.find(
                volume.id, attachedAs: volume.record.deviceName)
        } catch let error as OperationError {
            // Another disk that cannot be read need not be the volume, and EC2 knows.
            log.warning(
                "the devices that are here cannot be told apart: EC2 is asked",
                metadata: ["volume": "\(volume.id)", "error": "\(error)"])
            return nil
        }
        guard let device else { return nil }
        volume.isHere = true
        timeline.mark(.device, at: ports.time.now)
        return device
    }

    /// The volume's device, which comes by attaching, here or first away from elsewhere. Nil where EC2
    /// says by then that it is not attached here any more.
    func attachedDevice(
        of volume: Volume, by deadline: Instant, _ timeline: inout MountTimeline
    ) async throws -> Arrival? {
        let host = try await ports.host.host(by: deadline)
        volume.isLeaseSure = false
        let first = try await attach(volume, to: host, by: deadline)
        timeline.mark(.attach, at: ports.time.now)
        let soon = min(deadline, ports.time.now + Limit.attachingTimeMax)
        let arrival: Arrival?
        do {
            arrival = try await leasedDevice(of: volume, first, on: host, by: soon)
        } catch let error as OperationError {
            try await overcome(error, awaiting: first, of: volume, on: host, by: deadline)
            let second = try await attach(volume, to: host, by: deadline)
            arrival = try await leasedDevice(of: volume, second, on: host, by: deadline)
        }
        timeline.mark(.device, at: ports.time.now)
        return arrival
    }

    /// Prepares another attempt after a device has not come; throws `error` where that is hopeless.
    private func overcome(
        _ error: OperationError, awaiting attachment: Attachment, of volume: Volume, on host: Host,
        by deadline: Instant
    ) async throws {
        switch error.reason {
        case .deadline where ports.time.now < deadline:
            guard volume.record.isOurs else {
                throw OperationError(
                    .device, doing: error.doing, found: error.found,
                    advice:
                        "it was not this plugin that attached the volume here: detach it by hand, "
                        + "and mount it again")
            }
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

    /// The device as it comes. Of an attachment that was accepted the lease is written meanwhile, and
    /// EC2 asked once more; nil where it says that the volume is not attached here any more.
    private func leasedDevice(
        of volume: Volume, _ attachment: Attachment, on host: Host, by deadline: Instant
    ) async throws -> Arrival? {
        let id = volume.id
        let acceptedAt = ports.time.now
        let leasing = Task(executorPreference: executor) {
            guard attachment.isAccepted else { return true }
            return try await self.secureLease(of: id, seenAt: acceptedAt, on: host, by: deadline)
        }
        let device: BlockDevice
        do {
            device = try await awaitDevice(
                of: id, attachedAs: attachment.name, on: host, by: deadline)
        } catch {
            _ = try? await leasing.value
            throw error
        }
        do {
            guard try await leasing.value else { return nil }
        } catch let error as OperationError where error.reason == .deadline {
            // EC2 is slow to take the lease, and no other name would help: it has the rest of the time.
            return Arrival(device: device, isSecured: false)
        }
        return Arrival(device: device, isSecured: attachment.isAccepted)
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
        _ = try await detachHere(volume, host, by: deadline)
        volume.askedNames = []
        await dropMark(of: volume.id, host, by: deadline)
        if let name = volume.record.deviceName { deviceNames.quarantine(name) }
        volume.record.deviceName = nil
        volume.isHere = false
        volume.record.isOurs = false
        // Should its device come all the same, it is one that leaves.
        volume.isLeaving = true
        volume.isLeaseSure = false
        volume.description = nil
    }

    /// Asks EC2 until it has the volume attached, or being attached, here.
    ///
    /// A volume that was last seen free is attached without another look, so that the usual Mount
    /// costs one call: EC2 refuses what is attached by then, and what it does not refuse, a volume that
    /// has become a Multi-Attach one, is looked at before it is mounted. Any other step is decided on
    /// facts that are new.
    private func attach(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> Attachment {
        var approach = Approach(since: ports.time.now)
        if let seen = volume.description, seen.attachments.isEmpty,
            volume.unansweredName == nil
        {
            let step = try await comeCloser(
                volume, as: seen, lookedAt: nil, &approach, host, by: deadline)
            if case .attached(let attachment) = step { return attachment }
        }
        while true {
            let lookedAt = ports.time.now
            let seen = try await describe(volume.id, by: deadline)
            volume.description = seen
            switch try await comeCloser(
                volume, as: seen, lookedAt: lookedAt, &approach, host, by: deadline)
            {
            case .attached(let attachment): return attachment
            case .lookAgain(let instant):
                try await pause(volume.id, &approach, until: instant, by: deadline)
            }
        }
    }

    private enum ApproachStep {
        case attached(Attachment)
        /// At that time, nil: after a pause, for EC2 needs time.
        case lookAgain(at: Instant?)
    }

    /// One step towards an attachment here, from what EC2 has said of the volume.
    ///
    /// - Parameter lookedAt: when EC2 was asked for that; nil where it was before this Mount.
    private func comeCloser(
        _ volume: Volume, as seen: VolumeDescription, lookedAt: Instant?,
        _ approach: inout Approach, _ host: Host, by deadline: Instant
    ) async throws -> ApproachStep {
        let situation = try Situation(
            of: seen, seenFrom: host, readOnly: volume.record.options.readOnly)
        if lookedAt != nil { note(situation, of: volume, on: host, &approach) }
        switch situation {
        case .here(let name?) where isAnothers(name, than: volume): break
        case .here(let name?):
            // An earlier run may have written them.
            if Lease.isHeld(by: host.instance, on: seen) { volume.record.hasLease = true }
            noteOrigin(of: volume, attachedAs: name, seen, on: host)
            claim(name, for: volume)
            return .attached(Attachment(name: name, isAccepted: false))
        case .here(nil):
            throw unusable(volume.id, "EC2 gives no device name for its attachment here")
        case .free:
            switch try await attachOnce(volume, to: host, by: deadline) {
            case .accepted(let name):
                return .attached(Attachment(name: name, isAccepted: true))
            case .lookAgain(let why): approach.obstacle = why
            }
        case .elsewhere(let owner):
            guard let lookedAt else { break }
            let instant = try await takeOver(
                seen, lookedAt: lookedAt, from: owner, policy(of: volume), &approach, by: deadline)
            return .lookAgain(at: instant)
        case .leaving(let owner)
        where owner != host.instance && policy(of: volume) != .never:
            try await hurry(seen, from: owner, &approach, by: deadline)
        case .leaving, .creating: break
        }
        return .lookAgain(at: nil)
    }

    private func note(
        _ situation: Situation, of volume: Volume, on host: Host, _ approach: inout Approach
    ) {
        approach.obstacle = "EC2 says that the volume is \(situation)"
        // Whether it is still attached here is for DetachVolume to say: a look may be older than an
        // attachment.
        guard !situation.isOn(host.instance) else { return }
        if let attachedAt = volume.attachedAt, ports.time.now < attachedAt + Limit.attachmentLagMax
        {
            return
        }
        // What another instance has is not what was attached here, and nothing is left to give back.
        releaseDeviceName(of: volume)
        volume.isHere = false
        volume.record.isOurs = false
    }

    /// Notes whether it was this plugin that attached the volume here, by that name: then it is its to
    /// detach.
    func noteOrigin(
        of volume: Volume, attachedAs name: String, _ seen: VolumeDescription, on host: Host
    ) {
        volume.record.isOurs = isAttached(volume, as: name, seen, on: host)
        saveInBackground()
    }

    /// Whether it was this plugin that attached the volume here by that name.
    func isAttached(
        _ volume: Volume, as name: String, _ seen: VolumeDescription, on host: Host
    ) -> Bool {
        isMarked(volume, seen, on: host) || volume.askedNames.contains(name)
            || volume.record.isOurs && volume.record.deviceName == name
    }

    /// Whether a mark says that this plugin attached the volume here.
    func isMarked(_ volume: Volume, _ seen: VolumeDescription, on host: Host) -> Bool {
        !volume.isMarkStale && AttachmentMark.isBorne(by: seen, for: host.instance)
    }

    /// Whether another volume that is here has the name: then an answer that gives it to this one is old.
    private func isAnothers(_ name: String, than volume: Volume) -> Bool {
        volumes.values.contains {
            $0 !== volume && !$0.isPresumed && $0.record.deviceName == name
        }
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
        let own = takeAskedName(of: volume)
        var asked = own
        for _ in DeviceNames.all {
            guard let name = asked ?? takeDeviceName() else { break }
            asked = nil
            let wasOurs = volume.record.isOurs
            do {
                if try await isForeign(name, to: volume) { continue }
                await noteAttaching(volume, as: name)
                let attachment = try await ports.ec2.attach(
                    volume.id, to: host.instance, as: name, by: deadline)
                volume.description?.attachments = [attachment]
                noteAttached(volume)
                claim(name, for: volume)
                return .accepted(name)
            } catch let failure as EC2Failure {
                if case .unanswered(_, mayHaveApplied: true) = failure {
                    volume.isHere = true
                    volume.unansweredName = name
                    noteAttached(volume)
                } else if wasOurs, name == own, AttachRefusal(failure) == .volumeChanged {
                    // It may be attached by the call whose answer was lost, and the look that showed it
                    // free be older than that: so its name stays in the record.
                    return .lookAgain(failure.description)
                } else {
                    volume.record.isOurs = wasOurs
                    volume.record.deviceName = nil
                }
                if try await isRetried(failure, volume.id, name, host, by: deadline) { continue }
                return .lookAgain(failure.description)
            } catch {
                deviceNames.release(name)
                volume.record.isOurs = wasOurs
                volume.record.deviceName = nil
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

    /// The name that the volume may be attached by already, to be asked for again; nil where there is none,
    /// or another volume has it by now.
    private func takeAskedName(of volume: Volume) -> String? {
        let own = volume.record.isOurs ? volume.record.deviceName : nil
        guard let name = volume.unansweredName ?? own else { return nil }
        volume.unansweredName = nil
        let isTaken = volumes.values.contains {
            $0 !== volume && $0.record.deviceName == name
        }
        guard !isTaken else { return nil }
        deviceNames.claim(name)
        return name
    }

    /// Saves that this plugin attaches the volume, before EC2 is asked to: should the process end before
    /// the answer is there, the next run knows whose the attachment is. A state that cannot be saved is
    /// told, and no reason to refuse a container its data.
    private func noteAttaching(_ volume: Volume, as name: String) async {
        if volume.record.deviceName != name { releaseDeviceName(of: volume) }
        dropOwnership(of: volume)
        volume.record.isOurs = true
        volume.record.deviceName = name
        volume.askedNames.insert(name)
        await save(atMost: Limit.attachmentSaveTimeMax)
    }

    private func noteAttached(_ volume: Volume) {
        volume.attachedAt = ports.time.now
        volume.isLookedAt = false
    }

    /// Whether something else already has the node that the name would get, on Xen, where the name
    /// is all that tells the volume: an instance store, or what bears the name in its other spelling.
    private func isForeign(_ name: String, to volume: Volume) async throws -> Bool {
        // Where a device cannot be told, it is an NVMe device, and no name decides.
        guard let device = try? await ports.devices.find(volume.id, attachedAs: name),
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
        // If it was applied, the next look finds the volume here by this name.
        if case .unanswered(_, mayHaveApplied: true) = failure { return false }
        switch AttachRefusal(failure) {
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
        case .limitReached, .final, nil: break
        }
        deviceNames.release(name)
        throw OperationError(
            .cloud, doing: "attach \(id) to \(host.instance) as \(name)",
            found: failure.description,
            advice: failure.advice(
                on: .attachVolume, kmsKeyID: volumes[id]?.description?.kmsKeyID))
    }

    func claim(_ name: String, for volume: Volume) {
        if volume.record.deviceName != name { releaseDeviceName(of: volume) }
        deviceNames.claim(name)
        volume.record.deviceName = name
        volume.isHere = true
        volume.isPresumed = false
        volume.isLeaving = false
        volume.unansweredName = nil
        saveInBackground()
    }

    /// Waits for the device, and meanwhile asks EC2 now and then, to learn of a failure.
    private func awaitDevice(
        of id: VolumeID, attachedAs name: String, on host: Host, by deadline: Instant
    ) async throws -> BlockDevice {
        let devices = ports.devices
        return try await withThrowingTaskGroup(of: BlockDevice.self) { group in
            group.addTask { try await devices.arrival(of: id, attachedAs: name, by: deadline) }
            group.addTask {
                try await self.failureOfAttachment(of: id, as: name, on: host, by: deadline)
            }
            defer { group.cancelAll() }
            guard let device = try await group.next() else { throw CancellationError() }
            return device
        }
    }

    /// Throws as soon as EC2 says that the volume is not on its way here any more, by that name; never
    /// returns.
    private func failureOfAttachment(
        of id: VolumeID, as name: String, on host: Host, by deadline: Instant
    ) async throws -> Never {
        var misses = 0
        while true {
            try await ports.time.sleep(until: ports.time.now + Limit.attachmentCheckInterval)
            guard let description = try? await describe(id, by: deadline) else { continue }
            // Zone and state are not in question here, and a deleted volume is no attachment.
            let situation = try Situation(of: description, seenFrom: host, readOnly: true)
            if case .here(let told) = situation, told == name {
                misses = 0
                continue
            }
            // One answer may be older than the attachment.
            misses += 1
            guard misses > 1 else { continue }
            throw attachmentEnded(id, host, situation, description)
        }
    }

    private func attachmentEnded(
        _ id: VolumeID, _ host: Host, _ situation: Situation, _ description: VolumeDescription
    ) -> OperationError {
        OperationError(
            .device, doing: "attach \(id) to \(host.instance)",
            found: "EC2 accepted the attachment, and now says that the volume is \(situation)",
            advice: adviceOnEndedAttachment(
                kmsKeyID: situation == .free ? description.kmsKeyID : nil))
    }

    /// What EC2 says of a volume that is thought to be attached here; nil where it is not.
    ///
    /// Soon after an attachment one answer may be older than that: it takes two that are apart.
    func lookWhetherHere(
        _ id: VolumeID, on host: Host, by deadline: Instant
    ) async throws -> VolumeDescription? {
        var missedAt: Instant?
        var pause = Limit.lookIntervalMin
        while let volume = volumes[id] {
            let lookedAt = ports.time.now
            let description = try await describe(id, by: deadline)
            volume.description = description
            let situation = try Situation(
                of: description, seenFrom: host, readOnly: volume.record.options.readOnly)
            // On Xen the name is how the device was found.
            if case .here(let name?) = situation, (volume.record.deviceName ?? name) == name,
                !isAnothers(name, than: volume)
            {
                for own in description.attachments where own.instance == host.instance {
                    try await refuseRoot(id, own, by: deadline)
                }
                noteOrigin(of: volume, attachedAs: name, description, on: host)
                volume.isLookedAt = volume.attachedAt != nil
                claim(name, for: volume)
                return description
            }
            let first = missedAt ?? lookedAt
            missedAt = first
            guard let attachedAt = volume.attachedAt,
                lookedAt < attachedAt + Limit.attachmentLagMax + Limit.tagLagMax,
                lookedAt < first + Limit.tagLagMax
            else { return nil }
            try await ports.time.sleep(
                until: min(ports.time.now + pause, max(ports.time.now, first + Limit.tagLagMax)))
            pause = pause * 3 / 2
        }
        return nil
    }

    /// Tells that a volume goes with its instance: one that was attached at the instance's launch does.
    func warnOfDeletion(of description: VolumeDescription) {
        guard let warning = description.deletionWarning else { return }
        log.warning(
            "EC2 deletes the volume, with its data, when its instance is terminated",
            metadata: ["volume": "\(description.id)", "advice": "\(warning)"])
    }

    func describe(_ id: VolumeID, by deadline: Instant) async throws -> VolumeDescription {
        let description: VolumeDescription?
        do {
            description = try await ports.ec2.describeVolume(id, by: deadline)
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "look up \(id)", found: failure.description,
                advice: failure.advice(on: .describeVolumes))
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
        _ id: VolumeID, _ approach: inout Approach, until instant: Instant?, by deadline: Instant
    ) async throws {
        let end = instant ?? ports.time.now + approach.pause
        guard end < deadline else {
            throw OperationError(
                .deadline, doing: "attach \(id)",
                found: "after as long as a mount may take, \(approach.obstacle)",
                advice: "see in EC2 where the volume is attached, and detach it there")
        }
        try await ports.time.sleep(until: end)
        approach.pause = min(approach.pause * 3 / 2, Limit.lookIntervalMax)
    }
}
