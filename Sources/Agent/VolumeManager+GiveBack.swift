import Base
import Logging
import VolumeCore

// How an unused volume is given back, so that the next instance finds it free.

extension VolumeManager {
    /// Starts the linger of a volume that nobody uses. A Mount meanwhile ends it.
    func giveBackWhenUnused(_ volume: Volume) {
        volume.givingBack?.cancel()
        volume.givingBack = nil
        forgetIfDone(volume)
        guard let linger = settings.detachAfter, volumes[volume.id] != nil else { return }
        let id = volume.id
        volume.givingBack = Task(executorPreference: executor) {
            await self.giveBack(id, after: linger)
        }
    }

    func stopGivingBack(_ volume: Volume) {
        volume.givingBack?.cancel()
        volume.givingBack = nil
    }

    private func giveBack(_ id: VolumeID, after linger: Duration) async {
        var pause = linger
        while true {
            do { try await ports.time.sleep(until: ports.time.now + pause) } catch { return }
            guard let volume = volumes[id], !volume.isUsed else { return }
            do {
                try await becomeUnmounted(volume)
                if !volume.isUsed { try await becomeDetached(volume) }
                return
            } catch {
                pause = Limit.detachRetryInterval
                log.warning(
                    "the unused volume is not detached yet",
                    metadata: [
                        "volume": "\(id)", "error": "\(error)",
                        "retry_s": "\(pause.components.seconds)",
                    ])
            }
        }
    }

    private func becomeDetached(_ volume: Volume) async throws {
        guard case .unmounted = volume.phase, volume.isHere else { return }
        let id = volume.id
        let task = Task(executorPreference: executor) { try await self.detach(id) }
        volume.phase = .detaching(task)
        try await task.value
    }

    /// Detaches a volume that is proved unheld, and waits until its device is gone.
    private func detach(_ id: VolumeID) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table attached") }
        defer {
            volume.phase = .unmounted
            forgetIfDone(volume)
        }
        let start = ports.time.now
        let deadline = start + Limit.unmountTimeMax
        let host = try await ports.host.host(by: deadline)
        let device = try await ports.devices.find(id, attachedAs: volume.record.deviceName)
        if let device {
            guard try await !ports.fileSystems.isHeld(device) else {
                throw OperationError(
                    .device, doing: "detach \(id) from \(host.instance)",
                    found: "\(device.path) is mounted in some mount namespace, or open",
                    advice: "a container that outlived the plugin may hold it: stop that container")
            }
        } else if volume.record.deviceName == nil {
            volume.isHere = false
            return
        }
        try await detachHere(id, host, by: deadline)
        if let device {
            try await ports.devices.departure(of: device, volume: id, by: deadline)
        }
        if let name = volume.record.deviceName { deviceNames.release(name) }
        volume.record.deviceName = nil
        volume.isHere = false
        volume.description?.attachments = []
        volume.description?.state = .available
        saveInBackground()
        log.info(
            "detached",
            metadata: ["volume": "\(id)", "detach_ms": "\(tenths(ports.time.now - start))"])
    }

    private func detachHere(_ id: VolumeID, _ host: Host, by deadline: Instant) async throws {
        do {
            _ = try await ports.ec2.detach(id, from: host.instance, force: false, by: deadline)
        } catch let failure as EC2Failure {
            if let code = failure.code, isAlreadyDetached(code: code) { return }
            throw OperationError(
                .cloud, doing: "detach \(id) from \(host.instance)", found: failure.description)
        }
    }
}
