import Base
import Logging
import VolumeCore

extension VolumeManager {
    /// Resumes the work of an earlier run of the daemon from its records and the existing mounts.
    /// Called once, before the first call is answered.
    ///
    /// A count without a mount is dropped: the instance was restarted, or the plugin was disabled
    /// by force or replaced. A container that keeps running holds the device, which is not released
    /// before the container ends. A mount without a count lingers and is released.
    package func start() async throws {
        volumes.take(try await ports.state.load(inBoot: origin.owner.boot))
        try await adoptMounts()
        try await dropCountsWithoutMount()
        // State of another boot or another instance is not used until its owner is known.
        for volume in volumes.values where origin.isConfirmed || volume.state.device != nil {
            await takeUp(volume)
        }
    }

    private func adoptMounts() async throws {
        let prefix = settings.mountRoot + "/"
        for mount in try await ports.fileSystems.mounted() where mount.mountpoint.hasPrefix(prefix)
        {
            guard let id = VolumeID(mount.mountpoint.dropFirst(prefix.count)) else { continue }
            // A mount without a record is released, unless Docker creates the volume before.
            let volume =
                volumes[id]
                ?? Volume(
                    VolumeRecord(id: id, createdAt: ports.time.unixSeconds, isRemoved: true))
            if !volumes.contains(id) { volumes[id] = volume }
            let device = BlockDevice(path: mount.source, number: mount.device)
            volume.state.foundMounted(on: device, mayBeOutdated: mount.mayBeOutdated)
            watch(volume, on: device)
        }
    }

    /// Finds out how far the earlier run got with the volume, and releases it if it is unused.
    func takeUp(_ volume: Volume) async {
        // Such a mount need not have a lease, so the next Mount starts again.
        if volume.record.mounts.isEmpty { volume.state.mountOutlived() }
        let isPresent = if volume.state.device == nil { await isPresent(volume) } else { true }
        noteTakenUp(volume, isPresent: isPresent)
        await removeFolder(of: volume)
        presumeLease(of: volume)
        if !volume.isUsed { giveBackWhenUnused(volume) }
    }

    private func noteTakenUp(_ volume: Volume, isPresent: Bool) {
        if let name = volume.state.deviceName { slots.names.recall(name, isPresent: isPresent) }
        volume.state.takenUp(isPresent: isPresent)
        tellWhatIsKnown(of: volume)
        if !isPresent { volume.record.isOwnershipDue = false }
    }

    /// Removes the folder that an earlier run may have left of an unmounted volume.
    private func removeFolder(of volume: Volume) async {
        guard volume.state.device == nil else { return }
        try? await ports.fileSystems.unmount(mountpoint(of: volume.id), of: volume.id)
    }

    /// The previous run may have written a lease and ended before recording it.
    private func presumeLease(of volume: Volume) {
        guard volume.state.isOurs || volume.state.device != nil else { return }
        volume.state.leasePresumed()
        saveInBackground()
    }

    private func tellWhatIsKnown(of volume: Volume) {
        let mounts = volume.record.mounts
        log.info(
            "known from an earlier run",
            metadata: [
                "volume": "\(volume.id)", "phase": "\(volume.state.phaseName)",
                "mounts": "\(mounts.total)",
            ])
        guard !mounts.unanswered.isEmpty else { return }
        // Docker sends no Unmount for an unanswered Mount; such a count stays until the mount is
        // gone, after a restart of the machine, or of the plugin by force.
        let ids = mounts.unanswered.sorted().map { quoted($0) }.joined(separator: ", ")
        log.warning(
            "mounts were counted whose responses may not have been sent",
            metadata: ["volume": "\(volume.id)", "ids": "\(ids)"])
    }

    /// On disk too; otherwise they would come back with the counts of later mounts.
    private func dropCountsWithoutMount() async throws {
        let stale = volumes.values.filter { $0.state.device == nil && !$0.record.mounts.isEmpty }
        guard !stale.isEmpty else { return }
        for volume in stale {
            log.notice(
                "mounts that an earlier run counted no longer exist",
                metadata: [
                    "volume": "\(volume.id)", "mounts": "\(volume.record.mounts.total)",
                ])
            volume.record.mounts = MountCounts()
        }
        await saveCounts()
    }

    /// Whether the device of an unmounted volume is here. If this is unclear, EC2 will say so
    /// later.
    func isPresent(_ volume: Volume) async -> Bool {
        let name = volume.state.deviceName
        return (try? await ports.devices.find(volume.id, attachedAs: name)) != nil
    }
}

extension VolumeManager {
    /// Finds out what is attached here: the device names in use, and volumes whose attachment an
    /// earlier run could not record, or whose records are lost; these are released. A Mount need
    /// not wait for this, because EC2 rejects a name that is in use, and another one is tried.
    package func learnAttachments() async throws {
        let unknown = try await lookAtAttachments()
        guard !unknown.isEmpty else { return }
        // EC2's response may be older than the last actions of the previous run.
        Task(executorPreference: executor) { await self.lookAtAttachmentsAgain() }
    }

    private func lookAtAttachmentsAgain() async {
        for pause in Limit.adoptionPauses {
            do {
                try await ports.time.sleep(until: ports.time.now + pause)
                if try await lookAtAttachments().isEmpty { return }
            } catch is CancellationError {
                return
            } catch {
                log.notice(
                    "the attachments of this instance could not be looked up again",
                    metadata: ["error": "\(error)"])
            }
        }
    }

    /// Returns the volumes whose origin only a later look can tell: those that are attached here
    /// under names that this plugin uses, but without any sign that it attached them, and those
    /// that it should have attached here but EC2 does not list.
    private func lookAtAttachments() async throws -> [VolumeID] {
        let deadline = ports.time.now + Limit.createTimeMax
        let host = try await ports.host.host(by: deadline)
        await confirmOrigin(host)
        let lookedAt = ports.time.now
        let instance = try await ports.ec2.describeInstance(host.instance, by: deadline)
        // Such a response says nothing about attachments.
        guard let instance else {
            throw OperationError(
                .cloud, doing: "learn what is attached to \(host.instance)",
                found: "EC2 knows no such instance in this account and region",
                advice:
                    "EC2 knows an instance shortly after its start; otherwise check the settings "
                    + "INSTANCE_ID and REGION")
        }
        slots.names.claim(instance.mappings.map(\.deviceName))
        var unknown: [VolumeID] = []
        for (name, id) in DeviceNames.given(on: instance) {
            if volumes[id]?.state.isOurs != true, try await !adopt(id, host, by: deadline) {
                unknown.append(id)
            }
            noteListed(id, as: name)
        }
        let listed = Set(instance.mappings.compactMap(\.volume))
        unknown += await dropEndedAttachments(besides: listed, lookedAt: lookedAt)
        learnLimit(of: instance)
        return unknown
    }

    /// Takes the name of a volume whose attachment an earlier run could not record.
    private func noteListed(_ id: VolumeID, as name: String) {
        guard let volume = volumes[id], volume.state.isOurs, volume.state.deviceName == nil
        else { return }
        claim(name, for: volume)
        volume.state.leasePresumed()
        if !volume.isUsed, volume.givingBack == nil { giveBackWhenUnused(volume) }
    }

    func isSurelyGone(_ volume: Volume) async -> Bool {
        do {
            let name = volume.state.deviceName
            return try await ports.devices.find(volume.id, attachedAs: name) == nil
        } catch { return false }
    }

    /// Corrects the records of attachments that have ended, according to two looks some time apart
    /// and without a device that contradicts them: a later attachment by hand is not this plugin's.
    /// Returns those that only one look does not list.
    private func dropEndedAttachments(
        besides listed: Set<VolumeID>, lookedAt: Instant
    ) async -> [VolumeID] {
        var doubtful: [VolumeID] = []
        for volume in volumes.values where volume.state.isHere {
            // This waits, and a Mount may begin meanwhile: so all else is looked at afterwards.
            let isListed = listed.contains(volume.id)
            let isGone = isListed ? false : await isSurelyGone(volume)
            switch volume.state.listing(isListed: isListed, isGone: isGone, askedAt: lookedAt) {
            case .current: volume.state.listed()
            case .doubtful:
                volume.state.unlisted(at: lookedAt)
                doubtful.append(volume.id)
            case .ended: noteUnlisted(volume)
            }
        }
        return doubtful
    }

    private func noteUnlisted(_ volume: Volume) {
        noteEnded(volume)
        log.notice(
            "a volume that an earlier run attached is no longer attached here",
            metadata: ["volume": "\(volume.id)"])
        forgetIfDone(volume)
    }

    /// Records that this plugin may detach a volume, if its mark says so, and adds it to the table
    /// if it has no record. A volume without a mark, or with another volume's, may be anybody's.
    private func adopt(_ id: VolumeID, _ host: Host, by deadline: Instant) async throws -> Bool {
        let description = try await ports.ec2.describeVolume(id, by: deadline)
        guard let description, AttachmentMark.isBorne(by: description, for: host.instance) else {
            return false
        }
        if let volume = volumes[id] {
            volume.state.originTold(
                isOurs: volume.state.isMarked(description, on: host.instance))
            return volume.state.isOurs
        }
        // Docker does not know it: it is forgotten again once it is released.
        let volume = Volume(
            VolumeRecord(id: id, createdAt: ports.time.unixSeconds, isRemoved: true))
        volume.state.originTold(isOurs: true)
        volumes[id] = volume
        log.notice(
            "this plugin attached a volume without a record: it will be released when unused",
            metadata: ["volume": "\(id)"])
        return true
    }
}
