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
        /// Nil until the socket answers.
        var upSince: Instant?
        var isUp = false
        /// The calls that it has not answered, by number.
        var calls: [Int: Call] = [:]

        init(process: SimulatedProcess, manager: VolumeManager) {
            self.process = process
            self.manager = manager
        }
    }

    /// A call in transit, as the world sees it.
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
    /// Volumes whose counts have become random after a crash of dockerd or an abandoned call.
    var uncertain: Set<Int> = []
    /// When dockerd had the answer to its last Unmount of a volume.
    var lastUnmounts: [Int: Instant] = [:]
    /// Volumes whose mounts somebody dropped from under the plugin, or their counts.
    var dropped: Set<Int> = []
    /// Volumes whose records were lost, until they are used again or EC2 reports them.
    private(set) var forgotten: Set<Int> = []
    /// Whether devices are identified by their names alone, as on Xen.
    var isXen: Bool
    /// Whether its role may not write tags.
    var tagsForbidden: Bool
    /// Calls that the end of the daemon interrupted, until its next start.
    private var lostCalls: [Call] = []
    /// Mounts whose answer did not go out. Their counts are taken back on the disk a moment later.
    private var unsentMounts: [(call: Call, at: Instant)] = []
    /// Volumes whose Create was answered, without a Remove since.
    private var known: Set<Int> = []
    /// Volumes for which the next Create asks for read-only.
    var wantsReadOnly: Set<Int> = []
    private var everReadOnly: Set<Int> = []
    /// The options of the last Create, and since when.
    private var inForce: [Int: (readOnly: Bool, since: Instant)] = [:]
    private var cutAt: [Int: Instant] = [:]
    private var attachSent: [Int: (at: Instant, name: String)] = [:]
    /// When the daemon was killed before it could record that it requested an attachment.
    private(set) var cutAttachments: [Int: Instant] = [:]
    /// Volumes that it asked EC2 to attach.
    private var asked: Set<Int> = []
    /// How often it requested to detach what is no longer attached to it.
    private var vainDetachments: [Int: Int] = [:]
    private(set) var isFrozen = false
    /// When it last froze or thawed.
    private var lastFrozen: Instant?
    /// Whether its disk was made from another's.
    private var isImage = false
    /// How many Removes of each volume were sent.
    private var removed: [Int: Int] = [:]
    private(set) var isTerminated = false
    private(set) var isRunning = true
    /// When it last started, by a boot or from hibernation.
    private(set) var bootedAt: Instant?
    private(set) var boots = 0

    init(index: Int, world: LifeWorld, isXen: Bool, tagsForbidden: Bool) {
        self.index = index
        self.world = world
        self.isXen = isXen
        self.tagsForbidden = tagsForbidden
        kernel = LifeKernel(host: index, world: world)
    }

    /// - Parameter removals: how many there had been when its Create was sent: a Remove that was
    ///   sent before the response may have been executed after the Create.
    func created(_ volume: Int, since removals: Int, readOnly: Bool) {
        guard removals == self.removals(of: volume) else { return }
        known.insert(volume)
        inForce[volume] = (readOnly, world.scheduler.now)
    }
    /// Called when a Create is sent, whose response may be lost.
    func creating(_ volume: Int, readOnly: Bool) {
        if readOnly { everReadOnly.insert(volume) }
    }

    /// The next Create may have other options.
    func removing(_ volume: Int, changing: Int) {
        known.remove(volume)
        inForce[volume] = nil
        removed[volume, default: 0] += 1
        guard world.scheduler.random.chance(changing) else { return }
        wantsReadOnly.formSymmetricDifference([volume])
    }

    /// Whether the volume is read-only here; nil if that is uncertain.
    func isReadOnly(_ volume: Int) -> Bool? { inForce[volume]?.readOnly }

    /// Whether this has certainly been so for as long as a Mount with other options may last.
    func isLongReadOnly(_ volume: Int) -> Bool {
        guard let options = inForce[volume] else { return false }
        return options.readOnly && options.since + .seconds(150) < world.scheduler.now
    }

    /// A Mount was abandoned, and may continue for as long as Mounts do.
    func cut(_ volume: Int) { cutAt[volume] = world.scheduler.now }

    /// Whether a Mount of the volume may be in progress.
    func mayBeMounting(_ volume: Int) -> Bool {
        if let cut = cutAt[volume], cut + .seconds(130) > world.scheduler.now { return true }
        return daemon?.calls.values.contains { $0.volume == volume } ?? false
    }

    func mayBeReadOnly(_ volume: Int) -> Bool {
        wantsReadOnly.contains(volume)
            || isReadOnly(volume) ?? everReadOnly.contains(volume)
    }

    func attaching(_ volume: LifeCloud.Volume, as name: String) {
        attachSent[volume.index] = (world.scheduler.now, name)
        asked.insert(volume.index)
        vainDetachments[volume.index] = nil
    }

    /// Called when the host asks EC2 to detach its own volume.
    func detaching(_ volume: LifeCloud.Volume) {
        if isImage, !asked.contains(volume.index), volume.attachment(on: index) == nil {
            world.trace.broke(
                "another instance's records cause no call",
                "host \(index) detaches volume \(volume.index)")
        }
        guard volume.attachment(on: index) == nil else {
            vainDetachments[volume.index] = nil
            return
        }
        vainDetachments[volume.index, default: 0] += 1
        if vainDetachments[volume.index, default: 0] > 6 {
            world.trace.broke(
                "what is not attached is not detached for ever",
                "host \(index), volume \(volume.index)")
        }
    }

    /// A daemon that is killed while it requests an attachment may not have recorded it.
    private func noteCutAttachments() {
        for (volume, sent) in attachSent where world.scheduler.now <= sent.at + .milliseconds(100) {
            let id = world.cloud.volumes[volume].id
            guard disk.first(where: { $0.id == id })?.deviceName != sent.name else { continue }
            cutAttachments[volume] = world.scheduler.now
        }
    }
    func removals(of volume: Int) -> Int { removed[volume] ?? 0 }
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
            daemon.upSince = world.scheduler.now
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

    /// Ends the daemon as kill -9 does. Restarts it after a delay, if one is given.
    func killPlugin(thenAfter pause: Duration?) {
        guard let daemon else { return }
        self.daemon = nil
        noteCutAttachments()
        world.trace.note(.pluginDown, host: index)
        let calls = daemon.calls.sorted { $0.key < $1.key }.map(\.value)
        lostCalls += calls.filter { $0.mountID != nil }
        let justNow = world.scheduler.now + (.zero - .seconds(1))
        lostCalls += unsentMounts.filter { $0.at > justNow }.map(\.call)
        unsentMounts = []
        daemon.process.kill()
        for call in calls { call.lose() }
        if let pause {
            world.scheduler.after(pause) { [weak self] in self?.startPlugin() }
        }
    }

    /// Frees what remains of the daemon's last run when the life is over.
    func dropDaemon() { daemon = nil }

    /// Ends the daemon as SIGTERM does: it accepts no new calls, and waits a while for the current
    /// ones.
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

    /// What torn state files destroy: the records of what is not mounted, so that attachments
    /// without a lease are no longer known to be the plugin's own; or the counts.
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
            inForce[volume.index] = nil
            forgotten.insert(volume.index)
            noteUnmarked(volume)
        }
    }

    /// Without a record or a tag, an attachment is no longer the plugin's.
    func noteUnmarked(_ volume: LifeCloud.Volume) {
        guard forgotten.contains(volume.index), !world.cloud.isMarked(volume, on: index) else {
            return
        }
        cutAttachments[volume.index] = world.scheduler.now
    }

    /// Called once EC2 has told the daemon what is attached here. If the look is older than an
    /// attachment whose record is lost, nothing indicates that attachment any more.
    func told(ofAttachments listed: [BlockDeviceMapping]) {
        let volumes = world.cloud.volumes.filter { volume in
            forgotten.contains(volume.index) && volume.attachment(on: index) != nil
                && !listed.contains { $0.volume == volume.id }
        }
        for volume in volumes { cutAttachments[volume.index] = world.scheduler.now }
    }

    /// Called once EC2 has told the daemon about a volume that is attached here. A tag that every
    /// look shows makes it known again; without one it may be anybody's. The tag was written with
    /// the lease.
    func told(of volume: LifeCloud.Volume) {
        let instance = world.cloud.instances[index]
        if volume.tags[LifeCloud.lease] == instance.description,
            world.cloud.isMarked(volume, on: index),
            let since = volume.leaseSince, since + .seconds(15) < world.scheduler.now
        {
            forgotten.remove(volume.index)
        }
    }

    func used(_ volume: Int) { forgotten.remove(volume) }

    /// A call that was executed but not answered leaves a count that is off by one, and nobody can
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

    func noteUnsentMount(of volume: Int, id: String) {
        let call = Call(volume: volume, mountID: id, isMount: true, hangUp: {}, lose: {})
        unsentMounts.append((call, world.scheduler.now))
    }

    private func savedCount(_ volume: Int, _ id: String) -> Int {
        let name = world.cloud.volumes[volume].id
        return disk.first { $0.id == name }?.mounts.counts[id] ?? 0
    }

    // MARK: The host

    /// The machine hibernates: its memory, including mounts and unwritten data, comes back.
    func freeze() {
        isFrozen = true
        lastFrozen = world.scheduler.now
        world.trace.note(.stopped, host: index, 1)
        daemon?.process.freeze()
        docker.process.freeze()
    }

    func thaw() {
        guard isFrozen else { return }
        isFrozen = false
        lastFrozen = world.scheduler.now
        bootedAt = world.scheduler.now
        world.cloud.states[index] = .running
        world.cloud.isHibernated.remove(index)
        world.trace.note(.booted, host: index, 1)
        world.cloud.instanceBooted(index)
        daemon?.process.thaw()
        docker.process.thaw()
    }

    func wasFrozen(since instant: Instant) -> Bool {
        isFrozen || lastFrozen.map { $0 >= instant } ?? false
    }

    /// The machine is replaced by a new one from an image of another, with nothing attached yet.
    func becomeImage(of other: LifeHost) {
        stop(terminated: false)
        disk = other.disk
        diskOwner = other.diskOwner
        known = []
        inForce = [:]
        everReadOnly.formUnion(other.everReadOnly)
        asked = []
        isImage = true
        // Nobody knows what it did before, nor what it had just requested.
        for volume in world.cloud.volumes {
            volume.disturbedAt = world.scheduler.now
            cutAttachments[volume.index] = world.scheduler.now
        }
    }

    /// Power is lost, and with it the kernel's memory.
    func stop(terminated: Bool) {
        guard isRunning else { return }
        isFrozen = false
        world.cloud.isHibernated.remove(index)
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
        boots += 1
        world.cloud.states[index] = .running
        world.trace.note(.booted, host: index)
        world.cloud.instanceBooted(index)
        startPlugin()
        docker.start()
    }
}
