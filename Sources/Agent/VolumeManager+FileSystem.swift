import Base
import Logging
import VolumeCore

// What is on a volume's device, making a file system where there is provably nothing, and mounting.

extension VolumeManager {
    /// Mounts the file system of the volume's `fileSystemDevice`, which is made where there is
    /// provably nothing, repaired where it asks for it, and grown where it is smaller than its
    /// device. Returns its type.
    ///
    /// Read-only, none of these three is done, and owner and permissions stay as they are; the
    /// kernel alone writes, by replaying the journal, and not even that on a volume with
    /// Multi-Attach.
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

    /// The device that bears the file system: the volume's own, or the partition that is asked for.
    func fileSystemDevice(
        of volume: Volume, on disk: BlockDevice, by deadline: Instant
    ) async throws -> BlockDevice {
        guard let number = volume.record.options.partition else { return disk }
        return try await ports.devices.partition(
            number, of: disk, volume: volume.id,
            by: min(deadline, ports.time.now + Limit.partitionTimeMax))
    }

    /// What is to become of the device, by what is on it now.
    private func decide(
        on device: BlockDevice, of volume: Volume, as description: VolumeDescription,
        _ options: VolumeOptions
    ) async throws -> ContentDecision {
        let content = try await ports.fileSystems.probe(device, of: volume.id)
        return try ContentDecision(
            content, on: device, of: description, options: options,
            wasFormatting: volume.record.isFormatting)
    }

    /// The type to mount the device as, after making a file system where there is provably nothing.
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
        // Should this process die, its mkfs dies with it, and leaves what nothing mounts.
        volume.record.isFormatting = true
        volume.record.isOwnershipDue =
            options.uid != nil || options.gid != nil || options.mode != nil
        try await save()
        log.notice(
            "the volume is blank: making a file system",
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
                found: "it is still empty after mkfs said that it had made a file system",
                advice: "see the kernel's log for errors of the device")
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

    /// Sets owner and permissions of a file system that was made here and has not been away since,
    /// also where an earlier run of the daemon did not come to that. What users change later stays:
    /// that it is done is on the disk before the first of them has it.
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

    /// One that cannot be grown serves as it is.
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
