import Base
import VolumeCore

/// The course of a life: work and disasters, peace, and the looks at what is left.
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

    /// No new work and no more faults; whatever is down comes up.
    private func makePeace() async throws {
        world.trace.note(.settle)
        world.cloud.faultsAreOn = false
        for host in world.hosts {
            host.docker.isClosing = true
            host.boot()
        }
        try await process.sleep(.seconds(130))
        for host in liveHosts {
            if !host.docker.process.isAlive { host.docker.start() }
            if host.daemon == nil { host.startPlugin() }
        }
        try await process.sleep(.seconds(130))
        for host in liveHosts { host.docker.stopAll() }
        try await process.sleep(.seconds(130))
    }

    private func settle() async throws {
        try await process.sleep((world.plan.detachAfter ?? .zero) + .seconds(150))
    }

    /// Nothing is used: so nothing is mounted, nothing is held, and nothing stays attached.
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
        if let attachment = volume.attachment, attachment.host == host.index, !isLingering {
            world.trace.broke("no attachment is left", "\(what), \(attachment.state)")
        }
        if volume.tags[LifeCloud.lease] == world.cloud.instances[host.index].description,
            !host.tagsForbidden, !volume.isDeleted, !isStray(volume)
        {
            world.trace.broke("no lease is left", what)
        }
    }

    /// Whether its lease came by somebody's hand, or too late for anybody to know.
    private func isStray(_ volume: LifeCloud.Volume) -> Bool {
        volume.disturbedAt.map { $0 >= volume.leaseSince ?? $0 } ?? false
    }

    /// With faults over, every volume that has a file system or may get one can be mounted.
    private func useEveryVolume() async throws {
        for volume in world.cloud.volumes where isUsable(volume) {
            // What docker itself has lost count of may stay mounted where it is.
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
            // One that is still on its way has the only place.
            try await process.sleep(world.plan.attachmentsMax == nil ? .seconds(5) : .seconds(150))
        }
        try await process.sleep(.seconds(500))
    }

    /// Who may have the volume: with takeover `never`, whoever has it still.
    private func candidates(for volume: LifeCloud.Volume) -> [LifeHost] {
        let free = liveHosts.filter { world.plan.attachmentsMax == nil || !hasUnaccounted($0) }
        guard world.plan.takeover == .never, let attachment = volume.attachment else {
            return free
        }
        return free.filter { $0.index == attachment.host }
    }

    /// Whether a volume takes up a place of the host's that only docker's owed Unmount, or nobody any
    /// more, would free.
    private func hasUnaccounted(_ host: LifeHost) -> Bool {
        world.cloud.volumes.contains {
            $0.attachment?.host == host.index
                && (host.uncertain.contains($0.index) || host.forgotten.contains($0.index))
        }
    }

    private func isUsable(_ volume: LifeCloud.Volume) -> Bool {
        if volume.isDeleted { return false }
        if case .fileSystem = volume.content { return true }
        return volume.content == .blank && volume.snapshotID == nil && !volume.isPartitioned
            && world.readOnlyVolume != volume.index
    }
}
