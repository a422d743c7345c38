import Base
import VolumeCore

@testable import Simulation

/// The life's EC2 as the daemon under test reaches it, with faults on demand, and as somebody
/// else changes it.
final class FixtureCloud: @unchecked Sendable {
    struct Latency: Sendable {
        var call: Duration = .milliseconds(20)
        var device: Duration = .seconds(1)
        var detach: Duration = .seconds(2)
        /// The time from the disappearance of a device until EC2 says that its volume is free.
        var free: Duration = .zero
    }

    private let stage: Stage
    var latency = Latency() { didSet { setTimes() } }
    /// The calls so far, oldest first: `AttachVolume vol-… /dev/sdf`.
    private(set) var calls: [String] = []
    /// The errors of the next calls that begin like that, `AttachVolume` or `DeleteTags vol-… key`,
    /// which EC2 then does not apply. Taken from the front.
    var refusals: [String: [EC2Failure]] = [:]
    /// How long calls of an action wait before they are sent, as for the request budget.
    var sendDelays: [String: Duration] = [:]
    /// Actions whose next response is lost after the call was applied.
    var lostAnswers: Set<String> = []
    /// What DescribeVolumes returns instead of the truth.
    var staleDescriptions: [VolumeID: VolumeDescription] = [:]
    /// Attached volumes that DescribeInstances does not return yet.
    var unlisted: Set<VolumeID> = []
    /// The error of a call to the metadata service.
    var hostError: OperationError?
    /// How long a call to the metadata service takes.
    var hostTime: Duration = .zero
    /// The host's boot.
    var boot = "first"

    init(_ stage: Stage) {
        self.stage = stage
        setTimes()
    }

    private func setTimes() {
        stage.life.times.call = latency.call.range
        stage.life.times.device = latency.device.range
        stage.life.times.attached = latency.device.range
        stage.life.times.detach = latency.detach.range
        stage.life.times.free = latency.free.range
    }

    /// The calls of one action.
    func calls(of action: String) -> [String] { calls.filter { $0.hasPrefix(action) } }

    // MARK: The truth

    /// The volumes as EC2 knows them. A test that changes one does what somebody else might do; the
    /// devices stay as they are.
    var volumes: [VolumeID: VolumeDescription] {
        get {
            let known = stage.cloud.volumes.filter { !$0.isDeleted }
            return Dictionary(
                uniqueKeysWithValues: known.map { ($0.id, stage.cloud.describe($0)) })
        }
        set {
            for volume in stage.cloud.volumes where !volume.isDeleted {
                guard let wanted = newValue[volume.id] else {
                    volume.attachments = []
                    stage.cloud.delete(volume)
                    continue
                }
                guard wanted != stage.cloud.describe(volume) else { continue }
                change(volume, to: wanted)
            }
        }
    }

    private func change(_ volume: LifeCloud.Volume, to wanted: VolumeDescription) {
        for instance in wanted.attachments.compactMap(\.instance) { _ = stage.index(of: instance) }
        stage.cloud.change(volume, to: wanted)
    }

    /// What is on each volume.
    var content: [VolumeID: DeviceContent] {
        get {
            Dictionary(uniqueKeysWithValues: stage.cloud.volumes.map { ($0.id, $0.content) })
        }
        set {
            for volume in stage.cloud.volumes {
                newValue[volume.id].map { volume.content = $0 }
            }
        }
    }

    /// Adds a volume in the host's zone, or makes a known one anew, attached to `owner` if one is
    /// given. Its device is on the host only if the host is the owner.
    func add(
        _ id: VolumeID, _ content: DeviceContent, attachedTo owner: InstanceID? = nil,
        as name: String = "/dev/sdf", zone: String? = nil
    ) {
        let volume = stage.cloud.volume(id)
        volume.isDeleted = false
        volume.content = content
        volume.attachments = []
        let attachments = owner.map {
            [VolumeAttachment(volume: id, instance: $0, device: name, state: .attached)]
        }
        change(
            volume,
            to: VolumeDescription(
                id: id, state: .available, availabilityZone: zone ?? LifeCloud.zone, size: 1,
                volumeType: "gp3", attachments: attachments ?? []))
        if owner == Fixture.here { bringDevice(of: id) } else { loseDevice(of: id) }
    }

    /// EC2 has the volume attached to another instance, while its device is still on the host.
    func move(_ id: VolumeID, to owner: InstanceID) {
        volumes[id]?.attachments = [
            VolumeAttachment(volume: id, instance: owner, device: "/dev/sdf", state: .attached)
        ]
        volumes[id]?.tags = [Lease.tag: "\(owner)"]
    }

    func device(of id: VolumeID) -> BlockDevice? { stage.device(of: id) }

    /// The device of an attached volume disappears, and EC2 does not know.
    func loseDevice(of id: VolumeID) { stage.host.kernel.unplug(stage.cloud.volume(id)) }

    /// The device of a volume that is attached to the host appears, again or late.
    func bringDevice(of id: VolumeID) { stage.host.kernel.plug(stage.cloud.volume(id)) }

    /// Somebody, or an earlier run of the daemon, attaches a volume to the host.
    func attach(_ id: VolumeID, as name: String, byHand: Bool) async throws {
        try await call("AttachVolume", "\(id) \(name)") {
            try await self.stage.process.sleep(self.latency.call)
            _ = try self.stage.cloud.attach(
                self.stage.cloud.volume(id), to: self.stage.host.index, as: name, byHand: byHand
            ).get()
        }
    }

    /// Somebody detaches a volume from the host.
    func detachByHand(_ id: VolumeID, force: Bool = false) async throws {
        try await call("DetachVolume", "\(id) by hand") {
            try await self.stage.process.sleep(self.latency.call)
            _ = try self.stage.cloud.detach(
                self.stage.cloud.volume(id), from: self.stage.host.index, force: force, by: nil
            ).get()
        }
    }

    /// Gives a volume a partition with that content.
    func partition(_ id: VolumeID, _ number: Int, _ content: DeviceContent) {
        stage.cloud.volume(id).partition = number
        stage.cloud.volume(id).content = content
    }

    // MARK: What is wrong with volumes and instances

    /// Whether the host knows devices by their names alone, as on Xen.
    var isXen: Bool {
        get { stage.host.isXen }
        set { stage.host.isXen = newValue }
    }

    var tagsForbidden: Bool {
        get { stage.host.tagsForbidden }
        set { stage.host.tagsForbidden = newValue }
    }

    /// Volumes whose device never comes.
    var lostDevices: Set<VolumeID> {
        get { Set(stage.cloud.volumes.filter(\.isWithoutDevice).map(\.id)) }
        set {
            for volume in stage.cloud.volumes {
                volume.isWithoutDevice = newValue.contains(volume.id)
            }
        }
    }

    /// Volumes that an instance releases only by force.
    var stuckDetachments: Set<VolumeID> {
        get { Set(stage.cloud.volumes.filter(\.leavesOnlyByForce).map(\.id)) }
        set {
            for volume in stage.cloud.volumes {
                volume.leavesOnlyByForce = newValue.contains(volume.id)
            }
        }
    }

    /// The states of instances that do not run.
    var instanceStates: [InstanceID: InstanceDescription.State] = [:] {
        didSet {
            for (id, state) in instanceStates {
                let index = stage.index(of: id)
                stage.cloud.states[index] = state
                guard [.stopped, .terminated].contains(state) else { continue }
                stage.life.hosts[index].stop(terminated: state == .terminated)
            }
        }
    }

    /// Instances that EC2 does not know, or not yet.
    var unknownInstances: Set<InstanceID> = [] {
        didSet {
            for id in unknownInstances {
                stage.cloud.unknownUntil[stage.index(of: id)] = Instant(nanoseconds: .max)
            }
        }
    }

    var rootDeviceNames: [InstanceID: String] = [:] {
        didSet {
            for (id, name) in rootDeviceNames {
                stage.cloud.rootDeviceNames[stage.index(of: id)] = name
            }
        }
    }

    /// How many volumes the host can have.
    var attachmentLimit: AttachmentLimit? {
        get { stage.cloud.limit }
        set { stage.cloud.limit = newValue }
    }

    var networkInterfaces: Int {
        get { stage.cloud.networkInterfaces }
        set { stage.cloud.networkInterfaces = newValue }
    }

    /// The device names that the host uses for what is not in `volumes`.
    var otherDeviceNames: [String] {
        get { stage.life.otherNames }
        set { stage.life.otherNames = newValue }
    }

    /// Volumes that something else has attached to the host.
    var otherVolumes: [VolumeID] = [] {
        didSet {
            for volume in stage.cloud.strangers {
                var description = stage.cloud.describe(volume)
                description.attachments = []
                stage.cloud.change(volume, to: description)
                stage.host.kernel.unplug(volume)
            }
            for (number, id) in otherVolumes.enumerated() { attachStranger(id, number) }
        }
    }

    private func attachStranger(_ id: VolumeID, _ number: Int) {
        let volume = stage.cloud.find(id) ?? stage.cloud.addStranger(id)
        var description = stage.cloud.describe(volume)
        description.attachments = [
            VolumeAttachment(
                volume: id, instance: Fixture.here, device: "/dev/sdz\(number)", state: .attached)
        ]
        stage.cloud.change(volume, to: description)
        stage.host.kernel.plug(volume)
    }
}

extension FixtureCloud: EC2Port {
    private func refusal(of call: String) -> EC2Failure? {
        let refused = refusals.keys.sorted().first {
            call.hasPrefix($0) && refusals[$0]?.isEmpty == false
        }
        return refused.flatMap { refusals[$0]?.removeFirst() }
    }

    private func call<T: Sendable>(
        _ action: String, _ subject: String, sentBy latest: Instant? = nil,
        _ send: () async throws -> T
    ) async throws -> T {
        if let delay = sendDelays[action] { try await stage.process.sleep(delay) }
        if let latest, stage.now > latest {
            throw EC2Failure.outdated(reason: "\(action) could not go out in time")
        }
        calls.append("\(action) \(subject)")
        if let failure = refusal(of: "\(action) \(subject)") {
            try await stage.process.sleep(latency.call)
            throw failure
        }
        let response = try await send()
        if lostAnswers.remove(action) != nil {
            throw EC2Failure.unanswered(reason: "connection reset", mayHaveApplied: true)
        }
        return response
    }

    func describeVolume(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> VolumeDescription? {
        try await call("DescribeVolumes", "\(id)") {
            let told = try await stage.ports.describeVolume(id, by: deadline)
            return staleDescriptions[id] ?? told
        }
    }

    func describeInstance(
        _ id: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription? {
        _ = stage.index(of: id)
        return try await call("DescribeInstances", "\(id)") {
            var told = try await stage.ports.describeInstance(id, by: deadline)
            told?.mappings.removeAll { $0.volume.map(unlisted.contains) ?? false }
            return told
        }
    }

    func attachmentLimit(
        of instanceType: String, by deadline: Instant
    ) async throws -> AttachmentLimit? {
        try await call("DescribeInstanceTypes", instanceType) {
            try await stage.ports.attachmentLimit(of: instanceType, by: deadline)
        }
    }

    func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment {
        try await call("AttachVolume", "\(volume) \(deviceName)") {
            try await stage.ports.attach(volume, to: instance, as: deviceName, by: deadline)
        }
    }

    func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment {
        try await call(
            "DetachVolume", "\(volume) \(instance)\(force ? " by force" : "")", sentBy: latest
        ) {
            try await stage.ports.detach(
                volume, from: instance, force: force, sentBy: latest, by: deadline)
        }
    }

    func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let told = tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        try await call(
            "CreateTags", "\(volume) \(told.joined(separator: ","))", sentBy: latest
        ) {
            try await stage.ports.setTags(tags, on: volume, sentBy: latest, by: deadline)
        }
    }

    func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool {
        try await call("CreateTags", "dry run \(volume)") {
            try await stage.ports.maySetTags(tags, on: volume, by: deadline)
        }
    }

    func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        try await call("DeleteTags", "\(volume) \(key)", sentBy: latest) {
            try await stage.ports.removeTag(
                key, value: value, from: volume, sentBy: latest, by: deadline)
        }
    }
}

extension FixtureCloud: HostPort {
    func host(by deadline: Instant) async throws -> Host {
        if hostTime > .zero { try await stage.process.sleep(hostTime) }
        if let hostError { throw hostError }
        return try await stage.ports.host(by: deadline)
    }
}
