package import Base
package import VolumeCore

/// EC2 for the volumes of one zone and the instances: states that change some time after a call,
/// calls that take time, and faults on demand.
package final class SimulatedCloud: @unchecked Sendable {
    package struct Latency: Sendable {
        package var call: Duration = .milliseconds(20)
        package var device: Duration = .seconds(1)
        package var detach: Duration = .seconds(2)
        /// The time from the disappearance of a device until EC2 says that its volume is free.
        package var free: Duration = .zero
    }

    package var latency = Latency()
    package var volumes: [VolumeID: VolumeDescription] = [:]
    /// What is on each volume.
    package var content: [VolumeID: DeviceContent] = [:]
    /// The calls so far, oldest first: `AttachVolume vol-… /dev/sdf`.
    package private(set) var calls: [String] = []
    /// The errors of an action's next calls, which are then not executed; taken from the front.
    package var refusals: [String: [EC2Failure]] = [:]
    package var tagsForbidden = false
    /// What EC2 says of an instance besides its state.
    package var rootDeviceNames: [InstanceID: String] = [:]
    package var hibernated: Set<InstanceID> = []
    /// Instances that EC2 does not know, or not yet.
    package var unknownInstances: Set<InstanceID> = []
    /// How long calls of an action wait before they are sent, as for the request budget.
    package var sendDelays: [String: Duration] = [:]
    /// Actions whose next response is lost after the call was applied.
    package var lostAnswers: Set<String> = []
    /// Volumes whose device never comes.
    package var lostDevices: Set<VolumeID> = []
    /// What DescribeVolumes returns instead of the truth.
    package var staleDescriptions: [VolumeID: VolumeDescription] = [:]
    /// Attached volumes that DescribeInstances does not return yet.
    package var unlisted: Set<VolumeID> = []
    /// Volumes that an instance releases only by force.
    package var stuckDetachments: Set<VolumeID> = []
    /// The states of instances that do not run.
    package var instanceStates: [InstanceID: InstanceDescription.State] = [:]
    /// How many volumes the host can have.
    package var attachmentLimit: AttachmentLimit?
    /// Volumes that something else has attached to the host.
    package var otherVolumes: [VolumeID] = []
    package var networkInterfaces = 1
    /// The device names that the host uses for what is not in `volumes`.
    package var otherDeviceNames: [String] = []

    /// Whether the host knows devices by their names alone, as on Xen.
    package var isXen = false

    package var host: Host
    /// The error of a call for the host.
    package var hostError: OperationError?
    /// How long a call for the host takes.
    package var hostTime: Duration = .zero
    /// The host's boot.
    package var boot = "first"
    let time: SimulatedExecutor
    private var present: [VolumeID: BlockDevice] = [:]
    private var nextMinor: UInt32 = 1

    package init(host: Host, time: SimulatedExecutor) {
        self.host = host
        self.time = time
    }

    /// Adds a volume in the host's zone, attached to `owner` if one is given.
    package func add(
        _ id: VolumeID, _ content: DeviceContent, attachedTo owner: InstanceID? = nil,
        as name: String = "/dev/sdf", zone: String? = nil
    ) {
        let attachments = owner.map {
            [VolumeAttachment(volume: id, instance: $0, device: name, state: .attached)]
        }
        volumes[id] = VolumeDescription(
            id: id, state: owner == nil ? .available : .inUse,
            availabilityZone: zone ?? host.availabilityZone, size: 1,
            attachments: attachments ?? [])
        self.content[id] = content
        if owner == host.instance { deviceComes(id) }
    }

    package func device(of id: VolumeID) -> BlockDevice? { present[id] }

    /// The device of an attached volume disappears, and EC2 does not know.
    package func loseDevice(of id: VolumeID) { present[id] = nil }

    /// The device of a volume that is attached to the host appears, again or late.
    package func bringDevice(of id: VolumeID) { deviceComes(id) }

    /// The device that the host considers the volume: on Xen, whichever has the name.
    func device(of id: VolumeID, attachedAs name: String?) -> BlockDevice? {
        guard isXen else { return present[id] }
        return present.values.first { $0.path == name.map { Self.node(of: $0) } }
    }

    /// The volume of the device, whatever the host considers it to be.
    func volume(of device: BlockDevice) -> VolumeID? { present.first { $0.value == device }?.key }

    /// The calls of one action.
    package func calls(of action: String) -> [String] { calls.filter { $0.hasPrefix(action) } }
}

extension SimulatedCloud: EC2Port {
    package func describeVolume(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> VolumeDescription? {
        try await call("DescribeVolumes", "\(id)") { staleDescriptions[id] ?? volumes[id] }
    }

    package func describeInstance(
        _ id: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription? {
        try await call("DescribeInstances", "\(id)") {
            if unknownInstances.contains(id) { return nil }
            let own = volumes.values.flatMap(\.attachments).filter {
                $0.instance == id && !unlisted.contains($0.volume)
            }
            let mappings = own.compactMap { attachment in
                attachment.device.map {
                    BlockDeviceMapping(deviceName: $0, volume: attachment.volume)
                }
            }
            let others = otherDeviceNames.map { BlockDeviceMapping(deviceName: $0, volume: nil) }
            let more = otherVolumes.enumerated().map {
                BlockDeviceMapping(deviceName: "/dev/sdz\($0)", volume: $1)
            }
            return InstanceDescription(
                id: id, state: instanceStates[id] ?? .running,
                instanceType: attachmentLimit?.instanceType ?? "",
                mappings: mappings + others + more, networkInterfaces: networkInterfaces,
                rootDeviceName: rootDeviceNames[id], isHibernated: hibernated.contains(id))
        }
    }

    package func attachmentLimit(
        of instanceType: String, by deadline: Instant
    ) async throws -> AttachmentLimit? {
        try await call("DescribeInstanceTypes", instanceType) { attachmentLimit }
    }

    package func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment {
        try await call("AttachVolume", "\(volume) \(deviceName)") {
            guard let description = volumes[volume] else { throw notFound(volume) }
            guard description.state == .available else {
                throw refusal("VolumeInUse", "\(volume) is already attached to an instance")
            }
            let names = volumes.values.flatMap(\.attachments).compactMap(\.device)
            guard !names.contains(deviceName), !otherDeviceNames.contains(deviceName) else {
                throw refusal("InvalidParameterValue", "\(deviceName) is already in use")
            }
            if let limit = attachmentLimit {
                let own = volumes.values.flatMap(\.attachments).count { $0.instance == instance }
                let interfaces = limit.isShared ? networkInterfaces - 1 : 0
                guard own + otherVolumes.count + interfaces < limit.volumesMax else {
                    throw refusal("AttachmentLimitExceeded", "\(instance) has too many volumes")
                }
            }
            let attachment = VolumeAttachment(
                volume: volume, instance: instance, device: deviceName, state: .attaching)
            volumes[volume]?.state = .inUse
            volumes[volume]?.attachments = [attachment]
            later(latency.device) { [self] in
                guard volumes[volume]?.attachments == [attachment] else { return }
                volumes[volume]?.attachments[0].state = .attached
                if instance == host.instance, !lostDevices.contains(volume) { deviceComes(volume) }
            }
            return attachment
        }
    }

    package func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment {
        try await call(
            "DetachVolume", "\(volume) \(instance)\(force ? " by force" : "")", sentBy: latest
        ) {
            guard let attachment = volumes[volume]?.attachments.first,
                attachment.instance == instance, attachment.state != .detaching || force
            else { throw refusal("IncorrectState", "\(volume) is not attached") }
            volumes[volume]?.attachments[0].state = .detaching
            if stuckDetachments.contains(volume), !force { return attachment }
            later(latency.detach) { [self] in
                present[volume] = nil
                later(latency.free) { [self] in
                    volumes[volume]?.attachments = []
                    volumes[volume]?.state = .available
                }
            }
            return attachment
        }
    }

    package func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let told = tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        try await call(
            "CreateTags", "\(volume) \(told.joined(separator: ","))", sentBy: latest
        ) {
            guard volumes[volume] != nil else { throw notFound(volume) }
            if tagsForbidden { throw refusal("UnauthorizedOperation", "no tags") }
            volumes[volume]?.tags.merge(tags) { $1 }
        }
    }

    package func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool {
        try await call("CreateTags", "dry run \(volume)") { !tagsForbidden }
    }

    package func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        try await call("DeleteTags", "\(volume) \(key)", sentBy: latest) {
            guard let tags = volumes[volume]?.tags else { throw notFound(volume) }
            if tags[key] == value { volumes[volume]?.tags[key] = nil }
        }
    }

    private func call<T>(
        _ action: String, _ subject: String, sentBy latest: Instant? = nil,
        _ apply: () throws -> T
    ) async throws -> T {
        if let delay = sendDelays[action] { try await time.sleep(until: time.now + delay) }
        if let latest, time.now > latest {
            throw EC2Failure.outdated(reason: "\(action) could not go out in time")
        }
        calls.append("\(action) \(subject)")
        try await time.sleep(until: time.now + latency.call)
        if var failures = refusals[action], !failures.isEmpty {
            let failure = failures.removeFirst()
            refusals[action] = failures
            throw failure
        }
        let result = try apply()
        if lostAnswers.remove(action) != nil {
            throw EC2Failure.unanswered(reason: "connection reset", mayHaveApplied: true)
        }
        return result
    }

    private func later(_ delay: Duration, _ body: @escaping @Sendable () -> Void) {
        let instant = time.now + delay
        Task(executorPreference: time) { [time] in
            try? await time.sleep(until: instant)
            body()
        }
    }

    private func deviceComes(_ id: VolumeID) {
        let name = volumes[id]?.attachments.first?.device
        let path = isXen ? Self.node(of: name ?? "") : "/dev/nvme\(nextMinor)n1"
        present[id] = BlockDevice(
            path: path, number: DeviceNumber(major: 259, minor: nextMinor))
        nextMinor += 1
    }

    private static func node(of name: String) -> String { "/dev/xvd\(name.dropFirst(7))" }

    private func refusal(_ code: String, _ message: String) -> EC2Failure {
        .refused(code: code, message: message, requestID: "simulated")
    }

    private func notFound(_ id: VolumeID) -> EC2Failure {
        refusal("InvalidVolume.NotFound", "The volume '\(id)' does not exist.")
    }
}

extension SimulatedCloud: HostPort {
    package func host(by deadline: Instant) async throws -> Host {
        if hostTime > .zero { try await time.sleep(until: time.now + hostTime) }
        if let hostError { throw hostError }
        return host
    }
}
