import Base
import Logging
import VolumeCore

// What is on a volume's device, and making a file system where there is provably nothing.

extension VolumeManager {
    /// Mounts the volume's file system, made before where there is provably nothing; its type.
    func mountFileSystem(
        of volume: Volume, on device: BlockDevice, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String {
        let type = try await fileSystemType(of: volume, on: device, by: deadline, &timeline)
        try await ports.fileSystems.mount(
            device, of: volume.id, type: type, at: mountpoint(of: volume.id),
            readOnly: volume.record.options.readOnly, options: [])
        timeline.mark(.mount, at: ports.time.now)
        return type
    }

    /// The type to mount the device as, after making a file system where there is provably nothing.
    private func fileSystemType(
        of volume: Volume, on device: BlockDevice, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String {
        let description = try await currentDescription(of: volume, by: deadline)
        let options = volume.record.options
        func decide() async throws -> ContentDecision {
            let content = try await ports.fileSystems.probe(device, of: volume.id)
            return try ContentDecision(
                content, on: device, of: description, readOnly: options.readOnly)
        }
        let first = try await decide()
        timeline.mark(.probe, at: ports.time.now)
        if case .mount(let type) = first { return type }

        log.notice(
            "the volume is blank: making an XFS",
            metadata: ["volume": "\(volume.id)", "device": "\(device.path)"])
        let release = await ports.fileSystems.kernelRelease()
        let formatDeadline = min(deadline, ports.time.now + Limit.formatTimeMax)
        try await ports.fileSystems.format(
            device, of: volume.id,
            arguments: xfsArguments(kernelRelease: release, legacy: options.legacyFormat),
            by: formatDeadline)
        timeline.mark(.format, at: ports.time.now)
        guard case .mount(let type) = try await decide() else {
            throw OperationError(
                .content, doing: "mount \(volume.id) from \(device.path)",
                found: "it is still empty after mkfs.xfs said that it had made a file system",
                advice: "see the kernel's log for errors of the device")
        }
        return type
    }

    private func currentDescription(
        of volume: Volume, by deadline: Instant
    ) async throws -> VolumeDescription {
        if let description = volume.description { return description }
        let description = try await describe(volume.id, by: deadline)
        volume.description = description
        return description
    }
}
