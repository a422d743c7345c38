import Base
import Logging
import VolumeCore

// Mount and Unmount, from the call to the answer.

extension VolumeManager {
    /// Mounts the volume, or joins the mount that is under way, and counts the ID.
    ///
    /// Returns the mountpoint. When the calling task was cancelled, because the client has gone,
    /// the mount goes on and the ID is not counted: Docker sends no Unmount for it.
    package func mount(_ name: String, id mountID: String) async throws -> String {
        let volume = try known(name)
        guard mountID.utf8.count <= Limit.mountIDMax else {
            throw OperationError(
                .invalidInput, doing: "mount \(volume.id)",
                found: "the mount ID is longer than \(Limit.mountIDMax) bytes")
        }
        volume.mountsUnderWay += 1
        defer { volume.mountsUnderWay -= 1 }
        stopGivingBack(volume)
        do {
            try await becomeMounted(volume)
            try Task.checkCancellation()
            try volume.record.mounts.add(mountID)
        } catch {
            if volume.mountsUnderWay == 1 { giveBackWhenUnused(volume) }
            throw error
        }
        saveInBackground()
        return mountpoint(of: volume.id)
    }

    /// Takes the ID's count back; the last one unmounts and starts the linger.
    package func unmount(_ name: String, id mountID: String) async throws {
        let volume = try known(name)
        while case .mounting(let task) = volume.phase { _ = await task.result }
        guard volume.record.mounts.remove(mountID) else {
            log.notice(
                "Unmount of an ID that has nothing mounted",
                metadata: ["volume": "\(volume.id)", "id": "\(quoted(mountID))"])
            return
        }
        saveInBackground()
        guard !volume.isUsed else { return }
        defer { giveBackWhenUnused(volume) }
        try await becomeUnmounted(volume)
    }

    /// Returns when the volume is mounted, by whichever call's doing.
    private func becomeMounted(_ volume: Volume) async throws {
        while true {
            switch volume.phase {
            case .mounted: return
            case .mounting(let task): try await task.value
            case .unmounting(let task), .detaching(let task): _ = await task.result
            case .unmounted:
                let id = volume.id
                volume.phase = .mounting(
                    Task(executorPreference: executor) { try await self.bringUp(id) })
            }
        }
    }

    func becomeUnmounted(_ volume: Volume) async throws {
        if case .unmounting(let task) = volume.phase { return try await task.value }
        guard case .mounted(let device) = volume.phase else { return }
        let id = volume.id
        let task = Task(executorPreference: executor) { try await self.takeDown(id, device) }
        volume.phase = .unmounting(task)
        try await task.value
    }

    /// Device here, content known, file system mounted: the one path of a Mount.
    private func bringUp(_ id: VolumeID) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table mounting") }
        let deadline = ports.time.now + Limit.mountTimeMax
        var timeline = MountTimeline(since: ports.time.now)
        do {
            let device = try await bringDevice(of: volume, by: deadline, &timeline)
            let type = try await mountFileSystem(of: volume, on: device, by: deadline, &timeline)
            volume.phase = .mounted(device)
            log.info(
                "mounted",
                metadata: timeline.metadata.merging([
                    "volume": "\(id)", "device": "\(device.path)", "fs": "\(type)",
                ]) { $1 })
        } catch {
            volume.phase = .unmounted
            log.error(
                "mount failed",
                metadata: timeline.metadata.merging(["volume": "\(id)", "error": "\(error)"]) { $1 }
            )
            throw error
        }
    }

    private func takeDown(_ id: VolumeID, _ device: BlockDevice) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table mounted") }
        let start = ports.time.now
        do {
            try await ports.fileSystems.unmount(mountpoint(of: id), of: id)
            volume.phase = .unmounted
            log.info(
                "unmounted",
                metadata: [
                    "volume": "\(id)", "unmount_ms": "\(tenths(ports.time.now - start))",
                ])
        } catch {
            volume.phase = .mounted(device)
            log.error("unmount failed", metadata: ["volume": "\(id)", "error": "\(error)"])
            throw error
        }
    }
}
