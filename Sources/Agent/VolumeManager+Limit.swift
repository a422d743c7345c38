import Base
import Logging
import VolumeCore

// How many volumes EC2 lets this instance have, and what is done when it has them.

extension VolumeManager {
    /// Notes what EC2 says of this instance, and has the limit of its type asked for.
    func learnLimit(of instance: InstanceDescription) {
        guard !instance.instanceType.isEmpty else { return }
        slots.instanceTold(instance)
        guard slots.limit == nil else { return }
        let type = instance.instanceType
        Task(executorPreference: executor) { await self.askLimit(of: type) }
    }

    private func askLimit(of type: String) async {
        var backoff = Backoff(from: Limit.startRetryMin, to: Limit.startRetryMax, .twofold)
        for attempt in 1... {
            do {
                let deadline = ports.time.now + Limit.createTimeMax
                let limit = try await ports.ec2.attachmentLimit(of: type, by: deadline)
                slots.limitTold(limit)
                log.info(
                    "the limit of attachments",
                    metadata: [
                        "type": "\(type)",
                        "volumes": "\(limit.map { "\($0.volumesMax)" } ?? "not told")",
                    ])
                return
            } catch {
                let isForbidden = error.ec2Failure?.code == "UnauthorizedOperation"
                if isForbidden || attempt >= Limit.attachmentLimitTriesMax {
                    log.warning(
                        "how many volumes this instance takes is not known: EC2 alone refuses",
                        metadata: ["error": "\(error)", "allow": "ec2:DescribeInstanceTypes"])
                    return
                }
            }
            do { try await ports.time.sleep(until: ports.time.now + backoff.next()) } catch {
                return
            }
        }
    }

    /// Sees to it that EC2 lets the instance have the volume, and keeps its place until
    /// `endReservation(of:)`.
    ///
    /// Below the limit nothing is asked. At it, EC2 is asked what others have attached, and unused
    /// volumes are given back, the one unused for longest first. Throws when that is not enough.
    /// What cannot be learned refuses nothing: EC2 decides.
    func reserveSlot(
        for volume: Volume, on host: Host, by deadline: Instant
    ) async throws {
        var hasLooked = false
        var tried: Set<VolumeID> = []
        var kept: [(volume: VolumeID, reason: String)] = []
        while let use = attachmentUse(besides: volume.id) {
            let step = SlotStep(use, hasLooked: hasLooked)
            if step == .attach { break }
            if step == .lookAtInstance {
                hasLooked = true
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
        slots.reserve(volume.id)
    }

    /// Gives back the volume unused for longest, when EC2 has refused another one for the limit:
    /// more may be attached here than was known, or the limit not be known. False where there is
    /// none.
    func freeSlot(on host: Host, by deadline: Instant) async -> Bool {
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

    /// Nil where the limit is not known.
    private func attachmentUse(besides id: VolumeID) -> AttachmentUse? {
        slots.use(
            besides: id,
            here: volumes.values.filter { $0.state.isHere && !$0.state.isLost }.map(\.id),
            isKnown: { volumes.contains($0) })
    }

    private func lookAtInstance(_ host: Host, by deadline: Instant) async -> Bool {
        do {
            guard let found = try await ports.ec2.describeInstance(host.instance, by: deadline)
            else { return false }
            slots.instanceTold(found)
            await dropForeign(besides: Set(found.mappings.compactMap(\.volume)))
            return true
        } catch {
            log.warning(
                "the instance seems to have as many volumes as it may, and EC2 cannot be asked",
                metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Volumes that somebody attached here by hand, and that are attached no more, take no place:
    /// nobody gives those back, and so notices.
    private func dropForeign(besides listed: Set<VolumeID>) async {
        for volume in volumes.values where !listed.contains(volume.id) {
            guard await isSurelyGone(volume), isForeign(volume) else { continue }
            noteDetached(volume)
        }
    }

    private func isForeign(_ volume: Volume) -> Bool {
        guard volume.state.mount == .unmounted else { return false }
        return volume.state.isHere && !volume.state.isOurs
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
        let lingering = volumes.values.filter(\.isLingering).map {
            LingeringVolume(
                $0.id, unusedSince: $0.state.unusedSince, isBeingReleased: $0.isBeingGivenBack)
        }
        return LingeringVolume.toRelease(
            of: lingering, besides: tried.union(slots.leaving),
            within: deadline - ports.time.now
        ).flatMap { volumes[$0] }
    }

    private func giveBackEarly(
        _ volume: Volume, on host: Host, by deadline: Instant
    ) async throws {
        log.notice(
            "the instance has as many volumes as it may: the one unused for longest is given back",
            metadata: ["volume": "\(volume.id)"])
        let id = volume.id
        slots.releaseBegan(of: id)
        defer { slots.releaseEnded(of: id) }
        let soon = min(deadline, ports.time.now + Limit.unmountTimeMax)
        // Its device may hang, and is then not waited for by another volume's Mount.
        try await answered(within: soon - ports.time.now, doing: "give \(id) back", about: id) {
            manager, deadline in
            guard let volume = manager.volumes[id] else { return }
            try await manager.giveBackNow(volume, by: deadline)
        }
        try await awaitFreeSlot(of: id, on: host, by: deadline)
        slots.freed(by: id)
    }

    /// Returns when EC2 has taken note that the volume is gone: that is some time after its device
    /// went. One that came back meanwhile is not waited for.
    private func awaitFreeSlot(
        of id: VolumeID, on host: Host, by deadline: Instant
    ) async throws {
        var backoff = Backoff.looks
        while volumes[id]?.state.isHere != true {
            let description = try await ports.ec2.describeVolume(id, by: deadline)
            let here = description?.attachments.contains {
                $0.instance == host.instance && $0.state != .detached
            }
            guard here == true else { return }
            try await ports.time.sleep(until: ports.time.now + backoff.next())
        }
    }
}
