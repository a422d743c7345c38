import Base
import Logging
import VolumeCore

// Probing a volume's device, formatting it if it is provably blank, and mounting it.

extension VolumeManager {
    /// Mounts the file system of the volume's `fileSystemDevice`, after creating it if the device
    /// is provably blank and repairing it if necessary; then grows it if it is smaller than its
    /// device. Returns its type.
    ///
    /// A read-only mount does none of these three, and does not change owner and permissions. Only
    /// the kernel writes, by replaying the journal; on a Multi-Attach volume not even that.
    func mountFileSystem(
        of volume: Volume, on device: BlockDevice, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String {
        let options = volume.record.options
        let type = try await fileSystem(of: volume, on: device, by: deadline, &timeline)
        let mountOptions = try options.mountOptions(for: type)
        let access = options.access(to: try await currentDescription(of: volume, by: deadline))
        if access == .writable {
            try await repair(volume, on: device, type: type, by: deadline)
        }
        let mountpoint = mountpoint(of: volume.id)
        let outcome = try await ports.fileSystems.mount(
            device, of: volume.id, type: type, at: mountpoint, access: access,
            options: mountOptions)
        note(outcome, of: volume, type: type)
        if volume.record.isFormatting || volume.record.isOwnershipDue, access == .writable {
            try await finishFormat(of: volume)
        }
        timeline.mark(.mount, at: ports.time.now)
        if outcome.canGrow, access == .writable { await grow(volume, on: device, type: type) }
        return type
    }

    private func note(_ outcome: MountOutcome, of volume: Volume, type: String) {
        volume.state.journalTold(mayBeOutdated: outcome.mayBeOutdated)
        guard outcome.mayBeOutdated else { return }
        log.warning(
            "the journal was not replayed: the contents may be older than what was written",
            metadata: ["volume": "\(volume.id)", "fs": "\(type)"])
    }

    /// The device with the file system: the volume's own, or the requested partition.
    func fileSystemDevice(
        of volume: Volume, on disk: BlockDevice, by deadline: Instant
    ) async throws -> BlockDevice {
        guard let number = volume.record.options.partition else { return disk }
        return try await ports.devices.partition(
            number, of: disk, volume: volume.id,
            by: min(deadline, ports.time.now + Limit.partitionTimeMax))
    }

    /// What to do with the device, based on its present contents.
    private func decide(
        on device: BlockDevice, of volume: Volume, as description: VolumeDescription,
        _ options: VolumeOptions
    ) async throws -> ContentDecision {
        let content = try await ports.fileSystems.probe(device, of: volume.id)
        return try ContentDecision(
            content, on: device, of: description, options: options,
            wasFormatting: volume.record.isFormatting)
    }

    /// The type to mount the device as, after creating a file system if it is provably blank.
    private func fileSystem(
        of volume: Volume, on device: BlockDevice, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String {
        let description = try await currentDescription(of: volume, by: deadline)
        let options = volume.record.options
        let first = try await decide(on: device, of: volume, as: description, options)
        timeline.mark(.probe, at: ports.time.now)
        if case .mount(let type) = first { return type }

        var plan = FormatPlan(
            options.fileSystem ?? settings.fileSystem,
            kernelRelease: await ports.fileSystems.kernelRelease(), legacy: options.legacyFormat)
        plan.overwritesUnfinished = volume.record.isFormatting
        // If this process dies, its mkfs dies too, and leaves a file system that nothing mounts.
        volume.record.isFormatting = true
        volume.record.isOwnershipDue =
            options.uid != nil || options.gid != nil || options.mode != nil
        try await save()
        log.notice(
            "the volume is blank: creating a file system",
            metadata: [
                "volume": "\(volume.id)", "device": "\(device.path)", "fs": "\(plan.type)",
            ])
        try await ports.fileSystems.format(
            device, of: volume.id, plan: plan,
            by: min(deadline, ports.time.now + Limit.formatTimeMax))
        timeline.mark(.format, at: ports.time.now)
        guard
            case .mount(let type) = try await decide(
                on: device, of: volume, as: description, options)
        else {
            throw OperationError(
                .content, doing: "mount \(volume.id) from \(device.path)",
                found: "it is still empty although mkfs reported success",
                advice: "look for errors of the device in 'dmesg' on the instance")
        }
        return type
    }

    private func currentDescription(
        of volume: Volume, by deadline: Instant
    ) async throws -> VolumeDescription {
        if let description = volume.state.description { return description }
        let description = try await describe(volume.id, by: deadline)
        volume.state.described(description)
        return description
    }

    private func repair(
        _ volume: Volume, on device: BlockDevice, type: String, by deadline: Instant
    ) async throws {
        let done = try await ports.fileSystems.repair(
            device, of: volume.id, type: type, by: deadline)
        guard let done else { return }
        log.notice(
            "the file system was checked before mounting",
            metadata: ["volume": "\(volume.id)", "fs": "\(type)", "result": "\(done)"])
    }

    /// Sets owner and permissions of a file system that was created here and has not been detached
    /// since, even if an earlier run of the daemon created it. Later changes by users stay, because
    /// the record that this is done is on disk before the first of them gets the volume.
    private func finishFormat(of volume: Volume) async throws {
        let options = volume.record.options
        volume.record.isFormatting = false
        guard volume.record.isOwnershipDue else {
            saveInBackground()
            return
        }
        let mountpoint = mountpoint(of: volume.id)
        do {
            try await ports.fileSystems.setOwnership(
                of: mountpoint, volume: volume.id, uid: options.uid, gid: options.gid,
                mode: options.mode)
            volume.record.isOwnershipDue = false
            try await save()
        } catch {
            try? await ports.fileSystems.unmount(mountpoint, of: volume.id)
            throw error
        }
    }

    /// A file system that cannot be grown is used as it is.
    private func grow(_ volume: Volume, on device: BlockDevice, type: String) async {
        do {
            let growth = try await ports.fileSystems.grow(
                device, of: volume.id, type: type, at: mountpoint(of: volume.id))
            guard let growth else { return }
            log.notice(
                "the file system was grown to its device's size",
                metadata: [
                    "volume": "\(volume.id)", "fs": "\(type)", "from_bytes": "\(growth.from)",
                    "to_bytes": "\(growth.to)",
                ])
        } catch {
            log.warning(
                "the file system is smaller than its device and could not be grown",
                metadata: ["volume": "\(volume.id)", "fs": "\(type)", "error": "\(error)"])
        }
    }
}
