import Base
import VolumeCore

/// EC2 as the hosts of one life share it.
final class LifeCloud: @unchecked Sendable {
    static let zone = "eu-west-1a"
    static let lease = "polarity-ecs-ebs-plugin:mounted-on"

    final class Attachment {
        let host: Int
        let name: String
        var state = VolumeAttachment.State.attaching
        var leavingSince: Instant?
        /// Who asked for its end.
        var endedBy: Int?
        var force = false
        /// It never gets any further than `attaching`.
        var isStuck = false

        init(host: Int, name: String) {
            self.host = host
            self.name = name
        }

        var isLeaving: Bool { leavingSince != nil }
    }

    final class Volume {
        let index: Int
        let id: VolumeID
        /// Where each host's plugin mounts it.
        let mountpoint: String
        let snapshotID: String?
        /// Whether its file system, or whatever there is, lies in a partition.
        let isPartitioned: Bool
        var isDeleted = false
        var attachment: Attachment?
        var tags: [String: String] = [:]
        /// Since when the tags name the host that they name now.
        var leaseSince: Instant?
        var content: DeviceContent
        /// Acknowledged writes on it, by host.
        var data: [Int] = []
        var hadContent: Bool
        fileprivate var history: [(at: Instant, description: VolumeDescription)] = []
        fileprivate var first: VolumeDescription?

        init(
            index: Int, id: VolumeID, snapshotID: String?, content: DeviceContent,
            isPartitioned: Bool
        ) {
            self.isPartitioned = isPartitioned
            self.index = index
            self.id = id
            mountpoint = "/mnt/\(id)"
            self.snapshotID = snapshotID
            self.content = content
            hadContent = content != .blank || snapshotID != nil
        }
    }

    private(set) var volumes: [Volume] = []
    private(set) var instances: [InstanceID] = []
    var states: [InstanceDescription.State] = []
    /// Calls that each host made.
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
    }

    func addInstance(_ id: InstanceID) {
        instances.append(id)
        states.append(.running)
        calls.append(0)
    }

    func addVolume(
        _ id: VolumeID, snapshotID: String?, content: DeviceContent, isPartitioned: Bool
    ) {
        let volume = Volume(
            index: volumes.count, id: id, snapshotID: snapshotID, content: content,
            isPartitioned: isPartitioned)
        volumes.append(volume)
        changed(volume)
    }

    func volume(_ id: VolumeID) -> Volume {
        guard let volume = volumes.first(where: { $0.id == id }) else {
            preconditionFailure("\(id) is in no life")
        }
        return volume
    }

    func host(of id: InstanceID) -> Int? { instances.firstIndex(of: id) }

    // MARK: What DescribeVolumes tells

    private func describe(_ volume: Volume) -> VolumeDescription {
        let attachments = volume.attachment.map {
            [
                VolumeAttachment(
                    volume: volume.id, instance: instances[$0.host], device: $0.name,
                    state: $0.state)
            ]
        }
        return VolumeDescription(
            id: volume.id, state: volume.attachment == nil ? .available : .inUse,
            availabilityZone: Self.zone, size: 1, snapshotID: volume.snapshotID,
            attachments: attachments ?? [], tags: volume.tags)
    }

    private func changed(_ volume: Volume) {
        volume.history.append((scheduler.now, describe(volume)))
        if volume.history.count > 12 { volume.history.removeFirst() }
    }

    /// What is told of the volume, by a look that may be late.
    func told(_ volume: Volume) -> VolumeDescription {
        let random = scheduler.random.chance(faultsAreOn ? 250 : 0)
        let lag =
            random
            ? scheduler.random.duration(0...max(1, Int(plan.lagMax.milliseconds))) : .zero
        let seen = volume.history.last { $0.at + lag <= scheduler.now } ?? volume.history[0]
        var description = plan.lagMax == .zero ? describe(volume) : seen.description
        if world.fault == .staleDescribe {
            if volume.first == nil { volume.first = description }
            description = volume.first ?? description
        }
        if world.fault == .snapshotForgotten { description.snapshotID = nil }
        if world.fault == .leaseIgnored { description.tags = [:] }
        return description
    }

    // MARK: Calls

    private enum Fate { case done, refused(String), notSent, lostBefore, lostAfter }

    private func fate() -> Fate {
        guard faultsAreOn, scheduler.random.chance(plan.cloudFaults) else { return .done }
        switch scheduler.random.below(5) {
        case 0: return .refused("RequestLimitExceeded")
        case 1: return .refused("InternalError")
        case 2: return .notSent
        case 3: return .lostBefore
        default: return .lostAfter
        }
    }

    /// One call: it takes effect and is answered some time later, and takes effect also when the
    /// caller has ended meanwhile.
    func call<T: Sendable>(
        _ kind: LifeEvent.Kind, of host: Int, on volume: Int, by process: SimulatedProcess,
        _ apply: @escaping () -> Result<T, EC2Failure>
    ) async throws -> T {
        calls[host] += 1
        world.checkBudget(of: host)
        let fate = fate()
        let delay = scheduler.random.duration(5...60)
        trace.note(kind, host: host, volume: volume, 0, "\(fate)")
        return try await process.wait { reply in
            scheduler.after(delay) { [self] in
                let (result, more) = Self.end(fate, apply)
                let back = scheduler.random.duration(5...40) + more
                scheduler.after(back) { reply.end(result.mapError { $0 }) }
            }
        }
    }

    /// What the caller gets to see, and how much later than usual.
    private static func end<T>(
        _ fate: Fate, _ apply: () -> Result<T, EC2Failure>
    ) -> (Result<T, EC2Failure>, Duration) {
        switch fate {
        case .done: return (apply(), .zero)
        case .refused(let code):
            return (
                .failure(.refused(code: code, message: "simulated", requestID: "r")), .seconds(1)
            )
        case .notSent:
            return (
                .failure(.unanswered(reason: "no connection", mayHaveApplied: false)), .seconds(3)
            )
        case .lostBefore:
            return (.failure(.unanswered(reason: "reset", mayHaveApplied: true)), .seconds(2))
        case .lostAfter:
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
        guard volume.attachment == nil, !volume.isDeleted else { return }
        volume.isDeleted = true
        trace.note(.deleted, volume: volume.index)
    }

    // MARK: Attaching and detaching

    func attach(_ volume: Volume, to host: Int, as name: String) -> Result<
        VolumeAttachment, EC2Failure
    > {
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        if let attachment = volume.attachment {
            return .failure(
                Self.refusal("VolumeInUse", "\(volume.id) is attached to host \(attachment.host)"))
        }
        let isTaken =
            world.otherNames.contains(name)
            || volumes.contains { $0.attachment?.host == host && $0.attachment?.name == name }
        guard !isTaken else {
            return .failure(Self.refusal("InvalidParameterValue", "\(name) is already in use"))
        }
        guard states[host] == .running else {
            return .failure(Self.refusal("IncorrectInstanceState", "it is not running"))
        }
        if let most = plan.attachmentsMax,
            volumes.count(where: { $0.attachment?.host == host }) >= most
        {
            return .failure(Self.refusal("AttachmentLimitExceeded", "\(most) volumes are attached"))
        }
        let attachment = Attachment(host: host, name: name)
        volume.attachment = attachment
        trace.note(.attaching, host: host, volume: volume.index, 0, name)
        changed(volume)
        comeUp(volume, attachment)
        return .success(answer(volume, attachment))
    }

    private func answer(_ volume: Volume, _ attachment: Attachment) -> VolumeAttachment {
        VolumeAttachment(
            volume: volume.id, instance: instances[attachment.host], device: attachment.name,
            state: attachment.state)
    }

    private func comeUp(_ volume: Volume, _ attachment: Attachment) {
        let isFaulty = faultsAreOn && scheduler.random.chance(plan.cloudFaults / 2)
        var device: Duration? = scheduler.random.duration(300...2500)
        if isFaulty {
            switch scheduler.random.below(3) {
            case 0:
                attachment.isStuck = true
                device = nil
            case 1: device = nil
            default: device = scheduler.random.duration(5_000...40_000)
            }
        }
        if !attachment.isStuck {
            scheduler.after(scheduler.random.duration(300...2500)) { [self] in
                guard volume.attachment === attachment, !attachment.isLeaving else { return }
                attachment.state = .attached
                changed(volume)
            }
        }
        guard let device else { return }
        scheduler.after(device) { [self] in
            guard volume.attachment === attachment, !attachment.isLeaving,
                states[attachment.host] == .running
            else { return }
            world.hosts[attachment.host].kernel.plug(volume)
        }
    }

    func detach(
        _ volume: Volume, from host: Int, force: Bool, by caller: Int?
    ) -> Result<VolumeAttachment, EC2Failure> {
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        guard let attachment = volume.attachment, attachment.host == host else {
            return .failure(
                Self.refusal("IncorrectState", "\(volume.id) is in the 'available' state"))
        }
        if force { attachment.force = true }
        if !attachment.isLeaving {
            attachment.leavingSince = scheduler.now
            attachment.endedBy = caller
            attachment.state = .detaching
            trace.note(.detaching, host: host, volume: volume.index, caller ?? -1)
            changed(volume)
            leave(volume, attachment, after: scheduler.random.duration(500...4000))
        } else if force {
            leave(volume, attachment, after: .seconds(1))
        }
        return .success(answer(volume, attachment))
    }

    /// Ends an attachment once nothing on the host holds its device.
    private func leave(_ volume: Volume, _ attachment: Attachment, after delay: Duration) {
        scheduler.after(delay) { [self] in
            guard volume.attachment === attachment else { return }
            let kernel = world.hosts[attachment.host].kernel
            if !attachment.force, kernel.isHeld(volume) || isStuck(attachment) {
                if attachment.state != .busy {
                    attachment.state = .busy
                    trace.note(.busy, host: attachment.host, volume: volume.index)
                    changed(volume)
                }
                leave(volume, attachment, after: .seconds(3))
            } else {
                kernel.unplug(volume)
                scheduler.after(scheduler.random.duration(100...1500)) { [self] in
                    free(volume, attachment)
                }
            }
        }
    }

    /// What a host that went down held may take force.
    private func isStuck(_ attachment: Attachment) -> Bool {
        faultsAreOn && states[attachment.host] != .running && scheduler.random.chance(700)
    }

    private func free(_ volume: Volume, _ attachment: Attachment) {
        guard volume.attachment === attachment else { return }
        world.hosts[attachment.host].kernel.unplug(volume)
        volume.attachment = nil
        trace.note(.free, host: attachment.host, volume: volume.index)
        changed(volume)
    }

    /// An instance that is terminated gives its volumes back by itself.
    func instanceEnded(_ host: Int) {
        for volume in volumes {
            guard let attachment = volume.attachment, attachment.host == host else { continue }
            free(volume, attachment)
        }
    }

    /// The volumes that come back with an instance that boots.
    func instanceBooted(_ host: Int) {
        for volume in volumes {
            guard let attachment = volume.attachment, attachment.host == host,
                !attachment.isLeaving, !attachment.isStuck
            else { continue }
            world.hosts[host].kernel.plug(volume)
        }
    }

    // MARK: Tags

    func setTags(_ volume: Volume, _ tags: [String: String]) -> Result<Bool, EC2Failure> {
        changeTags(of: volume) { $0.merge(tags) { $1 } }
    }

    func removeTag(_ volume: Volume, _ key: String) -> Result<Bool, EC2Failure> {
        changeTags(of: volume) { $0[key] = nil }
    }

    private func changeTags(
        of volume: Volume, _ change: (inout [String: String]) -> Void
    ) -> Result<Bool, EC2Failure> {
        if plan.tagsForbidden {
            return .failure(Self.refusal("UnauthorizedOperation", "tags"))
        }
        if volume.isDeleted { return .failure(Self.notFound(volume)) }
        let holder = volume.tags[Self.lease]
        change(&volume.tags)
        let newHolder = volume.tags[Self.lease]
        if newHolder != holder { volume.leaseSince = newHolder.map { _ in scheduler.now } }
        changed(volume)
        return .success(true)
    }
}
