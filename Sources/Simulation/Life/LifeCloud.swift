import Base
import VolumeCore

/// The EC2 that the hosts of one life share.
final class LifeCloud: @unchecked Sendable {
    static let zone = "eu-west-1a"
    static let lease = "polarity-ecs-ebs-plugin:mounted-on"
    /// The tag of the plugin's attachment: instance, volume and device name.
    static let mark = "polarity-ecs-ebs-plugin:attached-by"

    final class Attachment {
        unowned let volume: Volume
        let host: Int
        var name: String
        let since: Instant
        /// Whether somebody else than the plugin made it.
        let isByHand: Bool
        var state = VolumeAttachment.State.attaching
        var deleteOnTermination = false
        var leavingSince: Instant?
        /// Which host requested its end; nil if somebody did it by hand.
        var endedBy: Int?
        /// Whether its end has been judged already, or its owner could not know of it.
        var isJudged = false
        /// The version of the volume that showed its end first.
        var leavingVersion = 0
        var force = false
        /// It stays `attaching` forever.
        var isStuck = false

        init(of volume: Volume, to host: Int, as name: String, at now: Instant, byHand: Bool) {
            self.volume = volume
            self.host = host
            self.name = name
            since = now
            isByHand = byHand
        }

        var isLeaving: Bool { leavingSince != nil }
    }

    /// One DescribeVolumes of a volume, when it took effect.
    struct Look {
        let at: Instant
        /// The version that it returned, and the newest version at that time.
        let told: Int
        let newest: Int
        /// The host whose lease it showed, the tag of the attachment, and the attachment's name.
        let lease: String?
        let mark: String?
        let name: String?
        /// Whether it was older than looks normally are.
        let isWild: Bool
    }

    final class Volume {
        let index: Int
        let id: VolumeID
        /// The mountpoint in each host's plugin.
        let mountpoint: String
        var snapshotID: String?
        var zone = LifeCloud.zone
        /// The key of an encrypted volume.
        var kmsKeyID: String?
        /// The partition with its contents, if it has one.
        var partition: Int?
        var isPartitioned: Bool { partition != nil }
        var isDeleted = false
        var type: String
        var isMultiAttach = false
        /// The version that showed that first.
        var multiAttachVersion = 0
        /// Whether its file system is smaller than the device.
        var isSmall: Bool
        /// Whether its file system asks for a repair.
        var isUnclean = false
        /// Whether its journal must be replayed.
        var isUnreplayed = false
        /// Whether its device does not appear when it is attached.
        var isWithoutDevice = false
        /// Whether an instance releases it only by force.
        var leavesOnlyByForce = false
        var attachments: [Attachment] = []
        /// The only one, except for a Multi-Attach volume.
        var attachment: Attachment? { attachments.first }
        /// The one that ended last.
        var lastAttachment: Attachment?
        /// What each host looked at last, oldest first.
        fileprivate var looks: [[Look]] = []
        /// When a late call, or somebody by hand, last changed its tags.
        var disturbedAt: Instant?
        var tags: [String: String] = [:]
        /// Since when the tags have named the present host.
        var leaseSince: Instant?
        var content: DeviceContent
        /// Acknowledged writes on it, by host.
        var data: [Int] = []
        var hadContent: Bool
        /// Its versions, oldest first; `forgotten` versions came before.
        fileprivate var history: [(at: Instant, description: VolumeDescription)] = []
        fileprivate var forgotten = 0
        var version: Int { forgotten + history.count - 1 }
        fileprivate var first: VolumeDescription?

        init(
            index: Int, id: VolumeID, type: String, snapshotID: String?, content: DeviceContent,
            isPartitioned: Bool, isSmall: Bool
        ) {
            self.type = type
            self.isSmall = isSmall
            partition = isPartitioned ? 1 : nil
            self.index = index
            self.id = id
            mountpoint = "/mnt/\(id)"
            self.snapshotID = snapshotID
            self.content = content
            hadContent = content != .blank || snapshotID != nil
        }

        func attachment(on host: Int) -> Attachment? { attachments.first { $0.host == host } }

        /// Its version at that time, or the oldest remembered one.
        fileprivate func description(at instant: Instant) -> VolumeDescription {
            (history.last { $0.at <= instant } ?? history[0]).description
        }

        fileprivate func has(_ attachment: Attachment) -> Bool {
            attachments.contains { $0 === attachment }
        }
    }

    private(set) var volumes: [Volume] = []
    /// Volumes that no docker uses, attached by hand.
    private(set) var strangers: [Volume] = []
    var everything: [Volume] { volumes + strangers }
    private(set) var instances: [InstanceID] = []
    var states: [InstanceDescription.State] = [] { didSet { noteStates() } }
    var isHibernated: Set<Int> = [] { didSet { noteStates() } }
    /// The versions of the instances, oldest first.
    private var pastStates: [States] = []
    /// When each host looked at each instance, and the instant that it was told of, oldest first.
    private var instanceLooks: [[(at: Instant, told: Instant)]] = []
    /// Until when EC2 does not know an instance.
    var unknownUntil: [Int: Instant] = [:]
    /// How many volumes an instance can have; nil: EC2 does not say, and sets no limit.
    var limit: AttachmentLimit?
    /// Of each instance.
    var networkInterfaces = 1
    var rootDeviceNames: [Int: String] = [:]
    /// The calls that each host made.
    private(set) var calls: [Int] = []
    var faultsAreOn = true
    unowned let world: LifeWorld
    private let scheduler: Scheduler
    private let trace: LifeTrace
    private let plan: LifePlan

    init(world: LifeWorld) {
        self.world = world
        scheduler = world.scheduler
        trace = world.trace
        plan = world.plan
        limit = plan.attachmentsMax.map {
            AttachmentLimit(instanceType: "m5.large", volumesMax: $0, isShared: false)
        }
    }

    func isUnknown(_ host: Int) -> Bool {
        unknownUntil[host].map { scheduler.now < $0 } ?? false
    }

    func addInstance(_ id: InstanceID) {
        instances.append(id)
        instanceLooks = Array(repeating: [], count: instances.count * instances.count)
        for volume in everything { volume.looks.append([]) }
        states.append(.running)
        calls.append(0)
    }

    @discardableResult
    func addVolume(
        _ id: VolumeID, type: String, snapshotID: String?, content: DeviceContent,
        isPartitioned: Bool, isSmall: Bool
    ) -> Volume {
        let volume = Volume(
            index: volumes.count, id: id, type: type, snapshotID: snapshotID, content: content,
            isPartitioned: isPartitioned, isSmall: isSmall)
        volume.looks = instances.map { _ in [] }
        volumes.append(volume)
        changed(volume)
        return volume
    }

    /// A blank volume of somebody else's.
    func addStranger() -> Volume {
        guard let id = VolumeID("vol-1000000\(strangers.count)") else { preconditionFailure() }
        return addStranger(id)
    }

    func addStranger(_ id: VolumeID) -> Volume {
        let volume = Volume(
            index: Self.firstStranger + strangers.count, id: id, type: "gp3", snapshotID: nil,
            content: .blank, isPartitioned: false, isSmall: false)
        volume.looks = instances.map { _ in [] }
        strangers.append(volume)
        changed(volume)
        return volume
    }

    /// The strangers' indices are above those of any volumes.
    private static let firstStranger = 1000

    /// The volume with that id. One that never existed is like one that was deleted.
    func volume(_ id: VolumeID) -> Volume {
        if let volume = find(id) { return volume }
        let volume = addVolume(
            id, type: "gp3", snapshotID: nil, content: .blank, isPartitioned: false, isSmall: false)
        volume.isDeleted = true
        return volume
    }

    func find(_ id: VolumeID) -> Volume? { everything.first { $0.id == id } }

    func host(of id: InstanceID) -> Int? { instances.firstIndex(of: id) }

    // MARK: What DescribeVolumes tells

    func describe(_ volume: Volume) -> VolumeDescription {
        let attachments = volume.attachments.map { answer(volume, $0) }
        return VolumeDescription(
            id: volume.id, state: attachments.isEmpty ? .available : .inUse,
            availabilityZone: volume.zone, size: 1, snapshotID: volume.snapshotID,
            volumeType: volume.type, multiAttachEnabled: volume.isMultiAttach,
            kmsKeyID: volume.kmsKeyID, attachments: attachments, tags: volume.tags)
    }

    /// Whether the tag of the plugin's attachment says that it made the host's present one.
    func isMarked(_ volume: Volume, on host: Int) -> Bool {
        guard let attachment = volume.attachment(on: host) else { return false }
        return volume.tags[Self.mark] == "\(instances[host]) \(volume.id) \(attachment.name)"
    }

    /// Makes a volume what EC2 describes from now on. Its devices stay as they are.
    /// A new attachment does not count as made by hand.
    func change(_ volume: Volume, to description: VolumeDescription) {
        volume.zone = description.availabilityZone
        volume.snapshotID = description.snapshotID
        volume.type = description.volumeType
        volume.isMultiAttach = description.multiAttachEnabled
        volume.kmsKeyID = description.kmsKeyID
        volume.attachments = description.attachments.compactMap { wanted in
            guard let host = wanted.instance.flatMap(host) else { return nil }
            let attachment =
                volume.attachment(on: host)
                ?? Attachment(of: volume, to: host, as: "", at: scheduler.now, byHand: false)
            attachment.name = wanted.device ?? ""
            attachment.state = wanted.state
            attachment.deleteOnTermination = wanted.deleteOnTermination
            return attachment
        }
        changeTagsByHand(of: volume) { $0 = description.tags }
    }

    private func changed(_ volume: Volume) {
        volume.history.append((scheduler.now, describe(volume)))
        if volume.history.count > 12 {
            volume.history.removeFirst()
            volume.forgotten += 1
        }
    }

    /// What a look at the volume returns; it may be outdated.
    ///
    /// It is never older than what the host was told before, and includes everything that was
    /// written before a look of the same host `lagSeen` earlier.
    func told(_ volume: Volume, to host: Int) -> VolumeDescription {
        let goesBack = world.fault == .looksGoBack && scheduler.random.chance(250)
        let isWild =
            faultsAreOn && plan.lagMax > .zero && scheduler.random.chance(Self.wildLooks)
        let version =
            goesBack
            ? volume.forgotten
            : isWild
                ? wildVersion(of: volume)
                : max(laggingVersion(of: volume), oldestVersion(of: volume, for: host))
        var description = volume.history[version - volume.forgotten].description
        if volume.looks[host].count == 8 { volume.looks[host].removeFirst() }
        volume.looks[host].append(
            Look(
                at: scheduler.now, told: version, newest: volume.version,
                lease: description.tags[Self.lease], mark: description.tags[Self.mark],
                name: description.attachments.first?.device, isWild: isWild))
        if world.fault == .staleDescribe {
            if volume.first == nil { volume.first = description }
            description = volume.first ?? description
        }
        if world.fault == .snapshotForgotten { description.snapshotID = nil }
        if world.fault == .leaseIgnored { description.tags = [:] }
        if world.fault == .multiAttachHidden { description.multiAttachEnabled = false }
        return description
    }

    /// After this time, everything that a look may have missed is visible.
    private static let lagSeen: Duration = .seconds(2)

    /// How many of a thousand looks are older than any promise.
    private static let wildLooks = 8

    private func wildVersion(of volume: Volume) -> Int {
        let seen = volume.history.lastIndex { $0.at + .seconds(10) <= scheduler.now } ?? 0
        return volume.forgotten + seen + scheduler.random.below(volume.history.count - seen)
    }

    private func laggingVersion(of volume: Volume) -> Int {
        let isLate = scheduler.random.chance(faultsAreOn && plan.lagMax > .zero ? 250 : 0)
        guard isLate else { return volume.version }
        let lag = scheduler.random.duration(0...Int(plan.lagMax.milliseconds))
        let seen = volume.history.lastIndex { $0.at + lag <= scheduler.now } ?? 0
        return volume.forgotten + seen
    }

    private func oldestVersion(of volume: Volume, for host: Int) -> Int {
        let looks = volume.looks[host].filter { !$0.isWild }
        let settled = looks.last { $0.at + Self.lagSeen <= scheduler.now }
        return max(looks.last?.told ?? 0, settled?.newest ?? 0, volume.forgotten)
    }

    /// The looks of a host at a volume up to an instant, oldest first.
    func looks(at volume: Volume, by host: Int, until instant: Instant) -> [Look] {
        volume.looks[host].filter { $0.at <= instant }
    }

    // MARK: What DescribeInstances tells

    private struct States {
        let since: Instant
        let states: [InstanceDescription.State]
        let hibernated: Set<Int>
    }

    private func noteStates() {
        let now = States(since: scheduler.now, states: states, hibernated: isHibernated)
        if pastStates.last?.since == scheduler.now { pastStates.removeLast() }
        pastStates.append(now)
        if pastStates.count > 12 { pastStates.removeFirst() }
    }

    /// What a look at an instance returns, which may be outdated like a look at a volume: its
    /// state, whether it is hibernated, and its volumes with their device names.
    func toldOfInstance(
        _ asked: Int, by host: Int
    ) -> (InstanceDescription.State, isHibernated: Bool, [BlockDeviceMapping]) {
        let instant = instant(toldOf: asked, by: host)
        let id = instances[asked]
        let past = pastStates.last { $0.since <= instant } ?? pastStates[0]
        let mappings = everything.flatMap { volume in
            let attachments =
                instant == scheduler.now
                ? describe(volume).attachments : volume.description(at: instant).attachments
            return attachments.compactMap { attachment in
                guard attachment.instance == id, let name = attachment.device else {
                    return BlockDeviceMapping?.none
                }
                return BlockDeviceMapping(deviceName: name, volume: volume.id)
            }
        }
        return (past.states[asked], past.hibernated.contains(asked), mappings)
    }

    private func instant(toldOf asked: Int, by host: Int) -> Instant {
        let place = host * instances.count + asked
        let looks = instanceLooks[place]
        let now = scheduler.now
        var told = now
        if faultsAreOn, plan.lagMax > .zero, scheduler.random.chance(250) {
            let lag = UInt64(scheduler.random.below(Int(plan.lagMax.milliseconds))) * 1_000_000
            let start = Instant(nanoseconds: 0)
            let seen = looks.last { $0.at + Self.lagSeen <= now }?.at ?? start
            told = Instant(nanoseconds: now.nanoseconds - min(lag, now.nanoseconds))
            told = max(told, looks.last?.told ?? start, seen)
        }
        if looks.count == 8 { instanceLooks[place].removeFirst() }
        instanceLooks[place].append((now, told))
        return told
    }

    // MARK: Calls

    /// A call, when it takes effect.
    struct Call {
        let sentAt: Instant
        /// Whether it took longer to arrive than calls normally do.
        let isLate: Bool
        /// Whether it takes effect after the caller was told that it was lost.
        let isLost: Bool
    }

    private enum Fate { case done, refused(String), notSent, lostBefore, lostAfter, lostLate }

    private func fate(of kind: LifeEvent.Kind) -> Fate {
        guard faultsAreOn, scheduler.random.chance(plan.cloudFaults) else { return .done }
        switch scheduler.random.below(6) {
        case 0: return .refused("RequestLimitExceeded")
        case 1: return .refused("InternalError")
        case 2: return .notSent
        case 3: return .lostBefore
        case 4 where kind == .createTags || kind == .detachVolume: return .lostLate
        default: return .lostAfter
        }
    }

    /// One call: it takes effect and is answered some time later. It also takes effect if the
    /// caller has ended in the meantime.
    ///
    /// It may have to wait before it is sent, for the client's budget, credentials or a connection.
    /// It is not sent after `latest` or its deadline.
    func call<T: Sendable>(
        _ kind: LifeEvent.Kind, of host: Int, on volume: Int, by process: SimulatedProcess,
        sentBy latest: Instant? = nil, deadline: Instant,
        _ apply: @escaping (Call) -> Result<T, EC2Failure>
    ) async throws -> T {
        // A late call matters most if it takes something away.
        let slowness = kind == .detachVolume ? 3 * plan.slowCalls : plan.slowCalls
        if faultsAreOn, scheduler.random.chance(slowness) {
            try await waitForTurn(of: process, by: deadline)
        }
        if let latest, scheduler.now > latest, world.fault != .sentLate {
            throw EC2Failure.outdated(reason: "its turn came too late")
        }
        calls[host] += 1
        world.checkBudget(of: host)
        let fate = fate(of: kind)
        let isLate = isLate(kind, fate)
        let delay =
            isLate
            ? scheduler.random.duration(500...5000) : scheduler.random.duration(world.times.call)
        trace.note(kind, host: host, volume: volume, isLate ? 1 : 0, "\(fate)")
        let isLost = if case .lostLate = fate { true } else { false }
        let call = Call(sentAt: scheduler.now, isLate: isLate, isLost: isLost)
        return try await process.wait { reply in
            if isLost {
                scheduler.after(delay) { _ = apply(call) }
                scheduler.after(.seconds(2)) {
                    reply.end(
                        .failure(EC2Failure.unanswered(reason: "reset", mayHaveApplied: true)))
                }
                return
            }
            scheduler.after(delay) { [self] in
                let (result, more) = Self.end(fate, kind) { apply(call) }
                let back = scheduler.random.duration(world.times.response) + more
                scheduler.after(back) { reply.end(result.mapError { $0 }) }
            }
        }
    }

    private func waitForTurn(of process: SimulatedProcess, by deadline: Instant) async throws {
        let turn = scheduler.now + scheduler.random.duration(20...15_000)
        guard turn < deadline else {
            throw EC2Failure.unanswered(reason: "no turn by the deadline", mayHaveApplied: false)
        }
        try await process.sleep(until: turn)
    }

    /// Tags and detachments occasionally take seconds to arrive.
    private func isLate(_ kind: LifeEvent.Kind, _ fate: Fate) -> Bool {
        if case .lostLate = fate { return true }
        guard kind == .createTags || kind == .deleteTags || kind == .detachVolume else {
            return false
        }
        return faultsAreOn && plan.slowCalls > 0 && scheduler.random.chance(plan.slowCalls / 4)
    }

    /// What the caller receives, and how much later than usual.
    private static func end<T>(
        _ fate: Fate, _ kind: LifeEvent.Kind, _ apply: () -> Result<T, EC2Failure>
    ) -> (Result<T, EC2Failure>, Duration) {
        switch fate {
        case .done: return (apply(), .zero)
        case .refused(let code):
            // The client itself retries most calls, but never a detachment.
            return (
                .failure(.refused(code: code, message: "simulated", requestID: "r")),
                kind == .detachVolume ? .zero : .seconds(1)
            )
        case .notSent:
            return (
                .failure(.unanswered(reason: "no connection", mayHaveApplied: false)), .seconds(3)
            )
        case .lostBefore:
            return (.failure(.unanswered(reason: "reset", mayHaveApplied: true)), .seconds(2))
        case .lostAfter, .lostLate:
            _ = apply()
            return (.failure(.unanswered(reason: "reset", mayHaveApplied: true)), .seconds(2))
        }
    }

    static func refusal(_ code: String, _ message: String) -> EC2Failure {
        .refused(code: code, message: message, requestID: "r")
    }

    private static func notFound(_ volume: Volume) -> EC2Failure {
        refusal("InvalidVolume.NotFound", "The volume '\(volume.id)' does not exist.")
    }

    func delete(_ volume: Volume) {
        guard volume.attachments.isEmpty, !volume.isDeleted else { return }
        volume.isDeleted = true
        trace.note(.deleted, volume: volume.index)
    }

    /// Somebody enables Multi-Attach on a volume that is not attached.
    func enableMultiAttach(_ volume: Volume) {
        guard volume.attachments.isEmpty, !volume.isDeleted else { return }
        volume.type = "io2"
        volume.isMultiAttach = true
        changed(volume)
        volume.multiAttachVersion = volume.version
        trace.note(.multiAttach, volume: volume.index)
    }

    // MARK: Attaching and detaching

    func attach(
        _ volume: Volume, to host: Int, as name: String, byHand: Bool = false
    ) -> Result<VolumeAttachment, EC2Failure> {
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        if let attachment = volume.isMultiAttach
            ? volume.attachment(on: host) : volume.attachment
        {
            return .failure(
                Self.refusal("VolumeInUse", "\(volume.id) is attached to host \(attachment.host)"))
        }
        let isTaken =
            world.otherNames.contains(name)
            || everything.contains { $0.attachment(on: host)?.name == name }
        guard !isTaken else {
            return .failure(Self.refusal("InvalidParameterValue", "\(name) is already in use"))
        }
        guard states[host] == .running else {
            return .failure(
                Self.refusal("IncorrectState", "Instance '\(instances[host])' is not 'running'."))
        }
        let attached = everything.count { $0.attachment(on: host) != nil }
        if let limit, attached >= limit.volumesMax - (limit.isShared ? networkInterfaces - 1 : 0) {
            return .failure(
                Self.refusal("AttachmentLimitExceeded", "\(attached) volumes are attached"))
        }
        let attachment = Attachment(
            of: volume, to: host, as: name, at: scheduler.now, byHand: byHand)
        volume.attachments.append(attachment)
        trace.note(.attaching, host: host, volume: volume.index, 0, name)
        changed(volume)
        comeUp(volume, attachment)
        return .success(answer(volume, attachment))
    }

    private func answer(_ volume: Volume, _ attachment: Attachment) -> VolumeAttachment {
        VolumeAttachment(
            volume: volume.id, instance: instances[attachment.host], device: attachment.name,
            state: attachment.state, deleteOnTermination: attachment.deleteOnTermination)
    }

    private func comeUp(_ volume: Volume, _ attachment: Attachment) {
        let isFaulty = faultsAreOn && scheduler.random.chance(plan.cloudFaults / 2)
        var device: Duration? = scheduler.random.duration(world.times.device)
        if isFaulty {
            switch scheduler.random.below(3) {
            case 0:
                attachment.isStuck = true
                device = nil
            // Somebody who attaches a volume by hand notices that its device does not appear.
            case 1 where !attachment.isByHand: device = nil
            default: device = scheduler.random.duration(5_000...40_000)
            }
        } else if faultsAreOn, scheduler.random.chance(30) {
            device = scheduler.random.duration(5_000...20_000)
        }
        if !attachment.isStuck {
            scheduler.after(scheduler.random.duration(world.times.attached)) { [self] in
                guard volume.has(attachment), !attachment.isLeaving else { return }
                attachment.state = .attached
                changed(volume)
            }
        }
        guard let device else { return }
        scheduler.after(device) { [self] in
            guard volume.has(attachment), !attachment.isLeaving, !volume.isWithoutDevice,
                states[attachment.host] == .running
            else { return }
            world.hosts[attachment.host].kernel.plug(volume)
        }
    }

    func detach(
        _ volume: Volume, from host: Int, force: Bool, by caller: Int?
    ) -> Result<VolumeAttachment, EC2Failure> {
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        guard let attachment = volume.attachment(on: host) else {
            return .failure(
                volume.attachments.isEmpty
                    ? Self.refusal("IncorrectState", "\(volume.id) is in the 'available' state")
                    : Self.refusal(
                        "InvalidAttachment.NotFound", "\(volume.id) is not attached there"))
        }
        if force { attachment.force = true }
        if !attachment.isLeaving {
            attachment.leavingSince = scheduler.now
            attachment.endedBy = caller
            attachment.state = .detaching
            trace.note(.detaching, host: host, volume: volume.index, caller ?? -1)
            changed(volume)
            attachment.leavingVersion = volume.version
            leave(volume, attachment, after: scheduler.random.duration(world.times.detach))
        } else if force {
            leave(volume, attachment, after: .seconds(1))
        }
        return .success(answer(volume, attachment))
    }

    /// Ends an attachment. On Nitro the device disappears even if something holds it; on Xen EC2
    /// waits until nothing does.
    private func leave(_ volume: Volume, _ attachment: Attachment, after delay: Duration) {
        scheduler.after(delay) { [self] in
            guard volume.has(attachment) else { return }
            let host = world.hosts[attachment.host]
            let isHeld = host.isXen && host.kernel.isHeld(volume)
            if !attachment.force, isHeld || volume.leavesOnlyByForce || isStuck(attachment) {
                if attachment.state != .busy {
                    attachment.state = .busy
                    trace.note(.busy, host: attachment.host, volume: volume.index)
                    changed(volume)
                }
                leave(volume, attachment, after: .seconds(3))
            } else {
                host.kernel.unplug(volume)
                scheduler.after(scheduler.random.duration(world.times.free)) { [self] in
                    free(volume, attachment)
                }
            }
        }
    }

    /// A host that went down may still hold the volume, so force may be needed.
    private func isStuck(_ attachment: Attachment) -> Bool {
        faultsAreOn && states[attachment.host] != .running && scheduler.random.chance(900)
    }

    private func free(_ volume: Volume, _ attachment: Attachment) {
        guard volume.has(attachment) else { return }
        world.hosts[attachment.host].kernel.unplug(volume)
        volume.attachments.removeAll { $0 === attachment }
        volume.lastAttachment = attachment
        trace.note(.free, host: attachment.host, volume: volume.index)
        changed(volume)
    }

    /// Terminating an instance releases its volumes.
    func instanceEnded(_ host: Int) {
        for volume in everything {
            guard let attachment = volume.attachment(on: host) else { continue }
            free(volume, attachment)
        }
    }

    /// The volumes that reappear when an instance boots.
    func instanceBooted(_ host: Int) {
        for volume in everything {
            guard let attachment = volume.attachment(on: host),
                !attachment.isLeaving, !attachment.isStuck
            else { continue }
            world.hosts[host].kernel.plug(volume)
        }
    }

    /// Somebody replaces a volume that nothing holds by a foreign one with the same device name.
    func replace(_ volume: Volume, on host: Int) {
        guard let attachment = volume.attachment(on: host), !attachment.isLeaving else { return }
        let stranger = addStranger()
        trace.note(.byHand, host: host, volume: volume.index, 3, "\(stranger.id)")
        free(volume, attachment)
        // It was some time ago.
        volume.forgotten = volume.version
        volume.history.removeFirst(volume.history.count - 1)
        guard case .success = attach(stranger, to: host, as: attachment.name, byHand: true) else {
            return
        }
        world.hosts[host].kernel.plug(stranger)
    }

    // MARK: Tags

    func setTags(
        _ volume: Volume, _ tags: [String: String], by host: Int, isLate: Bool
    ) -> Result<Bool, EC2Failure> {
        changeTags(of: volume, by: host, isLate: isLate) { $0.merge(tags) { $1 } }
    }

    func removeTag(
        _ volume: Volume, _ key: String, by host: Int, isLate: Bool
    ) -> Result<Bool, EC2Failure> {
        changeTags(of: volume, by: host, isLate: isLate) { $0[key] = nil }
    }

    private func changeTags(
        of volume: Volume, by host: Int, isLate: Bool, _ change: (inout [String: String]) -> Void
    ) -> Result<Bool, EC2Failure> {
        if world.hosts[host].tagsForbidden {
            return .failure(Self.refusal("UnauthorizedOperation", "tags"))
        }
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        let holder = volume.tags[Self.lease]
        change(&volume.tags)
        note(holder, of: volume)
        if isLate { volume.disturbedAt = scheduler.now }
        return .success(true)
    }

    /// Somebody changes a volume's tags, by hand or with a tool.
    func changeTagsByHand(of volume: Volume, _ change: (inout [String: String]) -> Void) {
        guard !volume.isDeleted else { return }
        let holder = volume.tags[Self.lease]
        change(&volume.tags)
        note(holder, of: volume)
        volume.disturbedAt = scheduler.now
        trace.note(.tagsByHand, volume: volume.index, 0, "\(volume.tags)")
    }

    private func note(_ oldHolder: String?, of volume: Volume) {
        let holder = volume.tags[Self.lease]
        if holder != oldHolder { volume.leaseSince = holder.map { _ in scheduler.now } }
        changed(volume)
    }
}
