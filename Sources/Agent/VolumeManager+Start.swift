import Base
import Logging
import VolumeCore

extension VolumeManager {
    /// Takes over what an earlier run of the daemon left: its records, and the mounts that exist.
    /// Run once, before the first call is answered.
    ///
    /// A count without a mount is dropped: the instance was restarted. A mount without a count
    /// lingers and is given back.
    package func start() async throws {
        for record in try await ports.state.load() { volumes[record.id] = Volume(record) }
        let prefix = settings.mountRoot + "/"
        for mount in try await ports.fileSystems.mounted() where mount.mountpoint.hasPrefix(prefix)
        {
            guard let id = VolumeID(mount.mountpoint.dropFirst(prefix.count)) else { continue }
            let volume =
                volumes[id]
                ?? Volume(VolumeRecord(id: id, createdAt: ports.time.unixSeconds))
            volumes[id] = volume
            volume.phase = .mounted(BlockDevice(path: mount.source, number: mount.device))
            volume.isHere = true
        }
        // In one order, so that a simulated start is the same each time.
        for volume in volumes.values.sorted(by: { $0.id.description < $1.id.description }) {
            if volume.device == nil { volume.record.mounts = MountCounts() }
            if let name = volume.record.deviceName {
                deviceNames.claim(name)
                volume.isHere = true
            }
            log.info(
                "known from an earlier run",
                metadata: [
                    "volume": "\(volume.id)", "phase": "\(volume.phaseName)",
                    "mounts": "\(volume.record.mounts.total)",
                ])
            if !volume.isUsed && volume.isHere { giveBackWhenUnused(volume) }
        }
    }
}
