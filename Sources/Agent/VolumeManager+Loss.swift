import Base
import Logging
import VolumeCore

// What is done when the device of a mounted volume goes: a forced detachment, or EBS's failure.

extension VolumeManager {
    func watchForLoss(of volume: Volume, _ device: BlockDevice) {
        volume.isLost = false
        let id = volume.id
        volume.lossWatch = Task(executorPreference: executor) {
            await self.awaitLoss(of: id, device)
        }
    }

    /// Ends what goes on while a volume is mounted.
    func stopWatching(_ volume: Volume) {
        volume.lossWatch?.cancel()
        volume.lossWatch = nil
        volume.isLost = false
        volume.leaseWatch?.cancel()
        volume.leaseWatch = nil
    }

    private func awaitLoss(of id: VolumeID, _ device: BlockDevice) async {
        do {
            try await ports.devices.departure(
                of: device, volume: id, by: Instant(nanoseconds: .max))
        } catch { return }
        noteLoss(of: id, device)
    }

    private func noteLoss(of id: VolumeID, _ device: BlockDevice) {
        guard let volume = volumes[id], volume.mountedDevice == device else { return }
        volume.isLost = true
        volume.description = nil
        volume.isLeaseSure = false
        // Whose attachment is here next, EC2 tells; the device may come again by the name that it had.
        if volume.record.isOurs, let name = volume.record.deviceName {
            volume.askedNames.insert(name)
        }
        volume.attachedAt = nil
        if volume.record.isOurs { dropOwnership(of: volume) } else { releaseDeviceName(of: volume) }
        saveInBackground()
        log.error(
            "the device of a mounted volume has gone: what was not written is lost",
            metadata: [
                "volume": "\(id)", "device": "\(device.path)",
                "mounts": "\(volume.record.mounts.total)",
            ])
    }

    func releaseDeviceName(of volume: Volume) {
        if let name = volume.record.deviceName { deviceNames.release(name) }
        volume.record.deviceName = nil
        dropOwnership(of: volume)
    }

    /// Once a volume is detached, another host may have used it before it comes back.
    func dropOwnership(of volume: Volume) {
        guard volume.record.isOwnershipDue else { return }
        volume.record.isOwnershipDue = false
        log.warning(
            "the new file system was detached before its owner and mode were set: they stay as they are",
            metadata: [
                "volume": "\(volume.id)", "advice": "set them by chown and chmod in a container",
            ])
    }
}
