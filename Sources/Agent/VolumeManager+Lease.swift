import Base
import Logging
import VolumeCore

// The lease: how other hosts know that a volume is mounted here.

extension VolumeManager {
    /// Mounts the volume's file system while its lease is seen to; the type, or nil when another
    /// host is taking the volume, which is then unmounted again.
    ///
    /// A volume that was just attached came with its lease. One that was here already, lingering,
    /// gets one, and EC2 is asked whether it is still ours; NVMe devices are mounted meanwhile, for
    /// their identity is proved. On Xen what bears the name may be another volume: EC2 is asked first.
    func mountLeased(
        _ volume: Volume, on device: BlockDevice, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String? {
        if let leaseDrop = volume.leaseDrop { _ = try? await leaseDrop.value }
        if volume.isLeaseSure {
            return try await mountFileSystem(of: volume, on: device, by: deadline, &timeline)
        }
        let id = volume.id
        let asking = Task(executorPreference: executor) {
            try await self.takeLeaseOfPresent(id, by: deadline)
        }
        if !device.bearsVolumeID, try await !asking.value { return nil }
        let type: String
        do {
            type = try await mountFileSystem(of: volume, on: device, by: deadline, &timeline)
        } catch {
            _ = try? await asking.value
            throw error
        }
        do {
            if try await asking.value { return type }
        } catch {
            try await unmountAgain(volume, device)
            throw error
        }
        log.notice("another host is taking the volume", metadata: ["volume": "\(id)"])
        try await unmountAgain(volume, device)
        return nil
    }

    private func unmountAgain(_ volume: Volume, _ device: BlockDevice) async throws {
        do {
            try await ports.fileSystems.unmount(mountpoint(of: volume.id), of: volume.id)
        } catch {
            // It is given back later, as any mount that nobody uses; a Mount begins anew.
            volume.phase = .mounted(device)
            volume.needsRemount = true
            throw error
        }
    }

    /// Writes the lease of a volume whose device is here, if it is attached here, and looks again:
    /// whoever looked before the lease was there has asked EC2 to detach it by now. Without the
    /// first look the lease of a host that has taken the volume already would be written over.
    private func takeLeaseOfPresent(_ id: VolumeID, by deadline: Instant) async throws -> Bool {
        let host = try await ports.host.host(by: deadline)
        guard try await isAttached(id, to: host, by: deadline) else { return false }
        try await takeLease(of: id, host, by: deadline)
        // Written is not enough here: the next Mount is to look as well, if this look tells nothing.
        let isSure = volumes[id]?.isLeaseSure ?? false
        volumes[id]?.isLeaseSure = false
        guard try await isAttached(id, to: host, by: deadline) else { return false }
        volumes[id]?.isLeaseSure = isSure
        return true
    }

    private func isAttached(
        _ id: VolumeID, to host: Host, by deadline: Instant
    ) async throws -> Bool {
        guard let volume = volumes[id] else { return false }
        let description = try await describe(id, by: deadline)
        volume.description = description
        let situation = try Situation(
            of: description, seenFrom: host, readOnly: volume.record.options.readOnly)
        guard case .here(let name?) = situation else { return false }
        // On Xen the name is how the device was found.
        if let known = volume.record.deviceName, known != name { return false }
        claim(name, for: volume)
        return true
    }

    /// Writes the lease. Without the permission for its tag the volume has none, which is said once for
    /// each; the permission may come later, so it is tried each time.
    func takeLease(of id: VolumeID, _ host: Host, by deadline: Instant) async throws {
        if let leaseDrop = volumes[id]?.leaseDrop { _ = try? await leaseDrop.value }
        // Should the answer be lost, the lease may be there all the same.
        volumes[id]?.record.hasLease = true
        saveInBackground()
        do {
            try await ports.ec2.setTags(
                [Lease.tag: host.instance.description], on: id, sentBy: deadline, by: deadline)
            volumes[id]?.isLeaseSure = true
            refusedLeases.remove(id)
        } catch let failure as EC2Failure where failure.code == "UnauthorizedOperation" {
            volumes[id]?.record.hasLease = false
            guard refusedLeases.insert(id).inserted else { return }
            log.warning(
                "the lease cannot be written: other instances may take what is mounted here",
                metadata: [
                    "volume": "\(id)", "error": "\(failure)",
                    "allow": "ec2:CreateTags, ec2:DeleteTags",
                ])
        } catch let failure as EC2Failure {
            throw OperationError(
                .cloud, doing: "mark \(id) as mounted on \(host.instance)",
                found: failure.description,
                advice: "without the mark another instance could take the volume")
        }
    }

    /// Drops the lease of a volume that nothing holds, unless another instance has written its own
    /// meanwhile. A Mount waits for the end of this, and writes it anew.
    func dropLease(of volume: Volume, by deadline: Instant) async throws {
        // A second one might outlast the first, and the Mount that waited for that.
        if let running = volume.leaseDrop { return try await running.value }
        let id = volume.id
        let task = Task(executorPreference: executor) {
            try await self.removeLease(of: id, by: deadline)
        }
        volume.leaseDrop = task
        defer { volume.leaseDrop = nil }
        try await task.value
    }

    private func removeLease(of id: VolumeID, by deadline: Instant) async throws {
        guard let volume = volumes[id] else { return }
        let host = try await ports.host.host(by: deadline)
        if let device = try await deviceHere(of: volume, by: deadline) {
            try await refuseHeld(device, doing: "drop the lease of \(id)")
        }
        // A Mount that has come meanwhile counts upon the lease.
        guard !volume.isUsed else { return }
        volume.isLeaseSure = false
        do {
            try await ports.ec2.removeTag(
                Lease.tag, value: host.instance.description, from: id, sentBy: deadline,
                by: deadline)
        } catch let failure as EC2Failure
            where ["UnauthorizedOperation", "InvalidVolume.NotFound"].contains(failure.code)
        {
            log.notice("the lease stays", metadata: ["volume": "\(id)", "error": "\(failure)"])
        }
        volumes[id]?.record.hasLease = false
        saveInBackground()
    }
}
