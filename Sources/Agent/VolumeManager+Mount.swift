import Base
import Logging
import VolumeCore

// Mount and Unmount, from the call to the response.

extension VolumeManager {
    /// Mounts the volume, or joins a mount in progress, and counts the ID.
    ///
    /// Returns the mountpoint; afterwards call `noteAnswer` with whether the response was sent. If
    /// the calling task is cancelled because the client has disconnected, the mount continues, but
    /// the ID is not counted: Docker sends no Unmount for it.
    package func mount(_ name: String, id mountID: String) async throws -> String {
        guard mountID.utf8.count <= Limit.mountIDMax else {
            throw OperationError(
                .invalidInput, doing: "mount \(quoted(name))",
                found: "the mount ID is longer than \(Limit.mountIDMax) bytes")
        }
        let id = try known(name).id
        return try await answered(
            within: Limit.mountTimeMax, doing: "mount \(id)", about: id
        ) { try await $0.mountCounted(name, id: mountID, by: $1) }
    }

    /// Takes back the count of a Mount whose response was not sent: its client sends no Unmount.
    package func noteAnswer(to mountID: String, of name: String, isSent: Bool) {
        guard let volume = try? known(name) else { return }
        if isSent {
            volume.record.mounts.answered(mountID)
        } else {
            _ = volume.record.mounts.remove(mountID)
            giveBackWhenUnused(volume)
        }
        Task(executorPreference: executor) { await self.saveCounts() }
    }

    private func mountCounted(
        _ name: String, id mountID: String, by deadline: Instant
    ) async throws -> String {
        if !origin.isConfirmed { await confirmOrigin(try await ports.host.host(by: deadline)) }
        let volume = try await agreedVolume(name)
        volume.state.mountCallBegan()
        defer { volume.state.mountCallEnded() }
        stopGivingBack(volume)
        do {
            repeat {
                try await becomeMounted(volume, by: deadline)
                try Task.checkCancellation()
                try await count(mountID, by: name, for: volume)
            } while await uncountIfLost(volume, mountID)
        } catch {
            if volume.state.mountCalls == 1 { giveBackWhenUnused(volume) }
            throw error
        }
        return mountpoint(of: volume.id)
    }

    /// Takes the count back if the device has gone while it was saved: its container would find
    /// nothing. True if so.
    private func uncountIfLost(_ volume: Volume, _ mountID: String) async -> Bool {
        guard volume.state.isLost else { return false }
        _ = volume.record.mounts.remove(mountID)
        await saveCounts()
        return true
    }

    /// Counts the ID, also on disk, before the response is sent.
    private func count(
        _ mountID: String, by name: String, for volume: Volume
    ) async throws {
        try volume.record.mounts.add(mountID, by: name)
        await saveCounts()
        guard !Task.isCancelled else {
            _ = volume.record.mounts.remove(mountID)
            await saveCounts()
            throw CancellationError()
        }
    }

    /// Removes the ID's count; with the last one, unmounts and starts the linger.
    package func unmount(_ name: String, id mountID: String) async throws {
        let id = try known(name).id
        try await answered(within: Limit.unmountTimeMax, doing: "unmount \(id)", about: id) {
            volumes, _ in try await volumes.uncount(name, id: mountID)
        }
    }

    private func uncount(_ name: String, id mountID: String) async throws {
        let volume = try known(name)
        if volume.record.mounts.remove(mountID) {
            await saveCounts()
        } else {
            // After a crash Docker may know a mount that was not recorded here.
            log.notice(
                "Unmount of an ID that has nothing mounted",
                metadata: ["volume": "\(volume.id)", "id": "\(quoted(mountID))"])
        }
        guard !volume.isUsed else { return }
        // A Mount may arrive in the meantime.
        defer { if !volume.isUsed { giveBackWhenUnused(volume) } }
        try await becomeUnmounted(volume)
    }

    /// Returns when the volume is mounted, whichever call did it.
    private func becomeMounted(_ volume: Volume, by deadline: Instant) async throws {
        while true {
            switch volume.state.mount {
            // Users of a lost volume can no longer access it, and are no obstacle.
            case .mounted(let mounted) where mounted.condition != .sound:
                try await becomeUnmounted(volume)
            case .mounted(let mounted):
                let step = await joinStep(for: volume, on: mounted.device)
                if step == .join { return }
                prepare(volume, for: step)
            case .mounting: try await volume.operation?.value
            case .unmounting, .detaching: _ = try? await volume.operation?.value
            case .unmounted:
                let id = volume.id
                guard ports.time.now < deadline else {
                    throw OperationError(
                        .deadline, doing: "mount \(id)",
                        found: "an earlier operation on it has taken all the time",
                        advice: "try again")
                }
                let task = Task(executorPreference: executor) {
                    try await self.bringUp(id, by: deadline)
                }
                volume.begin({ $0.mountingBegan() }, task)
            }
        }
    }

    func becomeUnmounted(_ volume: Volume) async throws {
        if let running = volume.operation { return try await running.value }
        guard let device = volume.state.device else { return }
        let id = volume.id
        let task = Task(executorPreference: executor) { try await self.takeDown(id, device) }
        volume.begin({ $0.unmountingBegan() }, task)
        try await task.value
    }

    /// Asks the kernel whether what is thought to be mounted is, and works: somebody may have
    /// unmounted it by hand, and a file system shuts down when its device fails.
    private func joinStep(for volume: Volume, on device: BlockDevice) async -> JoinStep {
        let number = volume.state.mountNumber
        let state = await ports.fileSystems.mountState(of: device, at: mountpoint(of: volume.id))
        return JoinStep(
            state, isSameMount: volume.state.device == device && volume.state.mountNumber == number)
    }

    private func prepare(_ volume: Volume, for step: JoinStep) {
        let metadata: Logger.Metadata = [
            "volume": "\(volume.id)", "mountpoint": "\(mountpoint(of: volume.id))",
        ]
        switch step {
        case .join, .lookAgain: break
        case .remount:
            log.error(
                "the file system has shut down ('dmesg' has the reason): mounting it again",
                metadata: metadata)
            volume.state.mountOutlived()
        case .mountAnew:
            log.error(
                "the volume was unmounted by someone else",
                metadata: metadata)
            stopWatching(volume)
            volume.state.unmounted()
        }
    }

    /// Gets the device here, secures the lease, and mounts the file system: the only path of a
    /// Mount.
    private func bringUp(_ id: VolumeID, by deadline: Instant) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table mounting") }
        var timeline = MountTimeline(since: ports.time.now)
        do {
            let (device, type) = try await mountedDevice(of: volume, by: deadline, &timeline)
            volume.state.mounted(on: device)
            watch(volume, on: device)
            if let description = volume.state.description { warnOfDeletion(of: description) }
            log.info(
                "mounted",
                metadata: timeline.metadata.merging([
                    "volume": "\(id)", "device": "\(device.path)", "fs": "\(type)",
                ]) { $1 })
        } catch {
            volume.state.mountingFailed()
            log.error(
                "mount failed",
                metadata: timeline.metadata.merging(["volume": "\(id)", "error": "\(error)"]) { $1 }
            )
            throw error
        }
    }

    /// The volume's device, its own or a partition, mounted, and its file system's type.
    private func mountedDevice(
        of volume: Volume, by deadline: Instant, _ timeline: inout MountTimeline
    ) async throws -> (BlockDevice, String) {
        var present = try await presentDevice(of: volume, &timeline)
        while true {
            // If there is no device here, or another host is taking it, ask EC2.
            var arrival = present.map { Arrival(device: $0, isSecured: false) }
            if arrival == nil {
                arrival = try await attachedDevice(of: volume, by: deadline, &timeline)
            }
            if let arrival {
                let device = try await fileSystemDevice(
                    of: volume, on: arrival.device, by: deadline)
                let type = try await mountLeased(
                    volume, on: device, isSecured: arrival.isSecured, by: deadline, &timeline)
                if let type { return (device, type) }
            }
            present = nil
            guard ports.time.now < deadline else {
                throw OperationError(
                    .deadline, doing: "mount \(volume.id)",
                    found: "other hosts took the volume each time that it was attached here",
                    advice: "find out in CloudTrail who calls DetachVolume")
            }
        }
    }

    /// Mounts the volume's file system while its lease is secured. Returns the type, or nil if
    /// another host is taking the volume, which is then unmounted again.
    ///
    /// A volume that was just attached already has its lease: `isSecured`. A volume that lingered
    /// here gets one, and EC2 is asked whether it is still attached here. In the meantime it is
    /// mounted, provided that nothing else can be wrong: the device identifies its volume (on Xen,
    /// only EC2 does), and a look in this run since its attachment has shown that it is not a
    /// Multi-Attach volume.
    private func mountLeased(
        _ volume: Volume, on device: BlockDevice, isSecured: Bool, by deadline: Instant,
        _ timeline: inout MountTimeline
    ) async throws -> String? {
        // If the lease is being dropped, that code either notices this Mount and keeps the lease,
        // or has already marked it as uncertain.
        let order = LeaseOrder(
            isSecured: isSecured, isCertain: volume.state.lease == .certain,
            bearsVolumeID: device.bearsVolumeID, isSeenHere: volume.state.isSeenHere,
            isMultiAttach: volume.state.description?.multiAttachEnabled)
        if order == .done {
            return try await mountFileSystem(of: volume, on: device, by: deadline, &timeline)
        }
        let id = volume.id
        let asking = Task(executorPreference: executor) {
            try await self.secureLeaseOfPresent(id, by: deadline)
        }
        if order == .before, try await !asking.value { return nil }
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

    /// Secures the lease of a volume whose device is here; false if it is not attached here.
    /// Without the first look, the lease of a host that has already taken the volume would be
    /// overwritten.
    private func secureLeaseOfPresent(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> Bool {
        let host = try await ports.host.host(by: deadline)
        let lookedAt = ports.time.now
        guard try await lookWhetherHere(id, on: host, by: deadline) != nil else { return false }
        return try await secureLease(of: id, seenAt: lookedAt, on: host, by: deadline)
    }

    /// Secures the lease of a volume that was seen attached here at `seenAt`; false if it is no
    /// longer attached here.
    func secureLease(
        of id: VolumeID, seenAt: Instant, on host: Host, by deadline: Instant
    ) async throws -> Bool {
        try await leases.secure(id, seenAt: seenAt, on: host, by: deadline) {
            try await self.lookWhetherHere(id, on: host, by: deadline)
        }
    }

    private func unmountAgain(_ volume: Volume, _ device: BlockDevice) async throws {
        do {
            try await ports.fileSystems.unmount(mountpoint(of: volume.id), of: volume.id)
        } catch {
            // It is released later, like any unused mount; a Mount starts again.
            volume.state.mountStays(on: device)
            throw error
        }
    }

    private func takeDown(_ id: VolumeID, _ device: BlockDevice) async throws {
        guard let volume = volumes[id] else { preconditionFailure("\(id) left the table mounted") }
        let start = ports.time.now
        do {
            try await ports.fileSystems.unmount(mountpoint(of: id), of: id)
            volume.state.unmounted()
            stopWatching(volume)
            log.info(
                "unmounted",
                metadata: [
                    "volume": "\(id)", "unmount_ms": "\(tenths(ports.time.now - start))",
                ])
        } catch {
            volume.state.unmountingFailed()
            log.error("unmount failed", metadata: ["volume": "\(id)", "error": "\(error)"])
            throw error
        }
    }
}

// MARK: The options of a Mount

extension VolumeManager {
    /// The volume of that name, from now on with the name's options. Throws if it is mounted with
    /// conflicting options.
    private func agreedVolume(_ name: String) async throws -> Volume {
        while let running = definitions[name] { _ = try? await running.value }
        let volume = try known(name)
        guard let naming = volume.record.naming(name) else {
            preconditionFailure("\(name) is no name of \(volume.id)")
        }
        try refuseFlawed(naming, of: volume.id, doing: "mount \(name)")
        try agree(volume, on: naming)
        return volume
    }

    private func agree(_ volume: Volume, on naming: VolumeNaming) throws(OperationError) {
        let conflict = volume.record.options.conflict(
            with: naming.options, fileSystem: settings.fileSystem)
        // A mount in progress belongs to some call.
        if volume.isUsed {
            guard let conflict else { return }
            throw OperationError(
                .invalidInput, doing: "mount \(naming.name)",
                found: "\(volume.id) is mounted as \(volume.record.name) with \(conflict.option) "
                    + "\(conflict.own), and \(naming.name) has \(conflict.option) "
                    + "\(conflict.others)",
                advice: "give both names the same \(conflict.option), or stop the containers that "
                    + "use \(volume.record.name) first")
        }
        // For an unmounted volume this has no meaning, and the next mount clears it.
        if conflict != nil { volume.state.mountOutlived() }
        volume.record.name = naming.name
        volume.record.options = naming.options
    }
}
