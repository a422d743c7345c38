import Base
import Logging
import VolumeCore

// What is watched while a volume is mounted, and what happens when its device is lost, by a forced
// detachment or a failure of EBS.

extension VolumeManager {
    /// Watches a mounted volume's device and lease. Also resumes watches that had stalled.
    func watch(_ volume: Volume, on device: BlockDevice) {
        startWatches(of: volume, device)
        let stalled = stalledWatches.compactMap { volumes[$0] }
        stalledWatches = []
        for volume in stalled {
            if let device = volume.state.device { startWatches(of: volume, device) }
        }
    }

    /// Starts the watches that do not run.
    private func startWatches(of volume: Volume, _ device: BlockDevice) {
        let id = volume.id
        volume.lossWatch =
            volume.lossWatch
            ?? Task(executorPreference: executor) { await self.awaitLoss(of: id, device) }
        volume.leaseWatch =
            volume.leaseWatch
            ?? Task(executorPreference: executor) { await self.keepLease(of: id) }
    }

    private func keepLease(of id: VolumeID) async {
        do {
            try await leases.watch(id) { await self.noteAttachment(of: id, $0, on: $1) }
        } catch {
            // Cancelled if it is no longer mounted.
            guard !Task.isCancelled else { return }
            volumes[id]?.leaseWatch = nil
            noteStalledWatch(of: id, error)
        }
    }

    /// Notes who made the attachment of a mounted volume while the mark says so: it may be gone
    /// when the volume is released.
    private func noteAttachment(of id: VolumeID, _ seen: VolumeDescription, on host: Host) {
        guard let volume = volumes[id], !volume.state.isOurs,
            case .here(let name?)? = try? Situation(of: seen, seenFrom: host, readOnly: true)
        else { return }
        noteOrigin(of: volume, attachedAs: name, seen, on: host)
        claim(name, for: volume)
    }

    /// Makes the next watch that begins resume those of the volume: a lack of timers or descriptors
    /// must not end a watch for good.
    private func noteStalledWatch(of id: VolumeID, _ error: any Error) {
        log.error(
            "a mounted volume is not watched for now: the wait failed",
            metadata: ["volume": "\(id)", "error": "\(error)"])
        stalledWatches.insert(id)
    }

    /// Ends the watches of a mounted volume.
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
            // Cancelled if it is no longer mounted.
            guard !Task.isCancelled else { return }
            volumes[id]?.lossWatch = nil
            return noteStalledWatch(of: id, error)
        }
        noteLoss(of: id, device)
    }

    private func noteLoss(of id: VolumeID, _ device: BlockDevice) {
        guard let volume = volumes[id], volume.state.mountedDevice == device else { return }
        volume.state.deviceLost()
        // EC2 will say who makes the next attachment here; the plugin's own may come back under its
        // name.
        if volume.state.isOurs { dropOwnership(of: volume) } else { releaseDeviceName(of: volume) }
        saveInBackground()
        log.error(
            "the device of a mounted volume is gone: data that was not written is lost",
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
            "the new file system was detached before its owner and mode were set",
            metadata: [
                "volume": "\(volume.id)", "advice": "set them with chown and chmod in a container",
            ])
    }
}
