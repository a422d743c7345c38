import Base
import Logging
import VolumeCore

// Whose state it is that was found, and what is done about another instance's.

/// Whose the state is that this run found, and saves.
struct StateOrigin {
    /// As it is to be saved.
    private(set) var owner: StateOwner
    /// As it was saved last.
    var saved: StateOwner?
    /// Whether what was found is this instance's. While it is not known, nothing is done for what
    /// the records say of attachments and leases, and no Mount begun.
    private(set) var isConfirmed = true
    /// Finds that out.
    var confirming: Task<Void, Never>?

    init(boot: String) { owner = StateOwner(instance: nil, boot: boot) }

    /// Takes note of whose the found state is. In the same boot it can be no other instance's; a
    /// version that did not save this is taken for the same.
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
    /// Returns when it is known whether what an earlier boot has left is this instance's: what is,
    /// is taken up; of another's nothing but the volumes' names and options stays, for Docker's own
    /// copy of that root volume has the names too, and would make a local volume of one that is
    /// unknown here.
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
            // Since then its users may have set what they want.
            volume.record.isOwnershipDue = false
            await takeUp(volume)
        }
        saveInBackground()
    }

    /// Drops what another instance has noted of its attachments. What is mounted here stays so.
    private func setAside(from owner: StateOwner) async {
        let name = owner.instance.map { "\($0)" } ?? "unknown"
        var copy = "none"
        do { copy = try await ports.state.keepCopy(named: name) } catch {
            log.error(
                "no copy of the other instance's state could be kept",
                metadata: ["error": "\(error)"])
        }
        log.warning(
            "the stored state is another instance's, as in an image: only the volumes' names are used",
            metadata: ["instance": "\(name)", "kept_as": "\(copy)"])
        for volume in volumes.values where volume.state.device == nil {
            volume.record.isOwnershipDue = false
            stopGivingBack(volume)
            // Before it was taken up its name may be another's.
            if volume.state.isHere { releaseDeviceName(of: volume) }
            volume.state.disowned()
            volume.record.dropWhatIsOfAnotherInstance()
            forgetIfDone(volume)
        }
    }

    /// A name to attach a volume by. One that only a record says to be in use is taken where there
    /// is no other; nil where there is none at all.
    func takeDeviceName() -> String? {
        guard let name = slots.names.take() else { return nil }
        for volume in volumes.values
        where volume.state.isPresumed && volume.state.deviceName == name {
            // It is not released, for it has just been taken.
            volume.state.claimDropped()
            dropOwnership(of: volume)
            forgetIfDone(volume)
        }
        return name
    }
}
