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
    /// Volumes whose counts a crash of dockerd, or a call that it cut, has made a matter of chance.
    var uncertain: Set<Int> = []
    /// When dockerd had the answer to its last Unmount of a volume.
    var lastUnmounts: [Int: Instant] = [:]
    /// Volumes whose mounts somebody dropped from under the plugin.
    var dropped: Set<Int> = []
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
        kernel = LifeKernel(host: index, world: world)
    }

    func created(_ volume: Int) { known.insert(volume) }
    func removing(_ volume: Int) { known.remove(volume) }
    func isCreated(_ volume: Int) -> Bool { known.contains(volume) }

    // MARK: The daemon

    func startPlugin() {
        guard isRunning, daemon == nil else { return }
        judgeLostCalls()
        let process = world.newProcess()
        let ports = LifePorts(host: self, process: process)
        let manager = VolumeManager(
            ports: ports.all,
            settings: VolumeManager.Settings(
                mountRoot: "/mnt", detachAfter: world.plan.detachAfter),
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
