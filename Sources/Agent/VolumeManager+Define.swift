import Base
import Logging
import VolumeCore

// Create and Remove: the names by which Docker knows volumes, and their options.
//
// A change is on disk before anybody is told about it. A change that cannot be saved does not
// happen: Docker gets an error, and the previous state remains valid, now and after the next start.

extension VolumeManager {
    /// Remembers a volume that exists and can be used from here, under another name or with other
    /// options. Does nothing if the name is known with these options.
    package func create(_ name: String, options given: [String: String]) async throws {
        try refuseLong(given, of: name)
        let options = try VolumeOptions(given)
        let id = try VolumeName.volume(name, options)
        try await answered(within: Limit.createTimeMax, doing: "create \(id)", about: id) {
            try await $0.create(name, for: id, options, by: $1)
        }
    }

    private func create(
        _ name: String, for id: VolumeID, _ options: VolumeOptions, by deadline: Instant
    ) async throws {
        try await definitionsEnd(of: name, id)
        if try isCreated(name, for: id, options) { return }
        let (description, host) = try await usableDescription(
            of: id, options: options, by: deadline)
        // The table may have changed in the meantime.
        try await definitionsEnd(of: name, id)
        if try isCreated(name, for: id, options) { return }
        let old = volumes[id]?.record.names ?? []
        let naming = VolumeNaming(
            name: name, options: options,
            createdAt: old.first { $0.name == name }?.createdAt ?? ports.time.unixSeconds)
        warnOfDeletion(of: description)
        try await define(
            id, by: old.filter { $0.name != name } + [naming], for: name, description)
        if let volume = volumes[id], volume.state.isMarked(description, on: host.instance),
            case .here? = try? Situation(of: description, seenFrom: host, readOnly: true)
        {
            volume.state.originTold(isOurs: true)
            // An earlier run, whose records are lost, may have written it.
            volume.state.leasePresumed()
            saveInBackground()
        }
        log.info("created", metadata: ["volume": "\(id)", "name": "\(name)"])
    }

    /// Forgets a name, and with the last name the volume. The data stays, and the volume is
    /// released after the linger.
    package func remove(_ name: String) async throws {
        let id = try known(name).id
        try await answered(within: Limit.createTimeMax, doing: "remove \(id)", about: id) {
            volumes, _ in try await volumes.forget(name)
        }
    }

    private func forget(_ name: String) async throws {
        var volume = try known(name)
        try await definitionsEnd(of: name, volume.id)
        volume = try known(name)
        try refuseWhileUsed(volume, by: name, doing: "remove \(name)")
        let names = volume.record.names.filter { $0.name != name }
        try await define(volume.id, by: names, for: name, nil)
        log.info(
            "removed; its data is kept", metadata: ["volume": "\(volume.id)", "name": "\(name)"])
    }

    /// Returns when no change of the name or the volume is in progress.
    private func definitionsEnd(of name: String, _ id: VolumeID) async throws {
        while let running = definitions[name] ?? definitions["\(id)"] {
            _ = try? await running.value
            try Task.checkCancellation()
        }
    }

    /// Gives a volume these names, on disk first. Continues if the call that requested it is
    /// abandoned.
    private func define(
        _ id: VolumeID, by names: [VolumeNaming], for name: String,
        _ description: VolumeDescription?
    ) async throws {
        let proposal = NamesProposal(names)
        let volume =
            volumes[id]
            ?? Volume(VolumeRecord(id: id, createdAt: ports.time.unixSeconds, isRemoved: true))
        volume.proposal = proposal
        if let description { volume.state.described(description) }
        if !volumes.contains(id) { volumes[id] = volume }
        volumes.noteUnsaved([id])
        let task = Task(executorPreference: executor) {
            try await self.save(proposal, of: id, for: name)
        }
        definitions[name] = task
        definitions["\(id)"] = task
        try await task.value
    }

    private func save(
        _ proposal: NamesProposal, of id: VolumeID, for name: String
    ) async throws {
        defer {
            definitions[name] = nil
            definitions["\(id)"] = nil
            if let volume = volumes[id] { forgetIfDone(volume) }
        }
        // It does not matter whose save wrote it or failed.
        do { try await save() } catch  where proposal.outcome == nil { throw error } catch {}
        try proposal.outcome?.get()
    }

    private func refuseLong(
        _ options: [String: String], of name: String
    ) throws(OperationError) {
        let size = options.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count }
        guard size > Limit.volumeOptionsMax else { return }
        throw OperationError(
            .limitReached, doing: "create \(quoted(name))",
            found: "its options have \(size) bytes, and \(Limit.volumeOptionsMax) are allowed")
    }

    /// Whether there is nothing to do. Throws if the name is taken, cannot be used, or is in use
    /// with other options.
    private func isCreated(
        _ name: String, for id: VolumeID, _ options: VolumeOptions
    ) throws(OperationError) -> Bool {
        if let other = volumes.id(named: name), other != id {
            throw OperationError(
                .invalidInput, doing: "create \(name) for \(id)",
                found: "the name already belongs to \(other)", advice: "use another name")
        }
        guard let volume = volumes[id] else {
            try refuseMoreNames(doing: "create \(name)", of: nil)
            return false
        }
        guard let naming = volume.record.naming(name) else {
            if let flawed = volume.record.names.first, volume.record.verbatim != nil {
                try refuseFlawed(flawed, of: id, doing: "create \(name)")
            }
            try refuseMoreNames(doing: "create \(name)", of: volume)
            return false
        }
        try refuseFlawed(naming, of: id, doing: "create \(name)")
        if naming.options == options { return true }
        try refuseWhileUsed(volume, by: name, doing: "change the options of \(name)")
        return false
    }

    /// Throws for a name whose saved options are from a newer version, or damaged.
    func refuseFlawed(
        _ naming: VolumeNaming, of id: VolumeID, doing: String
    ) throws(OperationError) {
        guard let flaw = naming.flaw else { return }
        throw OperationError(
            .invalidInput, doing: doing,
            found: "what was saved of \(naming.name), \(id), is not understood: \(flaw)",
            advice: "if a newer version of the plugin wrote it, use that one; otherwise remove the "
                + "volume with docker volume rm \(naming.name), which keeps its data, and create it "
                + "again with its options")
    }

    private func refuseMoreNames(doing: String, of volume: Volume?) throws(OperationError) {
        let own = volume?.record.names.count ?? 0
        guard own >= Limit.namesPerVolumeMax || volumes.nameCount >= Limit.volumeNamesMax else {
            return
        }
        let found =
            own >= Limit.namesPerVolumeMax
            ? "the volume has \(own) names, as many as are allowed"
            : "\(volumes.nameCount) names of volumes are known, as many as are allowed"
        throw OperationError(
            .limitReached, doing: doing, found: found,
            advice: "remove some with docker volume rm, which keeps the data")
    }

    private func usableDescription(
        of id: VolumeID, options: VolumeOptions, by deadline: Instant
    ) async throws -> (VolumeDescription, Host) {
        let host = try await ports.host.host(by: deadline)
        let description = try await describe(id, by: deadline)
        _ = try Situation(of: description, seenFrom: host, readOnly: options.readOnly)
        for attachment in description.attachments {
            try await refuseRoot(id, attachment, by: deadline)
        }
        return (description, host)
    }

    /// Throws for a volume that an instance boots from. A device name of this plugin's is never
    /// that of a root device, and needs no call to EC2.
    func refuseRoot(
        _ id: VolumeID, _ attachment: VolumeAttachment, by deadline: Instant
    ) async throws {
        guard let name = attachment.device, let instance = attachment.instance,
            !DeviceNames.isGiven(name)
        else { return }
        try await look(at: instance, by: deadline).refuseRoot(id, attachedAs: name)
    }

    /// Throws if a container may have mounted the volume by this name, or if it is the last name of
    /// a volume in use.
    private func refuseWhileUsed(
        _ volume: Volume, by name: String, doing: String
    ) throws(OperationError) {
        let used = volume.record.mounts.names
        let isSpared =
            volume.state.mountCalls == 0 && !used.isEmpty && !used.contains(name)
        guard volume.isUsed, !isSpared else { return }
        throw OperationError(
            .invalidInput, doing: doing,
            found: "\(volume.id) is in use, by \(volume.record.mounts.total) mounts",
            advice: "stop the containers that use it first")
    }

    /// Drops a removed volume from the table once nothing of it remains here.
    func forgetIfDone(_ volume: Volume) {
        guard !volume.isRemembered, volume.state.mount == .unmounted else { return }
        releaseDeviceName(of: volume)
        // Otherwise it would continue with the next volume of that id.
        stopGivingBack(volume)
        volumes[volume.id] = nil
    }
}
