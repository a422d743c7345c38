import Base
import Logging
import VolumeCore

extension VolumeManager {
    /// Takes over what an earlier run of the daemon left: its records, and the mounts that exist.
    /// Run once, before the first call is answered.
    ///
    /// A count without a mount is dropped: the instance was restarted, or the plugin disabled by
    /// force or replaced. A container that lives on all the same holds the device, which is not
    /// given back before it ends. A mount without a count lingers and is given back.
    package func start() async throws {
        let saved = try await ports.state.load(inBoot: origin.owner.boot)
        origin.take(saved.owner)
        volumes.take(saved)
        try await adoptMounts()
        try await dropCountsWithoutMount()
        // What another boot, or another instance, has left waits until it is known whose it is.
        for volume in volumes.values where origin.isConfirmed || volume.state.device != nil {
            await takeUp(volume)
        }
    }

    private func adoptMounts() async throws {
        let prefix = settings.mountRoot + "/"
        for mount in try await ports.fileSystems.mounted() where mount.mountpoint.hasPrefix(prefix)
        {
            guard let id = VolumeID(mount.mountpoint.dropFirst(prefix.count)) else { continue }
            // One that is in no record is given back, unless Docker creates it before.
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

    /// Finds out how far the earlier run came with the volume, and gives back what nobody uses.
    func takeUp(_ volume: Volume) async {
        // Nobody promised that such a mount bears a lease: the next Mount begins anew.
        if volume.record.mounts.isEmpty { volume.state.mountOutlived() }
        let isPresent = if volume.state.device == nil { await isPresent(volume) } else { true }
        if let name = volume.state.deviceName {
            if isPresent { slots.names.claim(name) } else { slots.names.presume(name) }
        }
        volume.state.takenUp(isPresent: isPresent)
        tellWhatIsKnown(of: volume)
        if !isPresent { volume.record.isOwnershipDue = false }
        if volume.state.device == nil {
            // Its folder may be there still.
            try? await ports.fileSystems.unmount(mountpoint(of: volume.id), of: volume.id)
        }
        // The run before may have written a lease and not lived to note it.
        if volume.state.isOurs || volume.state.device != nil {
            volume.state.leasePresumed()
            saveInBackground()
        }
        if !volume.isUsed { giveBackWhenUnused(volume) }
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
        // Docker sends no Unmount for a Mount that it had no answer to; such a count stays
        // until the mount has gone, with the machine's restart or the plugin's by force.
        let ids = mounts.unanswered.sorted().map { quoted($0) }.joined(separator: ", ")
        log.warning(
            "mounts were counted whose answers may not have gone out",
            metadata: ["volume": "\(volume.id)", "ids": "\(ids)"])
    }

    /// On the disk too: else they would come back beside the counts of later mounts.
    private func dropCountsWithoutMount() async throws {
        let stale = volumes.values.filter { $0.state.device == nil && !$0.record.mounts.isEmpty }
        guard !stale.isEmpty else { return }
        for volume in stale {
            log.notice(
                "mounts that an earlier run counted are gone",
                metadata: [
                    "volume": "\(volume.id)", "mounts": "\(volume.record.mounts.total)",
                ])
            volume.record.mounts = MountCounts()
        }
        await saveCounts()
    }

    /// Whether the device of a volume that is not mounted is here. What cannot be told now EC2
    /// tells later.
    func isPresent(_ volume: Volume) async -> Bool {
        let name = volume.state.deviceName
        return (try? await ports.devices.find(volume.id, attachedAs: name)) != nil
    }
}

extension VolumeManager {
    /// Learns what is attached here: the device names in use, and volumes whose attachment an
    /// earlier run did not live to note, or whose records are lost, which are given back. EC2
    /// refuses a name that is in use, and another is tried, so a Mount need not wait for this.
    package func learnAttachments() async throws {
        let unknown = try await lookAtAttachments()
        guard !unknown.isEmpty else { return }
        // What EC2 told may be older than what the run before did last.
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
                    "EC2 cannot be asked again what is attached here",
                    metadata: ["error": "\(error)"])
            }
        }
    }

    /// Returns the volumes that are attached here by names such as this plugin gives, and of which
    /// nothing says that it attached them.
    private func lookAtAttachments() async throws -> [VolumeID] {
        let deadline = ports.time.now + Limit.createTimeMax
        let host = try await ports.host.host(by: deadline)
        await confirmOrigin(host)
        let lookedAt = ports.time.now
        let instance = try await ports.ec2.describeInstance(host.instance, by: deadline)
        // Such an answer says nothing of what is attached.
        guard let instance else {
            throw OperationError(
                .cloud, doing: "learn what is attached to \(host.instance)",
                found: "EC2 knows no such instance in this account and region",
                advice: "EC2 knows an instance some time after its start; else check the settings "
                    + "INSTANCE_ID and REGION")
        }
        let mappings = instance.mappings
        slots.names.claim(mappings.map(\.deviceName))
        var unknown: [VolumeID] = []
        for mapping in mappings where DeviceNames.isGiven(mapping.deviceName) {
            guard let id = mapping.volume else { continue }
            if volumes[id]?.state.isOurs != true, try await !adopt(id, host, by: deadline) {
                unknown.append(id)
            }
            // What is being done to a volume now is newer than what EC2 told.
            guard let volume = volumes[id], volume.state.isOurs, volume.operation == nil,
                volume.state.deviceName == nil
            else { continue }
            claim(mapping.deviceName, for: volume)
            volume.state.leasePresumed()
            if !volume.isUsed, volume.givingBack == nil { giveBackWhenUnused(volume) }
        }
        let listed = Set(mappings.compactMap(\.volume))
        unknown += await dropEndedAttachments(besides: listed, lookedAt: lookedAt)
        learnLimit(of: instance)
        return unknown
    }

    func isSurelyGone(_ volume: Volume) async -> Bool {
        do {
            let name = volume.state.deviceName
            return try await ports.devices.find(volume.id, attachedAs: name) == nil
        } catch { return false }
    }

    /// Corrects records of attachments that have ended, as two looks that are apart say and no
    /// device contradicts: what somebody attaches by hand later is not this plugin's. Returns those
    /// that one look alone does not list.
    private func dropEndedAttachments(
        besides listed: Set<VolumeID>, lookedAt: Instant
    ) async -> [VolumeID] {
        var doubtful: [VolumeID] = []
        for volume in volumes.values where volume.state.isHere {
            // This waits, and a Mount may begin meanwhile: so all else is looked at afterwards.
            let isGone = listed.contains(volume.id) ? false : await isSurelyGone(volume)
            guard !listed.contains(volume.id), volume.state.attachedAt == nil,
                volume.state.mount == .unmounted
            else {
                volume.state.listed()
                continue
            }
            guard volume.state.isSurelyUnlisted(at: lookedAt), isGone else {
                volume.state.unlisted(at: lookedAt)
                doubtful.append(volume.id)
                continue
            }
            noteDetached(volume)
            log.notice(
                "a volume that an earlier run had attached is attached here no more",
                metadata: ["volume": "\(volume.id)"])
            forgetIfDone(volume)
        }
        return doubtful
    }

    /// Notes that a volume is this plugin's to detach, if its mark says so, and takes it into the
    /// table where it is in no record. What bears no mark, or another volume's, may be anybody's.
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
        // Docker does not know it: it is forgotten again once it is given back.
        let volume = Volume(
            VolumeRecord(id: id, createdAt: ports.time.unixSeconds, isRemoved: true))
        volume.state.originTold(isOurs: true)
        volumes[id] = volume
        log.notice(
            "this plugin attached a volume that is in no record: it is given back when unused",
            metadata: ["volume": "\(id)"])
        return true
    }
}
