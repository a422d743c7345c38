import Base
import Logging
import VolumeCore

// Which instance the stored state belongs to, and what happens with another instance's state.

/// The owner of the state that this run found, and saves.
struct StateOrigin {
    /// As it is to be saved.
    private(set) var owner: StateOwner
    /// As it was saved last.
    var saved: StateOwner?
    /// Whether the found state belongs to this instance. While this is unknown, nothing is done for
    /// attachments and leases in the records, and no Mount begins.
    private(set) var isConfirmed = true
    /// The task that finds this out.
    var confirming: Task<Void, Never>?

    init(boot: String) { owner = StateOwner(instance: nil, boot: boot) }

    /// Records the owner of the found state. In the same boot it cannot be another instance; a
    /// state without an owner counts as this instance's.
    mutating func take(_ found: StateOwner?) {
        saved = found
        if let found, found.boot != owner.boot {
            owner = found
            isConfirmed = false
        } else {
            owner.instance = found?.instance
        }
    }

    mutating func confirm(_ owner: StateOwner) {
        self.owner = owner
        isConfirmed = true
    }

    var isSaved: Bool { saved == owner }
}

extension VolumeManager {
    /// Returns when it is known whether the state of an earlier boot belongs to this instance. If
    /// so, it is resumed. Of another instance's state, only the volumes' names and options are
    /// kept: Docker's state on the copied root volume has the names too, and Docker would create a
    /// local volume for a name that is unknown here.
    func confirmOrigin(_ host: Host) async {
        guard !origin.isConfirmed || origin.owner.instance != host.instance else { return }
        let running =
            origin.confirming
            ?? Task(executorPreference: executor) { await self.settleOrigin(host.instance) }
        origin.confirming = running
        await running.value
    }

    private func settleOrigin(_ instance: InstanceID) async {
        defer { origin.confirming = nil }
        let found = origin.owner
        let wasConfirmed = origin.isConfirmed
        let isForeign = found.instance != nil && found.instance != instance
        if isForeign { await setAside(from: found) }
        origin.confirm(StateOwner(instance: instance, boot: ports.host.boot))
        for volume in volumes.values where !wasConfirmed && volume.state.device == nil {
            // Since then its users may have changed them.
            volume.record.isOwnershipDue = false
            await takeUp(volume)
        }
        saveInBackground()
    }

    /// Drops what another instance has recorded about its attachments. What is mounted here stays
    /// mounted.
    private func setAside(from owner: StateOwner) async {
        let name = owner.instance.map { "\($0)" } ?? "unknown"
        var copy = "none"
        do { copy = try await ports.state.keepCopy(named: name) } catch {
            log.error(
                "the other instance's state could not be copied",
                metadata: ["error": "\(error)"])
        }
        log.warning(
            "the stored state belongs to another instance: only the volumes' names are used",
            metadata: ["instance": "\(name)", "kept_as": "\(copy)"])
        for volume in volumes.values where volume.state.device == nil {
            volume.record.isOwnershipDue = false
            stopGivingBack(volume)
            // Before it is resumed, its name may belong to another volume.
            if volume.state.isHere { releaseDeviceName(of: volume) }
            volume.state.disowned()
            volume.record.dropWhatIsOfAnotherInstance()
            forgetIfDone(volume)
        }
    }

    /// A name for an attachment. A name that is in use only according to a record is taken if there
    /// is no other; nil if there is none at all.
    func takeDeviceName() -> String? {
        guard let name = slots.names.take() else { return nil }
        for volume in volumes.values
        where volume.state.isPresumed && volume.state.deviceName == name {
            // It is not released, because it has just been taken.
            volume.state.claimDropped()
            dropOwnership(of: volume)
            forgetIfDone(volume)
        }
        return name
    }
}
