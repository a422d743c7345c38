import Base
import Logging
import VolumeCore

// What is watched while a volume is mounted, and what is done when its device goes: a forced
// detachment, or EBS's failure.

extension VolumeManager {
    /// Watches a mounted volume's device and lease. Takes up the watches, too, that could not go
    /// on.
    func watch(_ volume: Volume, on device: BlockDevice) {
        startWatches(of: volume, device)
        let stalled = stalledWatches.compactMap { volumes[$0] }
        stalledWatches = []
        for volume in stalled {
            if let device = volume.state.device { startWatches(of: volume, device) }
        }
    }

    /// Starts those that do not run.
    private func startWatches(of volume: Volume, _ device: BlockDevice) {
        let id = volume.id
        volume.lossWatch =
            volume.lossWatch
            ?? Task(executorPreference: executor) { await self.awaitLoss(of: id, device) }
        volume.leaseWatch =
            volume.leaseWatch
            ?? Task(executorPreference: executor) { await self.keepLease(of: id) }
    }

    /// Has the next watch that begins take up those of the volume: a loop that has no room for one
    /// more timer, or no descriptor left, ends no watch for good.
    func noteStalledWatch(of id: VolumeID, _ error: any Error) {
        log.error(
            "a mounted volume is watched later: the wait for that failed",
            metadata: ["volume": "\(id)", "error": "\(error)"])
        stalledWatches.insert(id)
    }

    /// Ends what goes on while a volume is mounted.
    func stopWatching(_ volume: Volume) {
        volume.lossWatch?.cancel()
        volume.lossWatch = nil
        volume.leaseWatch?.cancel()
        volume.leaseWatch = nil
    }

    private func awaitLoss(of id: VolumeID, _ device: BlockDevice) async {
        do {
            try await ports.devices.departure(
                of: device, volume: id, by: Instant(nanoseconds: .max))
        } catch {
            // Cancelled where it is not mounted any more.
            guard !Task.isCancelled else { return }
            volumes[id]?.lossWatch = nil
            return noteStalledWatch(of: id, error)
        }
        noteLoss(of: id, device)
    }

    private func noteLoss(of id: VolumeID, _ device: BlockDevice) {
        guard let volume = volumes[id], volume.state.mountedDevice == device else { return }
        volume.state.deviceLost()
        // Whose attachment is here next, EC2 tells; this plugin's may come again by the name that
        // it had.
        if volume.state.isOurs { dropOwnership(of: volume) } else { releaseDeviceName(of: volume) }
        saveInBackground()
        log.error(
            "the device of a mounted volume has gone: what was not written is lost",
            metadata: [
                "volume": "\(id)", "device": "\(device.path)",
                "mounts": "\(volume.record.mounts.total)",
            ])
    }

    func releaseDeviceName(of volume: Volume) {
        if let name = volume.state.deviceName { slots.names.release(name) }
        volume.state.nameReleased()
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
