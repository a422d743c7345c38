import Base
import Logging
import VolumeCore

// How a volume's device gets to this instance.

/// A volume's device that is here.
struct Arrival {
    let device: BlockDevice
    /// Whether the lease was written and checked since the device appeared.
    let isSecured: Bool
}

extension VolumeManager {
    /// The volume's device, if it is here already.
    func presentDevice(
        of volume: Volume, _ timeline: inout MountTimeline
    ) async throws -> BlockDevice? {
        // A volume that is being detached may still be here.
        guard !volume.state.expectsDeparture else { return nil }
        let device: BlockDevice?
        do {
            device = try await ports.devices.find(
                volume.id, attachedAs: volume.state.deviceName)
        } catch let error as OperationError {
            // A disk that cannot be read need not be the volume, and EC2 knows where the volume is.
            log.warning(
                "the devices on this instance cannot be identified: asking EC2",
                metadata: ["volume": "\(volume.id)", "error": "\(error)"])
            return nil
        }
        guard let device else { return nil }
        volume.state.deviceFound()
        timeline.mark(.device, at: ports.time.now)
        return device
    }

    /// Attaches the volume, if necessary after detaching it from another instance, and returns its
    /// device. Nil if EC2 then says that it is no longer attached here.
    func attachedDevice(
        of volume: Volume, by deadline: Instant, _ timeline: inout MountTimeline
    ) async throws -> Arrival? {
        let host = try await ports.host.host(by: deadline)
        volume.state.leaseDoubted()
        let first = try await attach(volume, to: host, by: deadline)
        timeline.mark(.attach, at: ports.time.now)
        let soon = min(deadline, ports.time.now + Limit.attachingTimeMax)
        let arrival: Arrival?
        do {
            arrival = try await leasedDevice(of: volume, first, on: host, by: soon)
        } catch let error as OperationError {
            try await prepareRetry(
                after: error, awaiting: first, of: volume, on: host, by: deadline)
            let second = try await attach(volume, to: host, by: deadline)
            arrival = try await leasedDevice(of: volume, second, on: host, by: deadline)
        }
        timeline.mark(.device, at: ports.time.now)
        return arrival
    }

    /// Prepares another attempt after a device has not appeared; throws `error` if that is
    /// hopeless.
    private func prepareRetry(
        after error: OperationError, awaiting attachment: Attachment, of volume: Volume,
        on host: Host, by deadline: Instant
    ) async throws {
        switch MissingDevice(
            after: error.reason, isAccepted: attachment.isAccepted, isOurs: volume.state.isOurs,
            isTimeLeft: ports.time.now < deadline)
        {
        case .attachByAnotherName: try await detachStuck(volume, from: host, by: deadline)
        case .lookAgain: volume.state.descriptionDoubted()
        case .leaveToOwner:
            throw OperationError(
                .device, doing: error.doing, found: error.found,
                advice: "this plugin did not attach the volume here: detach it by hand, "
                    + "and mount it again")
        case .giveUp: throw error
        }
    }

    /// An attachment here, according to EC2.
    private struct Attachment {
        let name: String
        /// When EC2 was asked for it, if it has just accepted it. Otherwise it was looked up, and
        /// may have ended since.
        let askedAt: Instant?

        var isAccepted: Bool { askedAt != nil }
    }

    /// Waits for the device. If the attachment was just accepted, writes the lease in the meantime
    /// and asks EC2 once more; nil if EC2 says that the volume is no longer attached here.
    private func leasedDevice(
        of volume: Volume, _ attachment: Attachment, on host: Host, by deadline: Instant
    ) async throws -> Arrival? {
        let id = volume.id
        let leasing = Task(executorPreference: executor) {
            // EC2's answer may have been long on its way, and another host have taken the volume.
            guard let askedAt = attachment.askedAt else { return true }
            return try await self.secureLease(of: id, seenAt: askedAt, on: host, by: deadline)
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
            // EC2 is slow to accept the lease, and another name would not help: it gets the rest of
            // the time.
            return Arrival(device: device, isSecured: false)
        }
        return Arrival(device: device, isSecured: attachment.isAccepted)
    }

    private func detachStuck(
        _ volume: Volume, from host: Host, by deadline: Instant
    ) async throws {
        log.warning(
            "the device did not appear: detaching the volume, to attach it under another name",
            metadata: [
                "volume": "\(volume.id)", "name": "\(volume.state.deviceName ?? "")",
                "waited_s": "\(Limit.attachingTimeMax.components.seconds)",
            ])
        _ = try await detachHere(volume, host, by: deadline)
        await dropMark(of: volume.id, host, by: deadline)
        if let name = volume.state.deviceName { slots.names.quarantine(name) }
        volume.state.detachedStuck()
    }

    /// Asks EC2 until it has the volume attached, or being attached, here.
    ///
    /// A volume that was last seen free is attached without another look, so that the usual Mount
    /// makes one call: EC2 rejects a volume that has been attached since. It does not reject one
    /// that has become a Multi-Attach volume, but that is looked at before it is mounted. Any other
    /// step is decided on fresh facts. `Approach` decides.
    private func attach(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> Attachment {
        let id = volume.id
        let options = volume.record.options
        var approach = Approach(
            of: id, to: host, policy: options.takeover ?? settings.takeover,
            readOnly: options.readOnly, since: ports.time.now)
        if let seen = volume.state.description {
            try approach.recall(seen, isAttachUnanswered: volume.state.unansweredName != nil)
        }
        while true {
            switch try approach.next(now: ports.time.now) {
            case .look: try await look(where: volume, on: host, &approach, by: deadline)
            case .lookAgain(let instant):
                let end = try approach.pause(until: instant, now: ports.time.now, by: deadline)
                try await ports.time.sleep(until: end)
            case .use(let name):
                use(volume, attachedAs: name, on: host)
                return Attachment(name: name, askedAt: nil)
            case .attach:
                switch try await attachOnce(volume, to: host, by: deadline) {
                case .accepted(let name, let askedAt):
                    return Attachment(name: name, askedAt: askedAt)
                case .lookAgain(let reason): approach.noteNotAttached(reason)
                }
            case .askOwner(let owner): approach.note(try await look(at: owner, by: deadline))
            case .askPermission:
                approach.notePermission(try await mayLease(id, by: deadline))
            case .detach(let owner, let force, let latest):
                approach.noteDetach()
                try await detachElsewhere(
                    id, from: owner, force: force, sentBy: latest, by: deadline)
            }
        }
    }

    /// Asks EC2 where the volume is, and notes what that says of its attachment here.
    private func look(
        where volume: Volume, on host: Host, _ approach: inout Approach, by deadline: Instant
    ) async throws {
        let askedAt = ports.time.now
        let seen = try await describe(volume.id, by: deadline)
        volume.state.described(seen)
        let situation = try approach.note(
            seen, askedAt: askedAt, now: ports.time.now,
            isAnothers: { [id = volume.id] in isAnothers($0, than: id) })
        // DetachVolume decides whether it is still attached here: a look may be older than an
        // attachment.
        guard !situation.isOn(host.instance) else { return }
        guard !volume.state.isAttachedLately(at: ports.time.now) else { return }
        // If another instance has it, the attachment here has ended, and nothing is left to
        // release.
        releaseDeviceName(of: volume)
        volume.state.seenElsewhere()
    }

    /// Takes the attachment that EC2 tells of.
    private func use(_ volume: Volume, attachedAs name: String, on host: Host) {
        guard let seen = volume.state.description else { return }
        // An earlier run may have written them.
        if Lease.isHeld(by: host.instance, on: seen) { volume.state.leasePresumed() }
        if let old = volume.state.deviceName, old != name {
            volume.state.markEnded(as: old, isRemoved: false)
        }
        noteOrigin(of: volume, attachedAs: name, seen, on: host)
        claim(name, for: volume)
    }

    /// Records whether this plugin attached the volume here under that name, and thus may detach
    /// it.
    func noteOrigin(
        of volume: Volume, attachedAs name: String, _ seen: VolumeDescription, on host: Host
    ) {
        volume.state.originTold(
            isOurs: volume.state.isPlugins(attachedAs: name, seen, on: host.instance))
        saveInBackground()
    }

    /// Whether another volume here has the name: then a response that gives it to this one is
    /// outdated.
    private func isAnothers(_ name: String, than id: VolumeID) -> Bool {
        volumes.values.contains {
            $0.id != id && !$0.state.isPresumed && $0.state.deviceName == name
        }
    }

    private enum AttachOutcome {
        /// Under this device name.
        case accepted(String, askedAt: Instant)
        /// The volume is in another state than assumed, or EC2's response was lost.
        case lookAgain(String)
    }

    /// One AttachVolume with a free name.
    private func attachOnce(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> AttachOutcome {
        try await reserveSlot(for: volume, on: host, by: deadline)
        defer { slots.endReservation(of: volume.id) }
        let own = takeAskedName(of: volume)
        var asked = own
        for _ in DeviceNames.all {
            guard let name = asked ?? takeDeviceName() else { break }
            asked = nil
            let outcome = try await attach(
                volume, to: host, as: name, isAskedAgain: name == own, by: deadline)
            if let outcome { return outcome }
        }
        if await freeSlot(on: host, by: deadline) {
            return .lookAgain("all device names were in use")
        }
        throw OperationError(
            .limitReached, doing: "attach \(volume.id) to \(host.instance)",
            found: "all \(DeviceNames.all.count) device names are taken or refused",
            advice: "place the task on another instance")
    }

    /// One AttachVolume with that name; nil if only the name is at fault, which is set aside.
    private func attach(
        _ volume: Volume, to host: Host, as name: String, isAskedAgain: Bool, by deadline: Instant
    ) async throws -> AttachOutcome? {
        let wasOurs = volume.state.isOurs
        do {
            // A disk by the name of an earlier call may be the volume itself.
            if !isAskedAgain, let disk = await otherDisk(at: name, than: volume) {
                setAside(name, of: volume, for: disk)
                return nil
            }
            await noteAttaching(volume, as: name)
            let askedAt = ports.time.now
            let attachment = try await ports.ec2.attach(
                volume.id, to: host.instance, as: name, by: deadline)
            volume.state.attachAccepted(attachment, as: name, at: ports.time.now)
            claim(name, for: volume)
            return .accepted(name, askedAt: askedAt)
        } catch let failure as EC2Failure {
            let recovery = AttachRecovery(
                after: failure, isAskedAgain: isAskedAgain,
                isSlotComing: slots.isOneComing(at: ports.time.now))
            volume.state.attachFailed(
                failure, recovery, as: name, wasOurs: wasOurs, at: ports.time.now)
            try await recover(volume.id, failure, recovery, name, host, by: deadline)
            return recovery == .tryAnotherName ? nil : .lookAgain(failure.description)
        } catch {
            volume.state.attachRefused(as: name, wasOurs: wasOurs)
            releaseUnasked(name, for: volume.id)
            throw error
        }
    }

    /// The name under which the volume may already be attached, to be requested again; nil if there
    /// is none, or if another volume now has it.
    private func takeAskedName(of volume: Volume) -> String? {
        guard let name = volume.state.nameToAskAgain else { return nil }
        let isTaken = volumes.values.contains {
            $0 !== volume && $0.state.deviceName == name
        }
        guard !isTaken else {
            volume.state.unansweredNameTaken()
            return nil
        }
        slots.names.claim(name)
        return name
    }

    /// Saves that this plugin attaches the volume before it asks EC2: if the process ends before
    /// the response, the next run knows who made the attachment. If the state cannot be saved, this
    /// is logged, but does not prevent the Mount.
    private func noteAttaching(_ volume: Volume, as name: String) async {
        if volume.state.deviceName != name { releaseDeviceName(of: volume) }
        dropOwnership(of: volume)
        volume.state.attachBegan(as: name)
        await save(atMost: Limit.attachmentSaveTimeMax)
    }

    /// What else already has the node that the name would get, on Xen, where the name is all that
    /// tells the volume: an instance store, or what bears the name in its other spelling.
    private func otherDisk(at name: String, than volume: Volume) async -> BlockDevice? {
        // A device that cannot be identified is an NVMe device, for which names do not matter.
        guard let device = try? await ports.devices.find(volume.id, attachedAs: name),
            !device.bearsVolumeID
        else { return nil }
        return device
    }

    private func setAside(_ name: String, of volume: Volume, for disk: BlockDevice) {
        slots.names.quarantine(name)
        log.warning(
            "another disk has the device node that the volume would get: trying another name",
            metadata: ["volume": "\(volume.id)", "name": "\(name)", "disk": "\(disk.path)"])
    }

    /// Does what a failed AttachVolume calls for, and returns where it helps. Throws where nothing
    /// does.
    private func recover(
        _ id: VolumeID, _ failure: EC2Failure, _ recovery: AttachRecovery, _ name: String,
        _ host: Host, by deadline: Instant
    ) async throws {
        switch recovery {
        case .lookForAttachment: return
        case .tryAnotherName:
            slots.names.quarantine(name)
            log.notice(
                "EC2 says that a device name is in use: trying another one",
                metadata: ["volume": "\(id)", "name": "\(name)"])
            return
        case .freeSlot:
            let isFree = await freeSlot(on: host, by: deadline)
            releaseUnasked(name, for: id)
            if isFree { return }
        case .lookAgain, .giveUp:
            releaseUnasked(name, for: id)
            if recovery == .lookAgain { return }
        }
        throw failure.told(
            doing: "attach \(id) to \(host.instance) as \(name)", on: .attachVolume,
            kmsKeyID: volumes[id]?.state.description?.kmsKeyID)
    }

    /// Releases a name that EC2 did not give to the volume, unless an earlier call may have.
    private func releaseUnasked(_ name: String, for id: VolumeID) {
        if volumes[id]?.state.deviceName != name { slots.names.release(name) }
    }

    func claim(_ name: String, for volume: Volume) {
        if volume.state.deviceName != name { releaseDeviceName(of: volume) }
        slots.names.claim(name)
        volume.state.attached(as: name)
        saveInBackground()
    }

    /// Waits for the device, and polls EC2 in the meantime to detect a failure.
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

    /// Throws as soon as EC2 says that the volume is no longer being attached here under that name;
    /// never returns.
    private func failureOfAttachment(
        of id: VolumeID, as name: String, on host: Host, by deadline: Instant
    ) async throws -> Never {
        var proof = AttachmentProof()
        while true {
            try await ports.time.sleep(until: ports.time.now + Limit.attachmentCheckInterval)
            guard let description = try? await describe(id, by: deadline) else { continue }
            // Zone and state do not matter here, and a deleted volume has no attachment.
            let situation = try Situation(of: description, seenFrom: host, readOnly: true)
            if proof.holds(after: situation, attachedAs: name) { continue }
            throw attachmentEnded(id, host, situation, description)
        }
    }

    private func attachmentEnded(
        _ id: VolumeID, _ host: Host, _ situation: Situation, _ description: VolumeDescription
    ) -> OperationError {
        OperationError(
            .device, doing: "attach \(id) to \(host.instance)",
            found: "EC2 accepted the attachment, but now says that the volume is \(situation)",
            advice: adviceOnEndedAttachment(
                kmsKeyID: situation == .free ? description.kmsKeyID : nil))
    }

    /// EC2's description of a volume that should be attached here; nil if it is not.
    func lookWhetherHere(
        _ id: VolumeID, on host: Host, by deadline: Instant
    ) async throws -> VolumeDescription? {
        var search = AttachmentSearch()
        while let volume = volumes[id] {
            let askedAt = ports.time.now
            let description = try await describe(id, by: deadline)
            volume.state.described(description)
            let situation = try Situation(
                of: description, seenFrom: host, readOnly: volume.record.options.readOnly)
            switch search.outcome(
                of: situation, askedAt: askedAt, now: ports.time.now,
                deviceName: volume.state.deviceName, attachedAt: volume.state.attachedAt,
                isAnothers: { isAnothers($0, than: id) })
            {
            case .found(let name):
                for own in description.attachments where own.instance == host.instance {
                    try await refuseRoot(id, own, by: deadline)
                }
                noteOrigin(of: volume, attachedAs: name, description, on: host)
                volume.state.seenHere()
                claim(name, for: volume)
                return description
            case .missing: return nil
            case .lookAgain(let instant): try await ports.time.sleep(until: instant)
            }
        }
        return nil
    }

    /// Warns that a volume is deleted with its instance, as are volumes that were attached at
    /// launch.
    func warnOfDeletion(of description: VolumeDescription) {
        guard let warning = description.deletionWarning else { return }
        log.warning(
            "EC2 deletes the volume, with its data, when its instance is terminated",
            metadata: ["volume": "\(description.id)", "advice": "\(warning)"])
    }

    func describe(_ id: VolumeID, by deadline: Instant) async throws -> VolumeDescription {
        try await ports.describe(id, by: deadline)
    }
}

extension VolumeManager.Ports {
    /// EC2's description of a volume that has to exist.
    func describe(_ id: VolumeID, by deadline: Instant) async throws -> VolumeDescription {
        let description: VolumeDescription?
        do { description = try await ec2.describeVolume(id, by: deadline) } catch {
            throw error.told(doing: "look up \(id)", on: .describeVolumes)
        }
        guard let description else {
            throw OperationError(
                .noSuchVolume, doing: "use \(id)",
                found: "EC2 knows no such volume in this account and region",
                advice: "check the id, and that the volume is in this instance's region")
        }
        return description
    }
}
