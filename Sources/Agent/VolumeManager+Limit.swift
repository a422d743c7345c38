import Base
import Logging
import VolumeCore

// How many volumes EC2 lets this instance have, and what is done when it has them.

/// What is known of the instance's attachments, besides the table.
struct AttachmentFacts {
    /// Nil while it is not known; then EC2 alone refuses.
    var limit: AttachmentLimit?
    /// What EC2 said last of this instance.
    var instance: InstanceDescription?
    /// Volumes whose AttachVolume is under way.
    var reserved: Set<VolumeID> = []
    /// Volumes that are given back before their time, until EC2 has taken note of it.
    var leaving: Set<VolumeID> = []
    /// When a volume's device went last because it was given back.
    var lastDeparture: Instant?
}

extension VolumeManager {
    /// Notes what EC2 says of this instance, and has the limit of its type asked for.
    func learnLimit(of instance: InstanceDescription) {
        guard !instance.instanceType.isEmpty else { return }
        attachmentFacts.instance = instance
        guard attachmentFacts.limit == nil else { return }
        let type = instance.instanceType
        Task(executorPreference: executor) { await self.askLimit(of: type) }
    }

    private func askLimit(of type: String) async {
        var pause = Limit.startRetryMin
        for attempt in 1... {
            do {
                let deadline = ports.time.now + Limit.createTimeMax
                let limit = try await ports.ec2.attachmentLimit(of: type, by: deadline)
                attachmentFacts.limit = limit
                log.info(
                    "the limit of attachments",
                    metadata: [
                        "type": "\(type)",
                        "volumes": "\(limit.map { "\($0.volumesMax)" } ?? "not told")",
                    ])
                return
            } catch {
                let isForbidden = (error as? EC2Failure)?.code == "UnauthorizedOperation"
                if isForbidden || attempt >= Limit.attachmentLimitTriesMax {
                    log.warning(
                        "how many volumes this instance takes is not known: EC2 alone refuses",
                        metadata: ["error": "\(error)", "allow": "ec2:DescribeInstanceTypes"])
                    return
                }
            }
            do { try await ports.time.sleep(until: ports.time.now + pause) } catch { return }
            pause = min(pause * 2, Limit.startRetryMax)
        }
    }

    /// Sees to it that EC2 lets the instance have the volume, and keeps its place until
    /// `endReservation(of:)`.
    ///
    /// Below the limit nothing is asked. At it, EC2 is asked what others have attached, and unused
    /// volumes are given back, the one unused for longest first. Throws when that is not enough. What
    /// cannot be learned refuses nothing: EC2 decides.
    func reservePlace(
        for volume: Volume, on host: Host, by deadline: Instant
    ) async throws {
        var isNew = false
        var tried: Set<VolumeID> = []
        var kept: [(volume: VolumeID, reason: String)] = []
        while let use = attachmentUse(besides: volume.id), use.isFull {
            if !isNew {
                isNew = true
                guard await lookAtInstance(host, by: deadline) else { break }
            } else if let unused = await longestUnused(besides: tried, by: deadline) {
                tried.insert(unused.id)
                do { try await giveBackEarly(unused, on: host, by: deadline) } catch {
                    kept.append((unused.id, "\(error)"))
                }
            } else {
                throw use.refusal(of: volume.id, kept: kept)
            }
        }
        attachmentFacts.reserved.insert(volume.id)
    }

    /// Gives back the volume unused for longest, when EC2 has refused another one for the limit: more
    /// may be attached here than was known, or the limit not be known. False where there is none.
    func makePlace(on host: Host, by deadline: Instant) async -> Bool {
        _ = await lookAtInstance(host, by: deadline)
        guard let unused = await longestUnused(besides: [], by: deadline) else { return false }
        do { try await giveBackEarly(unused, on: host, by: deadline) } catch {
            log.warning(
                "the unused volume is not given back yet",
                metadata: ["volume": "\(unused.id)", "error": "\(error)"])
            return false
        }
        return true
    }

    /// Whether EC2 may be about to take note that a volume has gone: some time after its device went.
    var isPlaceComing: Bool {
        attachmentFacts.lastDeparture.map { ports.time.now < $0 + Limit.placeTimeMax } ?? false
    }

    func endReservation(of volume: Volume) { attachmentFacts.reserved.remove(volume.id) }

    /// Nil where the limit is not known.
    private func attachmentUse(besides id: VolumeID) -> AttachmentUse? {
        guard let limit = attachmentFacts.limit, let instance = attachmentFacts.instance else {
            return nil
        }
        let here = volumes.values.filter { $0.isHere && !$0.isLost }.map(\.id)
        var own = attachmentFacts.reserved.union(attachmentFacts.leaving).union(here)
        own.remove(id)
        let known = instance.mappings.compactMap(\.volume).filter { volumes.contains($0) }
        return AttachmentUse(of: limit, on: instance, own: own, known: Set(known))
    }

    private func lookAtInstance(_ host: Host, by deadline: Instant) async -> Bool {
        do {
            guard let found = try await ports.ec2.describeInstance(host.instance, by: deadline)
            else { return false }
            attachmentFacts.instance = found
            await dropForeign(besides: Set(found.mappings.compactMap(\.volume)))
            return true
        } catch {
            log.warning(
                "the instance seems to have as many volumes as it may, and EC2 cannot be asked",
                metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Volumes that somebody attached here by hand, and that are attached no more, take no place: nobody
    /// gives those back, and so notices.
    private func dropForeign(besides listed: Set<VolumeID>) async {
        for volume in volumes.values where !listed.contains(volume.id) {
            guard await isSurelyGone(volume), isForeign(volume) else { continue }
            noteDetached(volume)
        }
    }

    private func isForeign(_ volume: Volume) -> Bool {
        guard case .unmounted = volume.phase else { return false }
        return volume.isHere && !volume.record.isOurs
    }

    /// Nil also where the deadline leaves no time. One whose device hangs is passed over.
    private func longestUnused(
        besides tried: Set<VolumeID>, by deadline: Instant
    ) async -> Volume? {
        var barred = tried
        while let unused = longestLingering(besides: barred, by: deadline) {
            let work = await ports.fileSystems.workUnderWay(on: unused.id)
            // The table may have changed meanwhile.
            if work?.hangs != true, unused.isLingering { return unused }
            barred.insert(unused.id)
        }
        return nil
    }

    private func longestLingering(besides tried: Set<VolumeID>, by deadline: Instant) -> Volume? {
        let left = deadline - ports.time.now
        guard left > .zero else { return nil }
        // A step that is under way may take as long as this, whoever waits for it.
        let canJoin = left >= Limit.unmountTimeMax
        let barred = tried.union(attachmentFacts.leaving)
        return volumes.values.filter {
            $0.isLingering && (canJoin || !$0.isBeingGivenBack) && !barred.contains($0.id)
        }.min {
            ($0.unusedSince, $0.id.description) < ($1.unusedSince, $1.id.description)
        }
    }

    private func giveBackEarly(
        _ volume: Volume, on host: Host, by deadline: Instant
    ) async throws {
        log.notice(
            "the instance has as many volumes as it may: the one unused for longest is given back",
            metadata: ["volume": "\(volume.id)"])
        attachmentFacts.leaving.insert(volume.id)
        defer { attachmentFacts.leaving.remove(volume.id) }
        let id = volume.id
        let soon = min(deadline, ports.time.now + Limit.unmountTimeMax)
        // Its device may hang, and is then not waited for by another volume's Mount.
        try await answered(within: soon - ports.time.now, doing: "give \(id) back", about: id) {
            manager, deadline in
            guard let volume = manager.volumes[id] else { return }
            try await manager.giveBackNow(volume, by: deadline)
        }
        try await awaitFreePlace(of: volume.id, on: host, by: deadline)
        // The table may have forgotten it by now, and then it would count as another's.
        attachmentFacts.instance?.mappings.removeAll { $0.volume == volume.id }
    }

    /// Returns when EC2 has taken note that the volume is gone: that is some time after its device
    /// went. One that came back meanwhile is not waited for.
    private func awaitFreePlace(
        of id: VolumeID, on host: Host, by deadline: Instant
    ) async throws {
        var pause = Limit.lookIntervalMin
        while volumes[id]?.isHere != true {
            let description = try await ports.ec2.describeVolume(id, by: deadline)
            let here = description?.attachments.contains {
                $0.instance == host.instance && $0.state != .detached
            }
            guard here == true else { return }
            try await ports.time.sleep(until: ports.time.now + pause)
            pause = min(pause * 3 / 2, Limit.lookIntervalMax)
        }
    }
}
