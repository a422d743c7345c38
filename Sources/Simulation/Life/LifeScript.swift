import Base
import VolumeCore

/// The course of a life: work and disasters, peace, and checks of what remains.
final class LifeScript: @unchecked Sendable {
    private unowned let world: LifeWorld
    private let process: SimulatedProcess
    private(set) var isOver = false

    init(world: LifeWorld, process: SimulatedProcess) {
        self.world = world
        self.process = process
    }

    func direct() async {
        do {
            try await work()
            try await makePeace()
            try await settle()
            checkSettled()
            try await useEveryVolume()
            try await settle()
            checkSettled()
        } catch {}
        isOver = true
    }

    private var liveHosts: [LifeHost] { world.hosts.filter { !$0.isTerminated } }

    private func work() async throws {
        for _ in 0..<60 {
            try await process.sleep(.seconds(10))
            if world.hosts.allSatisfy({ $0.docker.isDone || !$0.isRunning }) { return }
        }
    }

    /// No new work and no more faults; whatever is down starts again.
    private func makePeace() async throws {
        world.trace.note(.settle)
        world.cloud.faultsAreOn = false
        for host in world.hosts {
            host.docker.isClosing = true
            host.thaw()
            host.boot()
        }
        try await process.sleep(.seconds(130))
        for host in liveHosts {
            if !host.docker.process.isAlive { host.docker.start() }
            if host.daemon == nil { host.startPlugin() }
        }
        try await process.sleep(.seconds(130))
        try await checkLeases()
        for host in liveHosts { host.docker.stopAll() }
        for host in liveHosts { host.kernel.unmountByHand() }
        try await process.sleep(.seconds(130))
    }

    /// The lease of a volume that containers use comes back, whoever removed it.
    private func checkLeases() async throws {
        guard world.cloud.volumes.contains(where: { world.isDisturbed($0) }) else { return }
        try await process.sleep(.seconds(370))
        for host in liveHosts {
            for volume in world.cloud.volumes { checkLease(of: volume, on: host) }
        }
    }

    private func checkLease(of volume: LifeCloud.Volume, on host: LifeHost) {
        guard volume.tags[LifeCloud.lease] != world.cloud.instances[host.index].description,
            !host.tagsForbidden, !volume.isMultiAttach, host.isReadOnly(volume.index) != true,
            let since = host.daemon?.upSince, since + .seconds(360) < world.scheduler.now,
            let superBlock = host.kernel.mounts[volume.mountpoint], superBlock.device.isPresent,
            !superBlock.isShutDown, host.docker.hasRunning(superBlock),
            volume.attachment(on: host.index)?.isLeaving == false
        else { return }
        world.trace.broke(
            "the lease of a mounted volume comes back",
            "host \(host.index), volume \(volume.index)")
    }

    private func settle() async throws {
        try await process.sleep((world.plan.detachAfter ?? .zero) + .seconds(150))
    }

    /// Nothing is used, so nothing may be mounted, held or attached.
    private func checkSettled() {
        for host in liveHosts {
            for volume in world.cloud.volumes where !host.uncertain.contains(volume.index) {
                checkGivenBack(volume, by: host)
            }
        }
    }

    private func checkGivenBack(_ volume: LifeCloud.Volume, by host: LifeHost) {
        var what: String { "host \(host.index), volume \(volume.index)" }
        guard host.daemon?.isUp == true else {
            world.trace.broke("the daemon is up again", what)
            return
        }
        let isLingering = world.plan.detachAfter == nil
        if host.kernel.mounts[world.mountpoint(volume.index)] != nil {
            world.trace.broke("no mount is left without a count", what)
        }
        if host.forgotten.contains(volume.index) { return }
        if let attachment = volume.attachment(on: host.index), !isLingering,
            !isOpen(attachment, of: host)
        {
            world.trace.broke("no attachment is left", "\(what), \(attachment.state)")
        }
        if volume.attachment?.isByHand != true,
            volume.tags[LifeCloud.lease] == world.cloud.instances[host.index].description,
            !host.tagsForbidden, !volume.isDeleted, !isStray(volume)
        {
            world.trace.broke("no lease is left", what)
        }
    }

    /// Whether nobody can know that the plugin should end an attachment: somebody made it by hand,
    /// or the daemon was killed before it could record its request.
    private func isOpen(_ attachment: LifeCloud.Attachment, of host: LifeHost) -> Bool {
        if attachment.isByHand { return true }
        guard let killed = host.cutAttachments[attachment.volume.index] else { return false }
        return attachment.since <= killed + .milliseconds(100)
    }

    /// Whether somebody wrote its lease by hand, or it was written too late for anybody to know.
    private func isStray(_ volume: LifeCloud.Volume) -> Bool {
        volume.disturbedAt.map { $0 >= volume.leaseSince ?? $0 } ?? false
    }

    /// Without further faults, every volume that has a file system or may get one can be mounted.
    private func useEveryVolume() async throws {
        for volume in world.cloud.volumes {
            // A mount that docker itself has lost track of may stay.
            guard !liveHosts.contains(where: { $0.uncertain.contains(volume.index) }),
                let host = world.scheduler.random.pick(candidates(for: volume))
            else { continue }
            let world = world
            let index = volume.index
            host.docker.useOnce(volume.index) { isUsed in
                if !isUsed {
                    world.trace.broke(
                        "with faults over, every volume can be mounted again",
                        "host \(host.index), volume \(index)")
                }
            }
            // A volume that is still in transit occupies the only slot.
            try await process.sleep(world.plan.attachmentsMax == nil ? .seconds(5) : .seconds(150))
        }
        try await process.sleep(.seconds(500))
    }

    /// Who may have the volume; if nobody may take it, whoever still has it.
    private func candidates(for volume: LifeCloud.Volume) -> [LifeHost] {
        let free = liveHosts.filter {
            (world.plan.attachmentsMax == nil || !hasUnaccounted($0)) && isUsable(volume, by: $0)
        }
        guard let attachment = volume.attachment else { return free }
        let owner = world.hosts[attachment.host]
        // Without a device, only the person who made it can end it, by hand.
        if isOpen(attachment, of: owner), owner.kernel.device(of: volume) == nil { return [] }
        // Nobody else knows that its lease is stale.
        if isOpen(attachment, of: owner),
            volume.tags[LifeCloud.lease] == world.cloud.instances[owner.index].description
        {
            return free.filter { $0 === owner }
        }
        if isStray(volume) { return free.filter { $0.index == attachment.host } }
        return free.filter {
            $0.index == attachment.host || mayTake(volume, attachment, $0)
        }
    }

    private func mayTake(
        _ volume: LifeCloud.Volume, _ attachment: LifeCloud.Attachment, _ host: LifeHost
    ) -> Bool {
        switch world.plan.takeover.rawValue {
        case "always": return true
        case "never": return false
        case "if-released" where !world.cloud.isMarked(volume, on: attachment.host): return false
        default: return !host.tagsForbidden && !attachment.isByHand
        }
    }

    /// Whether a volume occupies a slot of the host that only a missing Unmount, or nothing at all,
    /// could free.
    private func hasUnaccounted(_ host: LifeHost) -> Bool {
        world.cloud.everything.contains {
            guard let attachment = $0.attachment(on: host.index) else { return false }
            return host.uncertain.contains($0.index) || host.forgotten.contains($0.index)
                || isOpen(attachment, of: host)
        }
    }

    private func isUsable(_ volume: LifeCloud.Volume, by host: LifeHost) -> Bool {
        if volume.isDeleted || volume.isMultiAttach { return false }
        if case .fileSystem = volume.content { return true }
        return volume.content == .blank && volume.snapshotID == nil && !volume.isPartitioned
            && !host.mayBeReadOnly(volume.index)
    }
}
