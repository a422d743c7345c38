import Agent
import Base

/// Why a call of dockerd to the plugin has no response.
enum CallFailure: Error {
    /// Nobody listens. dockerd retries for a while.
    case noConnection
    /// The connection broke before the response. dockerd's retry has an empty body, so it is not a
    /// valid call.
    case lost
    /// dockerd's own timeout passed: it hung up.
    case cut
}

/// The dockerd of one host: its containers, and the calls to the plugin that it makes for them.
final class LifeDocker: @unchecked Sendable {
    final class Container: @unchecked Sendable {
        let volume: Int
        let number: Int
        var mountID = ""
        /// Its own reference to the mount, while it runs.
        var superBlock: LifeKernel.SuperBlock?
        /// An operation on it is in progress.
        var isBusy = false
        /// The plugin has received its Mount but not its Unmount.
        var isCounted = false

        init(volume: Int, number: Int) {
            self.volume = volume
            self.number = number
        }

        var isRunning: Bool { superBlock != nil }
    }

    unowned let host: LifeHost
    private(set) var process: SimulatedProcess
    private(set) var containers: [Container] = []
    /// The mounts that dockerd knows of: volume, ID, count.
    private(set) var ledger: [Int: [String: Int]] = [:]
    private var operationsLeft: Int
    private var running = 0
    private var nextNumber = 0
    /// Volumes whose Create or Remove is in progress, and those that wait for its end: dockerd
    /// locks the name during these calls.
    private var locked: [Int: [SimulatedProcess.Reply<Bool>]] = [:]
    /// Settling has begun: no new work.
    var isClosing = false

    private var world: LifeWorld { host.world }
    private let scheduler: Scheduler
    private let trace: LifeTrace
    private let callTimeout: Duration

    init(host: LifeHost) {
        self.host = host
        let world = host.world
        scheduler = world.scheduler
        trace = world.trace
        callTimeout = world.plan.callTimeout
        process = world.newProcess()
        operationsLeft = world.plan.operations
    }

    func acknowledged(_ volume: Int, _ id: String) -> Int { ledger[volume]?[id] ?? 0 }

    /// Whether nothing is in progress or planned.
    var isDone: Bool { (operationsLeft == 0 || isClosing) && running == 0 }

    /// Whether a container uses this very mount.
    func hasRunning(_ superBlock: LifeKernel.SuperBlock) -> Bool {
        containers.contains { $0.superBlock === superBlock && $0.isCounted }
    }

    // MARK: Life of dockerd

    func start() {
        if !process.isAlive { process = world.newProcess() }
        trace.note(.dockerUp, host: host.index)
        spawn { [self] in await workload() }
        for container in containers where container.isCounted && !container.isRunning {
            // Its Unmount may not have arrived.
            spawn { [self] in await release(container) }
        }
    }

    /// dockerd ends at once; containers and plugin keep running.
    func kill() {
        guard process.isAlive else { return }
        trace.note(.dockerDown, host: host.index)
        for (volume, ids) in ledger {
            // A container whose Unmount is in transit no longer counts.
            for (id, count) in ids
            where count > containers.count(where: { $0.mountID == id && $0.isCounted }) {
                host.uncertain.insert(volume)
            }
        }
        running = 0
        locked = [:]
        process.kill()
        for call in host.daemon?.calls.sorted(by: { $0.key < $1.key }) ?? [] {
            if call.value.mountID != nil, !call.value.isMount {
                host.uncertain.insert(call.value.volume)
            }
            call.value.hangUp()
        }
        for container in containers { container.isBusy = false }
        containers.removeAll { !$0.isCounted }
    }

    /// What happens to the containers after dockerd was killed without live-restore: they end, and
    /// their IDs get no Unmount.
    func endContainers() {
        for container in containers {
            if container.isCounted { host.uncertain.insert(container.volume) }
            if let superBlock = container.superBlock { host.kernel.release(superBlock) }
            container.superBlock = nil
        }
    }

    /// The host went down.
    func loseContainers() {
        containers = []
        ledger = [:]
        running = 0
    }

    private func spawn(_ body: @escaping @Sendable () async -> Void) {
        running += 1
        let process = process
        Task(executorPreference: process) { [self] in
            await body()
            if process.isAlive { running -= 1 }
        }
    }

    // MARK: Calls

    /// One call, sent again as dockerd does when the connection fails.
    private func call<T: Sendable>(
        _ volume: Int, id: String? = nil, isMount: Bool = false, bound: Duration,
        _ body: @escaping @Sendable (isolated VolumeManager) async throws -> T
    ) async throws -> T {
        let giveUp = scheduler.now + .seconds(30)
        var pause = Duration.seconds(1)
        while true {
            do {
                return try await callOnce(volume, id: id, isMount: isMount, bound: bound, body)
            } catch CallFailure.noConnection {
                guard scheduler.now + pause < giveUp else { throw CallFailure.noConnection }
                try await process.sleep(pause)
                pause *= 2
            }
        }
    }

    private func callOnce<T: Sendable>(
        _ volume: Int, id: String?, isMount: Bool, bound: Duration,
        _ body: @escaping @Sendable (isolated VolumeManager) async throws -> T
    ) async throws -> T {
        guard let daemon = host.daemon, daemon.isUp else { throw CallFailure.noConnection }
        let manager = daemon.manager
        let number = world.nextNumber()
        let (name, fault) = (name(volume), world.fault)
        return try await process.wait { reply in
            let task = Task(executorPreference: daemon.process) {
                await manager.answer(body) { volumes, result in
                    guard daemon.process.isAlive else { return }
                    daemon.calls[number] = nil
                    if isMount, let id, case .success = result {
                        let isSent = reply.isAwaited || fault == .cutCallCounted
                        if !isSent { self.host.noteUnsentMount(of: volume, id: id) }
                        volumes.noteAnswer(to: id, of: name, isSent: isSent)
                    }
                    reply.end(result)
                }
            }
            daemon.calls[number] = LifeHost.Call(
                volume: volume, mountID: id, isMount: isMount, hangUp: { task.cancel() },
                lose: { reply.fail(CallFailure.lost) })
            if isMount { cutSoon(daemon, task, reply, volume) }
            scheduler.after(bound) { [self] in
                guard reply.isAwaited else { return }
                if world.fault != .cutCallCounted { task.cancel() }
                trace.note(.cut, host: host.index, volume: volume)
                if bound >= .seconds(60), !host.wasFrozen(since: scheduler.now + (.zero - bound)) {
                    trace.broke(
                        "every call is answered within its deadline",
                        "host \(host.index), volume \(volume), after \(bound)")
                }
                reply.fail(CallFailure.cut)
            }
        }
    }

    /// Hangs up after a number of the daemon's jobs, that is, at any of its awaits.
    private func cutSoon<T: Sendable>(
        _ daemon: LifeHost.Daemon, _ task: Task<Void, Never>, _ reply: SimulatedProcess.Reply<T>,
        _ volume: Int
    ) {
        guard world.cloud.faultsAreOn, scheduler.random.chance(world.plan.cuts) else { return }
        daemon.process.after(jobs: 1 + scheduler.random.below(40)) { [self] in
            guard reply.isAwaited else { return }
            if world.fault != .cutCallCounted { task.cancel() }
            trace.note(.cut, host: host.index, volume: volume)
            reply.fail(CallFailure.cut)
        }
    }

    private func name(_ volume: Int) -> String { world.names[volume].name }

    private func lock(_ volume: Int) async throws {
        while locked[volume] != nil {
            let _: Bool = try await process.wait { locked[volume]?.append($0) }
        }
        locked[volume] = []
    }

    private func unlock(_ volume: Int) {
        for waiter in locked.removeValue(forKey: volume) ?? [] { waiter.succeed(true) }
    }

    /// docker volume create, if Get does not know the volume.
    private func ensure(_ volume: Int) async throws {
        let process = process
        try await lock(volume)
        defer { if process.isAlive { unlock(volume) } }
        let name = name(volume)
        let start = scheduler.now
        do {
            _ = try await call(volume, bound: callTimeout) {
                try $0.get(name)
            }
            return
        } catch let failure as CallFailure { throw failure } catch {
            if scheduler.now > start, host.daemon == nil { throw error }
        }
        var options = world.names[volume].options
        let isReadOnly = host.wantsReadOnly.contains(volume)
        if isReadOnly { options["read-only"] = "true" }
        let removals = host.removals(of: volume)
        host.creating(volume, readOnly: isReadOnly)
        try await call(volume, bound: callTimeout) {
            [options] in try await $0.create(name, options: options)
        }
        trace.note(.create, host: host.index, volume: volume, 0, isReadOnly ? "read-only" : "")
        host.created(volume, since: removals, readOnly: isReadOnly)
    }

    private func mount(_ volume: Int, _ id: String) async throws {
        let name = name(volume)
        trace.note(.mount, host: host.index, volume: volume, 0, id)
        let sentAt = scheduler.now
        if world.cloud.volumes[volume].attachment.map({ $0.host != host.index }) == true {
            meetRival(volume, 1850...2050)
        }
        do {
            if world.fault == .countsAreASet, acknowledged(volume, id) > 0 {
                ledger[volume, default: [:]][id, default: 0] += 1
                return
            }
            let path = try await call(
                volume, id: id, isMount: true, bound: callTimeout
            ) { try await $0.mount(name, id: id) }
            ledger[volume, default: [:]][id, default: 0] += 1
            trace.note(.mounted, host: host.index, volume: volume, 0, id)
            host.used(volume)
            meetRival(volume, 100...2500)
            world.checkMountAnswer(of: volume, on: host.index, at: path, sentAt: sentAt)
        } catch {
            trace.note(.refused, host: host.index, volume: volume, 0, "\(error)")
            world.checkRefusal(error, of: volume, on: host.index)
            throw error
        }
    }

    /// Makes another host request the volume a little later.
    private func meetRival(_ volume: Int, _ pause: ClosedRange<Int>) {
        guard !isClosing, scheduler.random.chance(world.plan.rivals),
            let rival = scheduler.random.pick(world.hosts.filter { $0 !== host })
        else { return }
        scheduler.after(scheduler.random.duration(pause)) { rival.docker.runSoon(volume) }
    }

    /// Starts a container that uses the volume.
    func runSoon(_ volume: Int) {
        guard process.isAlive, !process.isFrozen, !isClosing, host.isRunning, containers.count < 4,
            operationsLeft > 0
        else { return }
        operationsLeft -= 1
        spawn { [self] in _ = await run(volume, tries: 1) }
    }

    private func unmount(_ volume: Int, _ id: String) async {
        let name = name(volume)
        trace.note(.unmount, host: host.index, volume: volume, 0, id)
        var sent = id
        if world.fault == .unmountTakesAny, let any = ledger[volume]?.keys.sorted().first {
            sent = any
        }
        do {
            let id = sent
            try await call(volume, id: id, bound: .seconds(60)) {
                try await $0.unmount(name, id: id)
            }
            trace.note(.unmounted, host: host.index, volume: volume, 0, id)
            host.lastUnmounts[volume] = scheduler.now
        } catch is CallFailure {
            host.uncertain.insert(volume)
        } catch is ProcessEnded {
            return
        } catch {
            trace.note(.refused, host: host.index, volume: volume, 0, "\(error)")
        }
        let count = acknowledged(volume, id)
        ledger[volume]?[id] = count > 1 ? count - 1 : nil
    }

    // MARK: Containers

    private func newID() -> String { "id\(world.nextNumber())" }

    /// Creates a container and starts it, again if that fails.
    private func run(_ volume: Int, tries: Int) async -> Container? {
        let container = Container(volume: volume, number: nextNumber)
        nextNumber += 1
        container.isBusy = true
        containers.append(container)
        defer { container.isBusy = false }
        var isCut = false
        for attempt in 0..<tries {
            do {
                if attempt > 0 { try await process.sleep(.seconds(5)) }
                // Its user may create it anew, otherwise.
                if isCut, scheduler.random.chance(300) { await remove(volume, changing: 600) }
                isCut = false
                try await ensure(volume)
                if scheduler.random.chance(400) {
                    let id = newID()
                    try await mount(volume, id)
                    await unmount(volume, id)
                    try await pauseBeforeStart()
                }
                try await begin(container)
                return container
            } catch is ProcessEnded { return nil } catch CallFailure.cut {
                host.cut(volume)
                isCut = true
            } catch {}
        }
        containers.removeAll { $0 === container }
        return nil
    }

    /// The time from the copy-up to the start: none, or about when the lease of an unused volume is
    /// dropped.
    private func pauseBeforeStart() async throws {
        switch scheduler.random.below(4) {
        case 0: try await process.sleep(scheduler.random.duration(1...80))
        case 1: try await process.sleep(scheduler.random.duration(1950...2080))
        default: break
        }
    }

    private func begin(_ container: Container) async throws {
        container.mountID = newID()
        try await mount(container.volume, container.mountID)
        container.isCounted = true
        container.superBlock = host.kernel.hold(world.mountpoint(container.volume))
        trace.note(.containerUp, host: host.index, volume: container.volume)
        write(container)
    }

    private func write(_ container: Container) {
        guard let superBlock = container.superBlock else { return }
        let isDone = host.kernel.write(superBlock)
        trace.note(isDone ? .write : .writeFailed, host: host.index, volume: container.volume)
        if isDone { world.acknowledgedWrites[superBlock.device.volume.index] += 1 }
    }

    private func stop(_ container: Container) async {
        container.isBusy = true
        defer { container.isBusy = false }
        write(container)
        if let superBlock = container.superBlock { host.kernel.release(superBlock) }
        container.superBlock = nil
        trace.note(.containerDown, host: host.index, volume: container.volume)
        await release(container)
    }

    private func release(_ container: Container) async {
        container.isBusy = true
        defer { container.isBusy = false }
        if container.isCounted {
            container.isCounted = false
            await unmount(container.volume, container.mountID)
        }
    }

    /// docker cp: the running container's ID once more.
    private func copy(_ container: Container) async {
        container.isBusy = true
        defer { container.isBusy = false }
        let id = container.mountID
        guard (try? await mount(container.volume, id)) != nil else { return }
        if scheduler.random.chance(500) {
            try? await process.sleep(scheduler.random.duration(1...5000))
        }
        await unmount(container.volume, id)
    }

    // MARK: The workload

    private func workload() async {
        while operationsLeft > 0, !isClosing {
            let pause =
                scheduler.random.chance(300)
                ? scheduler.random.duration(0...50) : scheduler.random.duration(100...20_000)
            do { try await process.sleep(pause) } catch { return }
            guard !isClosing else { return }
            operationsLeft -= 1
            spawn { [self] in await operate() }
        }
    }

    private func operate() async {
        let idle = containers.filter { !$0.isBusy }
        let container = scheduler.random.pick(idle)
        switch scheduler.random.below(10) {
        case 0...3:
            guard containers.count < 4 else { return }
            _ = await run(
                scheduler.random.below(world.cloud.volumes.count),
                tries: 1 + scheduler.random.below(3))
        case 4...6:
            guard let container else { return }
            if container.isRunning {
                await stop(container)
                if scheduler.random.chance(700) { containers.removeAll { $0 === container } }
            } else {
                container.isBusy = true
                try? await begin(container)
                container.isBusy = false
            }
        case 7:
            if let container, container.isRunning { await copy(container) }
        case 8:
            if let container { write(container) }
        default:
            let volume = scheduler.random.below(world.cloud.volumes.count)
            if containers.contains(where: { $0.volume == volume }) {
                _ = try? await call(volume, bound: callTimeout) { $0.list() }
            } else {
                await remove(volume)
            }
        }
    }

    /// - Parameter changing: how many of a thousand are created with other options next.
    private func remove(_ volume: Int, changing: Int = 200) async {
        let name = name(volume)
        let process = process
        guard (try? await lock(volume)) != nil else { return }
        defer { if process.isAlive { unlock(volume) } }
        try? await call(volume, bound: callTimeout) { [host, trace] in
            trace.note(.remove, host: host.index, volume: volume)
            host.removing(volume, changing: changing)
            try await $0.remove(name)
        }
    }

    // MARK: The end

    /// Stops every container. Called once the workload is done.
    func stopAll() {
        for container in containers {
            spawn { [self] in
                if container.isRunning { await stop(container) } else { await release(container) }
                containers.removeAll { $0 === container }
            }
        }
    }

    /// Mounts a volume once more, writes to it and unmounts it. True if that succeeded.
    func useOnce(_ volume: Int, _ done: @escaping @Sendable (Bool) -> Void) {
        spawn { [self] in
            let container = await run(volume, tries: 4)
            if let container {
                await stop(container)
                containers.removeAll { $0 === container }
            }
            done(container != nil)
        }
    }
}

extension VolumeManager {
    /// Executes a call on the manager's actor and completes it there, as the plugin's thread does.
    fileprivate func answer<T: Sendable>(
        _ call: @Sendable (isolated VolumeManager) async throws -> T,
        _ end: @Sendable (isolated VolumeManager, Result<T, any Error>) -> Void
    ) async {
        do { end(self, .success(try await call(self))) } catch { end(self, .failure(error)) }
    }
}
