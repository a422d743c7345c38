import Base
import Logging
import VolumeCore

extension VolumeManager {
    /// Takes over what an earlier run of the daemon left: its records, and the mounts that exist.
    /// Run once, before the first call is answered.
    ///
    /// A count without a mount is dropped: the instance was restarted, or the plugin disabled by
    /// force or replaced. A container that lives on all the same holds the device, which is not given
    /// back before it ends. A mount without a count lingers and is given back.
    package func start() async throws {
        for record in try await ports.state.load() { volumes[record.id] = Volume(record) }
        try await adoptMounts()
        try await dropCountsWithoutMount()
        // In one order, so that a simulated start is the same each time.
        for volume in volumes.values.sorted(by: { $0.id.description < $1.id.description }) {
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
            volumes[id] = volume
            let device = BlockDevice(path: mount.source, number: mount.device)
            volume.phase = .mounted(device)
            volume.mayBeOutdated = mount.mayBeOutdated
            volume.isHere = true
            watchForLoss(of: volume, device)
        }
    }

    /// Finds out how far the earlier run came with the volume, and gives back what nobody uses.
    private func takeUp(_ volume: Volume) async {
        // Nobody promised that such a mount bears a lease: the next Mount begins anew.
        volume.needsRemount = volume.device != nil && volume.record.mounts.isEmpty
        if let name = volume.record.deviceName {
            deviceNames.claim(name)
            volume.isHere = true
        }
        tellWhatIsKnown(of: volume)
        if volume.device == nil {
            if await isPresent(volume) { volume.isHere = true }
            // Its folder may be there still.
            try? await ports.fileSystems.unmount(mountpoint(of: volume.id), of: volume.id)
        }
        // The run before may have written a lease and not lived to note it.
        if volume.isHere { volume.record.hasLease = true }
        if !volume.isUsed { giveBackWhenUnused(volume) }
    }

    private func tellWhatIsKnown(of volume: Volume) {
        let mounts = volume.record.mounts
        log.info(
            "known from an earlier run",
            metadata: [
                "volume": "\(volume.id)", "phase": "\(volume.phaseName)",
                "mounts": "\(mounts.total)",
            ])
        guard !mounts.unanswered.isEmpty else { return }
        // Docker sends no Unmount for a Mount that it had no answer to; such a count stays
        // until the mount has gone, with the machine's restart or the plugin's by force.
        log.warning(
            "mounts were counted whose answers may not have gone out",
            metadata: [
                "volume": "\(volume.id)", "ids": "\(mounts.unanswered.sorted().map { quoted($0) })",
            ])
    }

    /// On the disk too: else they would come back beside the counts of later mounts.
    private func dropCountsWithoutMount() async throws {
        let stale = volumes.values.filter { $0.device == nil && !$0.record.mounts.isEmpty }
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
    private func isPresent(_ volume: Volume) async -> Bool {
        let name = volume.record.deviceName
        return (try? await ports.devices.find(volume.id, attachedAs: name)) != nil
    }
}

extension VolumeManager {
    /// Learns what is attached here: the device names in use, and volumes whose attachment an earlier
    /// run did not live to note, or whose records are lost, which are given back. EC2 refuses a name
    /// that is in use, and another is tried, so a Mount need not wait for this.
    package func learnAttachments() async throws {
        let deadline = ports.time.now + Limit.createTimeMax
        let host = try await ports.host.host(by: deadline)
        let instance = try await ports.ec2.describeInstance(host.instance, by: deadline)
        let mappings = instance?.mappings ?? []
        deviceNames.claim(mappings.map(\.deviceName))
        for mapping in mappings {
            guard let id = mapping.volume else { continue }
            if volumes[id] == nil, DeviceNames.all.contains(mapping.deviceName) {
                try await adoptByLease(id, host, by: deadline)
            }
            guard let volume = volumes[id], volume.record.deviceName == nil else { continue }
            claim(mapping.deviceName, for: volume)
            volume.record.hasLease = true
            if !volume.isUsed, volume.givingBack == nil { giveBackWhenUnused(volume) }
        }
        learnLimit(of: instance)
    }

    /// Takes into the table what bears this instance's lease and is in no record: while the lease is
    /// there no other instance may have it. What bears none may be anybody's.
    private func adoptByLease(_ id: VolumeID, _ host: Host, by deadline: Instant) async throws {
        let description = try await ports.ec2.describeVolume(id, by: deadline)
        guard let description, Lease.isHeld(by: host.instance, on: description),
            volumes[id] == nil
        else { return }
        // Docker does not know it: it is forgotten again once it is given back.
        volumes[id] = Volume(
            VolumeRecord(id: id, createdAt: ports.time.unixSeconds, isRemoved: true))
        log.notice(
            "a volume bears this instance's lease and is in no record: it is given back when unused",
            metadata: ["volume": "\(id)"])
    }
}
