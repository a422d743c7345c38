import Base
import Logging
import VolumeCore

// The attachment limit of this instance, and what happens when it is reached.

extension VolumeManager {
    /// Records EC2's description of this instance, and starts reading the limit of its type.
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
            if await isLimitSettled(of: type, attempt) { return }
            do { try await ports.time.sleep(until: ports.time.now + backoff.next()) } catch {
                return
            }
        }
    }

    /// Asks EC2 for the limit; false if it is to be asked again.
    private func isLimitSettled(of type: String, _ attempt: Int) async -> Bool {
        let deadline = ports.time.now + Limit.createTimeMax
        do {
            let limit = try await ports.ec2.attachmentLimit(of: type, by: deadline)
            slots.limitTold(limit)
            log.info(
                "the attachment limit of this instance",
                metadata: [
                    "type": "\(type)",
                    "volumes": "\(limit.map { "\($0.volumesMax)" } ?? "not told")",
                ])
        } catch {
            guard isLimitUnknowable(after: error, attempt: attempt) else { return false }
            log.warning(
                "the attachment limit of this instance is unknown: only EC2 enforces it",
                metadata: ["error": "\(error)", "allow": "ec2:DescribeInstanceTypes"])
        }
        return true
    }

    /// Makes sure that the instance has room for the volume, and reserves its slot until
    /// `endReservation(of:)`.
    ///
    /// Below the limit, makes no call. At the limit, asks EC2 what others have attached, and
    /// releases unused volumes, the one unused for longest first. Throws if that is not enough. If
    /// something cannot be found out, EC2 decides.
    func reserveSlot(
        for volume: Volume, on host: Host, by deadline: Instant
    ) async throws {
        var search = SlotSearch()
        while let use = attachmentUse(besides: volume.id), case let step = search.next(use),
            step != .attach
        {
            if step == .lookAtInstance {
                search.looked(isAnswered: await lookAtInstance(host, by: deadline))
            } else if let unused = await longestUnused(besides: search.tried, by: deadline) {
                search.tried(
                    unused.id, failure: await giveBackEarly(unused, on: host, by: deadline))
            } else {
                throw search.refusal(of: volume.id, use)
            }
        }
        slots.reserve(volume.id)
    }

    /// Releases the volume that has been unused for longest, after EC2 has rejected another one
    /// because of the limit: more may be attached here than was known, or the limit may be unknown.
    /// False if there is none.
    func freeSlot(on host: Host, by deadline: Instant) async -> Bool {
        _ = await lookAtInstance(host, by: deadline)
        guard let unused = await longestUnused(besides: [], by: deadline) else { return false }
        guard let error = await giveBackEarly(unused, on: host, by: deadline) else { return true }
        log.warning(
            "the unused volume is not released yet",
            metadata: ["volume": "\(unused.id)", "error": "\(error)"])
        return false
    }

    /// Nil if the limit is unknown.
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
                "the instance seems to be full, and EC2 cannot be asked",
                metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Volumes that were attached here by hand and detached again occupy no slot. Nobody releases
    /// them, so this must be found out here.
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

    /// Nil also if the deadline leaves no time. A volume whose device hangs is skipped.
    private func longestUnused(
        besides tried: Set<VolumeID>, by deadline: Instant
    ) async -> Volume? {
        var barred = tried
        while let unused = longestLingering(besides: barred, by: deadline) {
            let work = await ports.fileSystems.workUnderWay(on: unused.id)
            // The table may have changed in the meantime.
            if work?.hangs != true, unused.isLingering { return unused }
            barred.insert(unused.id)
        }
        return nil
    }

    private func longestLingering(besides tried: Set<VolumeID>, by deadline: Instant) -> Volume? {
        let lingering = volumes.values.filter(\.isLingering).map {
            LingeringVolume(
                $0.id, unusedSince: $0.state.unusedSince, isBeingDetached: $0.isBeingDetached)
        }
        return LingeringVolume.toRelease(
            of: lingering, besides: tried.union(slots.leaving),
            within: deadline - ports.time.now
        ).flatMap { volumes[$0] }
    }

    /// Releases the volume, and waits for its slot. Returns why that has failed; nil if it has not.
    private func giveBackEarly(
        _ volume: Volume, on host: Host, by deadline: Instant
    ) async -> (any Error)? {
        log.notice(
            "the instance is full: releasing the volume that has been unused for longest",
            metadata: ["volume": "\(volume.id)"])
        do { try await free(slotOf: volume.id, on: host, by: deadline) } catch { return error }
        return nil
    }

    private func free(slotOf id: VolumeID, on host: Host, by deadline: Instant) async throws {
        slots.releaseBegan(of: id)
        defer { slots.releaseEnded(of: id) }
        let soon = min(deadline, ports.time.now + Limit.unmountTimeMax)
        // Its device may hang; another volume's Mount must not wait for it.
        try await answered(within: soon - ports.time.now, doing: "give \(id) back", about: id) {
            manager, deadline in
            guard let volume = manager.volumes[id] else { return }
            try await manager.giveBackNow(volume, by: deadline)
        }
        try await awaitFreeSlot(of: id, on: host, by: deadline)
        slots.freed(by: id)
    }

    /// Returns when EC2 has noticed that the volume is gone, some time after its device. Does not
    /// wait for a volume that has come back.
    private func awaitFreeSlot(
        of id: VolumeID, on host: Host, by deadline: Instant
    ) async throws {
        var backoff = Backoff.looks
        while volumes[id]?.state.isHere != true {
            let description = try await ports.ec2.describeVolume(id, by: deadline)
            guard description?.attachment(to: host.instance) != nil else { return }
            try await ports.time.sleep(until: ports.time.now + backoff.next())
        }
    }
}
