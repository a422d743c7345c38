import Agent
import Base
import Logging
import VolumeCore

/// One instance of a life: its kernel and disk, the runs of its daemon, and its dockerd.
final class LifeHost: @unchecked Sendable {
    /// One run of the daemon.
    final class Daemon: @unchecked Sendable {
        let process: SimulatedProcess
        let manager: VolumeManager
        /// False until the socket answers.
        var isUp = false
        /// The calls that it has not answered, by number.
        var calls: [Int: Call] = [:]

        init(process: SimulatedProcess, manager: VolumeManager) {
            self.process = process
            self.manager = manager
        }
    }

    /// A call on its way, as the world sees it.
    struct Call {
        var volume: Int
        var mountID: String?
        var isMount: Bool
        var hangUp: () -> Void
        var lose: () -> Void
    }

    let index: Int
    unowned let world: LifeWorld
    let kernel: LifeKernel
    private(set) lazy var docker = LifeDocker(host: self)
    private(set) var daemon: Daemon?
    /// The state file.
    var disk: [VolumeRecord] = []
    var diskOwner: StateOwner?
    /// The boot that its counts are of.
    var countsBoot: String?
    /// Volumes whose counts a crash of dockerd, or a call that it cut, has made a matter of chance.
    var uncertain: Set<Int> = []
    /// When dockerd had the answer to its last Unmount of a volume.
    var lastUnmounts: [Int: Instant] = [:]
    /// Volumes whose mounts somebody dropped from under the plugin, or their counts.
    var dropped: Set<Int> = []
    /// Volumes whose records were lost, until they are used again or EC2 tells of them.
    private(set) var forgotten: Set<Int> = []
    /// Whether devices are known by their names alone, as on Xen.
    let isXen: Bool
    /// Calls that the daemon's end cut, until its next start.
    private var lostCalls: [Call] = []
    /// Volumes whose Create was answered, and no Remove was sent since.
    private var known: Set<Int> = []
    private(set) var isTerminated = false
    private(set) var isRunning = true
    private(set) var bootedAt: Instant?

    init(index: Int, world: LifeWorld) {
        self.index = index
        self.world = world
        isXen = world.scheduler.random.chance(200)
        kernel = LifeKernel(host: index, world: world)
    }

    func created(_ volume: Int) { known.insert(volume) }
    func removing(_ volume: Int) { known.remove(volume) }
    func isCreated(_ volume: Int) -> Bool { known.contains(volume) }

    // MARK: The daemon

    func startPlugin() {
        guard isRunning, daemon == nil else { return }
        judgeLostCalls()
        let process = world.newProcess(isDaemon: true)
        let ports = LifePorts(host: self, process: process)
        let manager = VolumeManager(
            ports: ports.all,
            settings: VolumeManager.Settings(
                mountRoot: "/mnt", detachAfter: world.plan.detachAfter,
                takeover: world.fault == .takeoverIgnored ? .always : world.plan.takeover),
            executor: process,
            log: world.log(of: index, process))
        let daemon = Daemon(process: process, manager: manager)
        self.daemon = daemon
        process.spawn { [self] in
            do { try await manager.start() } catch {
                if process.isAlive {
                    world.scheduler.after(.zero) { [self] in killPlugin(thenAfter: .seconds(1)) }
                }
                return
            }
            guard process.isAlive else { return }
            daemon.isUp = true
            world.trace.note(.pluginUp, host: index)
            process.spawn {
                while process.isAlive {
                    do { return try await manager.learnAttachments() } catch {
                        try? await process.sleep(.seconds(1))
                    }
                }
            }
        }
    }

    /// Ends the daemon as kill -9 does. It is started again after a while, if one is given.
    func killPlugin(thenAfter pause: Duration?) {
        guard let daemon else { return }
        self.daemon = nil
        world.trace.note(.pluginDown, host: index)
        let calls = daemon.calls.sorted { $0.key < $1.key }.map(\.value)
        lostCalls += calls.filter { $0.mountID != nil }
        daemon.process.kill()
        for call in calls { call.lose() }
        if let pause {
            world.scheduler.after(pause) { [weak self] in self?.startPlugin() }
        }
    }

    /// Ends the daemon as SIGTERM does: nothing new is taken, and what runs is waited for a while.
    func endPlugin(thenAfter pause: Duration) {
        guard let daemon, daemon.isUp else { return }
        daemon.isUp = false
        world.trace.note(.pluginDown, host: index, 1)
        var isOver = false
        let end = { [self] in
            guard self.daemon === daemon, !isOver else { return }
            isOver = true
            killPlugin(thenAfter: pause)
        }
        daemon.process.afterJob = { [self] in
            if daemon.calls.isEmpty { world.scheduler.after(.zero, end) }
        }
        world.scheduler.after(daemon.calls.isEmpty ? .zero : Limit.stopTimeMax, end)
    }

    /// What torn state files cost: the records of what is not mounted, and what is attached without
    /// a lease is not known for the plugin's own any more; or the counts.
    func loseState(volumes: Bool, counts: Bool) {
        world.trace.note(.stateLost, host: index, (volumes ? 1 : 0) + (counts ? 2 : 0))
        if counts {
            for position in disk.indices { disk[position].mounts = MountCounts() }
            dropped.formUnion(0..<world.cloud.volumes.count)
        }
        guard volumes else { return }
        disk.removeAll { $0.mounts.isEmpty }
        let lost = world.cloud.volumes.filter { volume in
            !disk.contains { $0.id == volume.id }
        }
        for volume in lost {
            known.remove(volume.index)
            forgotten.insert(volume.index)
        }
    }

    /// Called once EC2 has told the daemon of a volume that is attached here. A lease that each look shows
    /// makes it known again; without one it may be anybody's.
    func told(of volume: LifeCloud.Volume) {
        if volume.tags[LifeCloud.lease] == world.cloud.instances[index].description,
            let since = volume.leaseSince, since + .seconds(15) < world.scheduler.now
        {
            forgotten.remove(volume.index)
        }
    }

    func used(_ volume: Int) { forgotten.remove(volume) }

    /// A call that was carried out and not answered leaves a count that is off by one, and nobody can
    /// know.
    private func judgeLostCalls() {
        for call in lostCalls {
            guard let id = call.mountID else { continue }
            let saved = savedCount(call.volume, id)
            let known = docker.acknowledged(call.volume, id)
            if call.isMount ? saved > known : saved < known { uncertain.insert(call.volume) }
        }
        lostCalls = []
    }

    private func savedCount(_ volume: Int, _ id: String) -> Int {
        let name = world.cloud.volumes[volume].id
        return disk.first { $0.id == name }?.mounts.counts[id] ?? 0
    }

    // MARK: The host

    /// Power goes away; the kernel's memory with it.
    func stop(terminated: Bool) {
        guard isRunning else { return }
        isRunning = false
        isTerminated = terminated
        world.trace.note(terminated ? .terminated : .stopped, host: index)
        killPlugin(thenAfter: nil)
        docker.kill()
        docker.loseContainers()
        kernel.reset()
        uncertain = []
        dropped = []
    }

    func boot() {
        guard !isRunning, !isTerminated else { return }
        isRunning = true
        bootedAt = world.scheduler.now
        world.cloud.states[index] = .running
        world.trace.note(.booted, host: index)
        world.cloud.instanceBooted(index)
        startPlugin()
        docker.start()
    }
}
