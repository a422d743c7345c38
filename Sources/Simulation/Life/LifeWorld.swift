import Base
import Logging
import VolumeCore

/// One life: hosts that share an EC2, docker's work on them, disasters, and then peace, after which
/// everything must be as if nothing had happened. One seed determines all of it.
package final class LifeWorld: @unchecked Sendable {
    let seed: UInt64
    let scheduler: Scheduler
    let trace: LifeTrace
    let plan: LifePlan
    let fault: PlantedFault?
    private(set) lazy var cloud = LifeCloud(world: self)
    private(set) var hosts: [LifeHost] = []
    /// Device names that other things use, on every host.
    var otherNames: [String] = []
    var times = LifeTimes()
    /// What Docker calls each volume, and the options that it is created with on every host.
    private(set) var names: [(name: String, options: [String: String])] = []
    /// Writes that containers were told are on disk, by volume.
    var acknowledgedWrites: [Int] = []
    private var processes: [SimulatedProcess] = []
    private var number = 0
    private let isTold: Bool
    /// The burst of calls that a host may make.
    private let callsAtOnce: Double
    private var callTokens: [Double] = []
    private var callTokensAt: [Instant] = []

    package init(seed: UInt64, fault: PlantedFault? = nil, isTold: Bool = false) {
        self.seed = seed
        self.fault = fault
        self.isTold = isTold
        callsAtOnce = 80
        scheduler = Scheduler(seed: seed)
        plan = LifePlan(&scheduler.random)
        trace = LifeTrace(scheduler: scheduler, isTold: isTold)
        if plan.namesAreScarce {
            let first = scheduler.random.below(DeviceNames.all.count - Self.scarceNames)
            let free = first..<first + Self.scarceNames
            otherNames = DeviceNames.all.enumerated().filter { !free.contains($0.offset) }
                .map(\.element)
        }
        for index in 0..<plan.volumes { addVolume(index) }
        let isReadOnly = scheduler.random.chance(200)
        names = cloud.volumes.map(name)
        for index in 0..<plan.hosts {
            guard let id = InstanceID("i-0000000\(index)") else { preconditionFailure() }
            let isXen = scheduler.random.chance(250)
            let tagsForbidden = plan.tagsForbidden || scheduler.random.chance(60)
            addHost(id, isXen: isXen, tagsForbidden: tagsForbidden)
            if isReadOnly { hosts[index].wantsReadOnly = [0] }
        }
    }

    /// A life that a test directs: it begins without hosts and volumes, and nothing happens by
    /// chance.
    init(detachAfter: Duration?, takeover: TakeoverPolicy) {
        seed = 0
        fault = nil
        isTold = false
        // A test may have a volume for each device name.
        callsAtOnce = 300
        scheduler = Scheduler(seed: seed)
        scheduler.isShuffled = false
        plan = LifePlan(detachAfter: detachAfter, takeover: takeover)
        trace = LifeTrace(scheduler: scheduler, isTold: isTold)
        cloud.faultsAreOn = false
    }

    @discardableResult
    func addHost(_ id: InstanceID, isXen: Bool = false, tagsForbidden: Bool = false) -> LifeHost {
        cloud.addInstance(id)
        let host = LifeHost(
            index: hosts.count, world: self, isXen: isXen, tagsForbidden: tagsForbidden)
        hosts.append(host)
        callTokens.append(callsAtOnce)
        callTokensAt.append(scheduler.now)
        return host
    }

    /// How many names are free if names are scarce: as many as there may be volumes, and some for
    /// volumes that move between hosts.
    private static let scarceNames = 6

    private func addVolume(_ index: Int) {
        guard let id = VolumeID("vol-0000000\(index)") else { preconditionFailure() }
        let xfs = DeviceContent.fileSystem(type: "xfs", label: nil, uuid: nil)
        let content =
            scheduler.random.pick([
                xfs, xfs, .blank, .blank, .blank, .unknownData, .signature("crypto_LUKS"),
            ]) ?? .blank
        let snapshot = scheduler.random.chance(150) ? "snap-1" : nil
        cloud.addVolume(
            id, type: scheduler.random.chance(150) ? "io1" : "gp3", snapshotID: snapshot,
            content: content, isPartitioned: scheduler.random.chance(100),
            isSmall: scheduler.random.chance(300))
        acknowledgedWrites.append(0)
    }

    private func name(of volume: LifeCloud.Volume) -> (name: String, options: [String: String]) {
        var options: [String: String] = [:]
        if scheduler.random.chance(100) { options["uid"] = "1000" }
        if volume.isPartitioned { options["partition"] = "1" }
        guard scheduler.random.chance(200) else { return (volume.id.description, options) }
        options["volume-id"] = volume.id.description
        return ("data-\(volume.index)", options)
    }

    // MARK: What the parts ask of the world

    func nextNumber() -> Int {
        number += 1
        return number
    }

    func newProcess(isDaemon: Bool = false) -> SimulatedProcess {
        let process = SimulatedProcess(
            number: nextNumber(), scheduler: scheduler, isDaemon: isDaemon)
        processes.append(process)
        return process
    }

    func mountpoint(_ volume: Int) -> String { cloud.volumes[volume].mountpoint }

    func log(of host: Int, _ process: SimulatedProcess) -> Logger {
        guard isTold else { return Self.silent }
        let trace = trace
        return Logger(label: "life") { _ in TraceLog(trace: trace, host: host, process: process) }
    }

    private static let silent = Logger(label: "life") { _ in SwiftLogNoOpLogHandler() }

    /// Takes one call from a host's budget; false when there is none left.
    func takeCallToken(of host: Int) -> Bool {
        let elapsed = (scheduler.now - callTokensAt[host]).milliseconds / 1000
        callTokensAt[host] = scheduler.now
        callTokens[host] =
            min(
                callsAtOnce, callTokens[host] + elapsed * Self.callsPerSecond) - 1
        return callTokens[host] >= 0
    }

    // MARK: Playing

    /// Runs the life to its end. Nil if no invariant broke.
    package func play() -> LifeFailure? {
        for host in hosts {
            host.startPlugin()
            host.docker.start()
        }
        for _ in 0..<plan.disasters {
            scheduler.after(scheduler.random.duration(500...240_000)) { [self] in disaster() }
        }
        let director = newProcess()
        let script = LifeScript(world: self, process: director)
        director.spawn { await script.direct() }
        while trace.broken == nil, !script.isOver {
            if !scheduler.step() {
                trace.broke("nothing waits for what never comes", "and no timer is set")
            }
            if scheduler.stepsOfInstant > 20_000 {
                trace.broke("nothing runs in circles", "\(scheduler.stepsOfInstant) steps at once")
            }
        }
        let broken = trace.broken
        end()
        guard let broken else { return nil }
        return LifeFailure(
            seed: seed, invariant: broken.invariant, detail: broken.detail,
            events: trace.lines(last: 60))
    }

    /// Ends every process, and frees what holds the life and is held by it: daemons and timers.
    func end() {
        for process in processes { process.kill() }
        for host in hosts { host.dropDaemon() }
        scheduler.dropTimers()
    }

    /// Runs a directed life until `body` has returned on that process, and until nothing is left to
    /// do at that instant. Traps if `body` waits for what never comes, or runs in circles.
    func run<T: Sendable>(
        on process: SimulatedProcess, _ body: @escaping @Sendable () async throws -> T
    ) throws -> T {
        let outcome = Outcome<T>()
        process.spawn {
            do { outcome.result = .success(try await body()) } catch {
                outcome.result = .failure(error)
            }
        }
        var steps = 0
        while outcome.result == nil || scheduler.isBusy {
            precondition(scheduler.step(), "the life waits for what never comes")
            steps += 1
            precondition(steps < Self.stepsMax, "the life runs in circles")
        }
        guard let result = outcome.result else { preconditionFailure() }
        return try result.get()
    }

    /// More than a directed life needs for a week.
    private static let stepsMax = 2_000_000

    private final class Outcome<T>: @unchecked Sendable {
        var result: Result<T, any Error>?
    }

    /// Everything that happened, in a replayed life.
    package var story: [String] { trace.lines(last: .max) }

    package var digest: UInt64 { scheduler.digest }

    package var taskSwitches: Int { scheduler.taskSwitches }

    private func disaster() {
        guard cloud.faultsAreOn, let host = scheduler.random.pick(hosts), host.isRunning,
            cloud.states[host.index] == .running
        else { return }
        switch scheduler.random.below(29) {
        case 0...4: crashSoon(host)
        case 5: host.killPlugin(thenAfter: scheduler.random.duration(200...9000))
        case 6:
            host.docker.kill()
            scheduler.after(scheduler.random.duration(500...5000)) {
                if host.isRunning { host.docker.start() }
            }
        case 7:
            host.docker.kill()
            host.docker.endContainers()
            host.killPlugin(thenAfter: .seconds(1))
            scheduler.after(.seconds(2)) { if host.isRunning { host.docker.start() } }
        case 8: powerCycle(host)
        case 9: stopInstance(host)
        case 10: disableByForce(host)
        case 11: host.endPlugin(thenAfter: scheduler.random.duration(200...4000))
        case 12: loseState(host)
        case 13: flap()
        case 14: delete()
        case 15: changeTags()
        case 16: changeTags()
        case 17: attachByHand(to: host)
        case 18: unmountByHand(on: host)
        case 19: host.kernel.shutDownOne()
        case 21: hibernate(host)
        case 22: cloud.unknownUntil[host.index] = scheduler.now + .seconds(60)
        case 23: makeImage(host)
        case 24, 26, 27, 28: for host in hosts where host.isRunning { replace(on: host) }
        case 25: hang(on: host)
        case 20: scheduler.random.pick(cloud.volumes).map(cloud.enableMultiAttach)
        default: outsideDetach()
        }
    }

    /// Kills the daemon after a number of its jobs, that is, at any of its awaits.
    private func crashSoon(_ host: LifeHost) {
        guard let process = host.daemon?.process else { return }
        var left = 1 + scheduler.random.below(60)
        let pause = scheduler.random.duration(200...4000)
        process.afterJob = { [self] in
            guard cloud.faultsAreOn else { return }
            left -= 1
            if left == 0 { host.killPlugin(thenAfter: pause) }
        }
    }

    private func powerCycle(_ host: LifeHost) {
        host.stop(terminated: false)
        scheduler.after(.seconds(20)) { host.boot() }
    }

    /// It keeps running for a while after EC2 begins to stop it.
    private func stopInstance(_ host: LifeHost) {
        let alive = hosts.indices.count { cloud.states[$0] == .running }
        let isTerminated = alive > 1 && scheduler.random.chance(300)
        cloud.states[host.index] = isTerminated ? .shuttingDown : .stopping
        scheduler.after(scheduler.random.duration(0...12_000)) {
            host.stop(terminated: isTerminated)
        }
        scheduler.after(.seconds(15)) { [self] in
            guard !host.isRunning else { return }
            cloud.states[host.index] = isTerminated ? .terminated : .stopped
            if isTerminated { cloud.instanceEnded(host.index) }
        }
        if !isTerminated {
            scheduler.after(scheduler.random.duration(28_000...50_000)) { host.boot() }
        }
        wantElsewhere(whatIsOn: host)
    }

    /// Containers of a host that goes down may be started on another one.
    private func wantElsewhere(whatIsOn host: LifeHost) {
        let other = scheduler.random.pick(hosts.filter { $0 !== host })
        let volume = scheduler.random.pick(
            cloud.volumes.filter { $0.attachment(on: host.index) != nil })
        guard let other, let volume else { return }
        scheduler.after(scheduler.random.duration(0...15_000)) {
            other.docker.runSoon(volume.index)
        }
    }

    private func hibernate(_ host: LifeHost) {
        cloud.states[host.index] = .stopping
        cloud.isHibernated.insert(host.index)
        wantElsewhere(whatIsOn: host)
        host.freeze()
        scheduler.after(.seconds(15)) { [self] in
            if host.isFrozen { cloud.states[host.index] = .stopped }
        }
        scheduler.after(scheduler.random.duration(30_000...90_000)) { host.thaw() }
    }

    /// A host with nothing attached is recreated from an image of another running host.
    private func makeImage(_ host: LifeHost) {
        guard cloud.everything.allSatisfy({ $0.attachment(on: host.index) == nil }),
            let other = scheduler.random.pick(hosts.filter { $0 !== host && !$0.disk.isEmpty })
        else { return }
        host.becomeImage(of: other)
        scheduler.after(.seconds(20)) { host.boot() }
    }

    /// A volume is impaired for minutes.
    private func hang(on host: LifeHost) {
        guard let volume = scheduler.random.pick(cloud.volumes) else { return }
        host.kernel.makeHang(volume, for: scheduler.random.duration(20_000...240_000))
    }

    /// If only its name identifies a device, another one gets this name.
    private func replace(on host: LifeHost) {
        let unheld = cloud.volumes.filter {
            $0.attachment(on: host.index) != nil && !host.kernel.isHeld($0)
                && !host.mayBeMounting($0.index)
        }
        guard host.isXen, let volume = scheduler.random.pick(unheld) else { return }
        cloud.replace(volume, on: host.index)
        scheduler.after(scheduler.random.duration(0...4000)) { host.docker.runSoon(volume.index) }
    }

    /// docker plugin disable --force, and enable: the plugin's mounts disappear, the containers'
    /// stay.
    private func disableByForce(_ host: LifeHost) {
        host.killPlugin(thenAfter: scheduler.random.duration(1000...5000))
        host.kernel.dropMounts()
        host.dropped.formUnion(0..<cloud.volumes.count)
    }

    /// The daemon is killed, and finds its state files torn, one or both, when it starts again.
    private func loseState(_ host: LifeHost) {
        host.killPlugin(thenAfter: scheduler.random.duration(200...4000))
        host.loseState(volumes: scheduler.random.chance(700), counts: scheduler.random.chance(500))
    }

    /// A device disappears, and reappears with another number.
    private func flap() { scheduler.random.pick(cloud.volumes).map(flap) }

    func flap(_ volume: LifeCloud.Volume) {
        guard let attachment = volume.attachment else { return }
        hosts[attachment.host].kernel.unplug(volume)
        scheduler.after(scheduler.random.duration(1...2000)) { [self] in
            guard volume.attachment(on: attachment.host) === attachment, !attachment.isLeaving,
                hosts[attachment.host].isRunning
            else { return }
            hosts[attachment.host].kernel.plug(volume)
        }
    }

    /// Somebody deletes a volume, which EC2 allows if it is not attached.
    private func delete() {
        guard let volume = scheduler.random.pick(cloud.volumes) else { return }
        cloud.delete(volume)
    }

    /// Somebody changes a volume's tags: another tool manages them, or they are a copy of another
    /// volume's.
    private func changeTags() {
        guard let volume = scheduler.random.pick(cloud.volumes),
            let instance = scheduler.random.pick(cloud.instances)
        else { return }
        let kind = scheduler.random.below(4)
        cloud.changeTagsByHand(of: volume) { tags in
            switch kind {
            case 0, 1: tags = [:]
            case 2: tags[LifeCloud.lease] = instance.description
            default:
                tags = [
                    LifeCloud.lease: instance.description,
                    LifeCloud.mark: "\(instance) vol-20000000 \(volume.attachment?.name ?? "")",
                ]
            }
        }
        for host in hosts { host.noteUnmarked(volume) }
    }

    /// Somebody attaches a free volume, and possibly mounts it at another place than the plugin.
    private func attachByHand(to host: LifeHost) {
        if let lingering = scheduler.random.pick(
            cloud.volumes.filter { $0.attachment(on: host.index) != nil }),
            scheduler.random.chance(500)
        {
            return host.kernel.mountByHand(lingering)
        }
        guard let volume = scheduler.random.pick(cloud.volumes.filter(\.attachments.isEmpty)),
            let name = scheduler.random.pick(
                scheduler.random.chance(500) ? ["/dev/sdb", "/dev/sdc"] : DeviceNames.all)
        else { return }
        let isMounted = scheduler.random.chance(500)
        trace.note(.byHand, host: host.index, volume: volume.index, 0, name)
        _ = cloud.attach(volume, to: host.index, as: name, byHand: true)
        guard isMounted else { return }
        scheduler.after(.seconds(4)) { host.kernel.mountByHand(volume) }
    }

    /// Somebody unmounts in the plugin's mount namespace.
    private func unmountByHand(on host: LifeHost) {
        guard let volume = scheduler.random.pick(cloud.volumes),
            host.kernel.unmountByHand(volume)
        else { return }
        trace.note(.byHand, host: host.index, volume: volume.index, 1)
        host.dropped.insert(volume.index)
    }

    /// Somebody detaches a volume by hand.
    private func outsideDetach() {
        guard let volume = scheduler.random.pick(cloud.volumes), let attachment = volume.attachment
        else { return }
        let isForced = scheduler.random.chance(300)
        trace.note(.fault, host: attachment.host, volume: volume.index, isForced ? 1 : 0)
        _ = cloud.detach(volume, from: attachment.host, force: isForced, by: nil)
    }
}

/// Writes the daemon's log into the trace.
private struct TraceLog: LogHandler {
    let trace: LifeTrace
    let host: Int
    let process: SimulatedProcess
    var logLevel = Logger.Level.debug
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        guard process.isAlive else { return }
        let facts = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map {
            "\($0.key)=\($0.value)"
        }
        trace.tell(host: host, "\(event.message) \(facts.joined(separator: " "))")
    }
}
