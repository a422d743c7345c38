import Base
import Logging
import VolumeCore

// How a volume's device comes to this instance.

extension VolumeManager {
    /// The volume's device: the one that is here, or else the one that comes by attaching.
    func bringDevice(
        of volume: Volume, by deadline: Instant, _ timeline: inout MountTimeline
    ) async throws -> BlockDevice {
        let known = volume.record.deviceName
        if let device = try await ports.devices.find(volume.id, attachedAs: known) {
            volume.isHere = true
            timeline.mark(.device, at: ports.time.now)
            return device
        }
        let host = try await ports.host.host(by: deadline)
        let name = try await attach(volume, to: host, by: deadline)
        timeline.mark(.attach, at: ports.time.now)
        let device = try await awaitDevice(of: volume.id, attachedAs: name, on: host, by: deadline)
        timeline.mark(.device, at: ports.time.now)
        return device
    }

    /// Asks EC2 until it has the volume attached, or being attached, here. Returns its device name.
    ///
    /// A volume that was last seen free is attached without another look, so that the usual Mount
    /// costs one call; any other step is decided on facts that are new.
    private func attach(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> String {
        var isNew = false
        var pause = Limit.lookIntervalMin
        while true {
            if let seen = volume.description, isNew || !seen.isAttached {
                let situation = try Situation(
                    of: seen, seenFrom: host, readOnly: volume.record.options.readOnly)
                switch situation {
                case .here(let name?):
                    claim(name, for: volume)
                    return name
                case .here(nil):
                    throw unusable(volume.id, "EC2 gives no device name for its attachment here")
                case .free:
                    if let name = try await attachOnce(volume, to: host, by: deadline) {
                        return name
                    }
                case .elsewhere(let owner):
                    try await detachElsewhere(volume.id, from: owner, by: deadline)
                case .leaving, .creating: break
                }
                // Facts that were new did not let it be attached: EC2 needs time.
                if isNew {
                    try await self.pause(pause, by: deadline, volume.id, situation)
                    pause = min(pause * 3 / 2, Limit.lookIntervalMax)
                }
            }
            volume.description = try await describe(volume.id, by: deadline)
            isNew = true
        }
    }

    /// One AttachVolume by a free name. Nil when the volume is not as it was thought to be.
    private func attachOnce(
        _ volume: Volume, to host: Host, by deadline: Instant
    ) async throws -> String? {
        while true {
            guard let name = deviceNames.take() else {
                throw OperationError(
                    .limitReached, doing: "attach \(volume.id) to \(host.instance)",
                    found: "all \(DeviceNames.all.count) device names are taken",
                    advice: "place the task on another instance")
            }
            do {
                let attachment = try await ports.ec2.attach(
                    volume.id, to: host.instance, as: name, by: deadline)
                volume.description?.attachments = [attachment]
                claim(name, for: volume)
                return name
            } catch let failure as EC2Failure {
                if try isRetried(failure, volume.id, name, host) { continue }
                return nil
            } catch {
                deviceNames.release(name)
                throw error
            }
        }
    }

    /// True when another name is to be tried, false when the volume is to be looked at again.
    private func isRetried(
        _ failure: EC2Failure, _ id: VolumeID, _ name: String, _ host: Host
    ) throws -> Bool {
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

    private func claim(_ name: String, for volume: Volume) {
        deviceNames.claim(name)
        volume.record.deviceName = name
        volume.isHere = true
        saveInBackground()
    }

    private func detachElsewhere(
        _ id: VolumeID, from owner: InstanceID, by deadline: Instant
    ) async throws {
        log.notice(
            "the volume is attached elsewhere: detaching it there",
            metadata: ["volume": "\(id)", "owner": "\(owner)"])
        do {
            _ = try await ports.ec2.detach(id, from: owner, force: false, by: deadline)
        } catch let failure as EC2Failure {
            if let code = failure.code, isAlreadyDetached(code: code) { return }
            if case .unanswered(_, mayHaveApplied: true) = failure { return }
            throw OperationError(
                .cloud, doing: "detach \(id) from \(owner)", found: failure.description,
                advice: failure.code == "UnauthorizedOperation"
                    ? "allow ec2:DetachVolume to the instance's role" : nil)
        }
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
        while true {
            try await ports.time.sleep(until: ports.time.now + Limit.attachmentCheckInterval)
            guard let description = try? await describe(id, by: deadline) else { continue }
            // Zone and state are not in question here, and a deleted volume is no attachment.
            let situation = try Situation(of: description, seenFrom: host, readOnly: true)
            if case .here = situation { continue }
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
        _ pause: Duration, by deadline: Instant, _ id: VolumeID, _ situation: Situation
    ) async throws {
        let end = ports.time.now + pause
        guard end < deadline else {
            throw OperationError(
                .deadline, doing: "attach \(id)",
                found: "EC2 still says that the volume is \(situation)",
                advice: "an instance that has it mounted keeps it: unmount it there")
        }
        try await ports.time.sleep(until: end)
    }

    /// Learns which device names this instance's attachments bear. Not needed for correctness:
    /// EC2 refuses a name that is in use, and another is tried.
    package func learnDeviceNames() async throws {
        let deadline = ports.time.now + Limit.createTimeMax
        let host = try await ports.host.host(by: deadline)
        let instance = try await ports.ec2.describeInstance(host.instance, by: deadline)
        for name in instance?.deviceNames ?? [] { deviceNames.claim(name) }
    }
}

extension VolumeDescription {
    fileprivate var isAttached: Bool { !attachments.isEmpty || state == .inUse }
}
