import Agent
import Base
import VolumeCore

/// The ports of one run of a host's daemon, connected to its host and to the shared EC2. Planted
/// faults act here.
final class LifePorts: @unchecked Sendable {
    let world: LifeWorld
    let host: LifeHost
    let process: SimulatedProcess
    /// The device that each volume had last, for a planted fault.
    private var lastDevices: [VolumeID: BlockDevice] = [:]

    private var scheduler: Scheduler { world.scheduler }
    private var cloud: LifeCloud { world.cloud }
    private var kernel: LifeKernel { host.kernel }
    private var fault: PlantedFault? { world.fault }

    init(host: LifeHost, process: SimulatedProcess) {
        self.host = host
        world = host.world
        self.process = process
    }

    var all: VolumeManager.Ports {
        VolumeManager.Ports(
            ec2: self, devices: self, fileSystems: self, state: self, host: self,
            time: fault == .noPatience ? Impatient(process: process) : process)
    }

    /// A step of the kernel or of a program, which takes effect some time later. If the process is
    /// killed in the meantime, a step of the kernel takes effect or not, at random, but for a
    /// machine that was restarted; a program ends with the process, perhaps half done: `ifCut`. A
    /// step that accesses a hanging device waits for it.
    private func step<T: Sendable>(
        _ range: ClosedRange<Int>, at volume: VolumeID? = nil, ifCut: (() -> Void)? = nil,
        _ effect: @escaping () -> Result<T, any Error>
    ) async throws -> T {
        let hang = volume.map { kernel.hang(of: cloud.volume($0)) } ?? .zero
        let boots = host.boots
        let program = ifCut.map { ifCut in
            process.programBegins { [self] in if scheduler.random.chance(500) { ifCut() } }
        }
        return try await process.waitToTheEnd { reply in
            scheduler.after(scheduler.random.duration(range) + hang) { [self] in
                if let program { process.programEnds(program) }
                if process.isAlive {
                    reply.end(effect())
                } else if program == nil, scheduler.random.chance(500), host.boots == boots {
                    _ = effect()
                }
            }
        }
    }

    private func kernelFails() -> Bool {
        cloud.faultsAreOn && scheduler.random.chance(world.plan.kernelFaults)
    }
}

/// A time after all waits.
private struct Impatient: TimeSource {
    let process: SimulatedProcess

    var now: Instant { process.now }
    var unixSeconds: Int64 { process.unixSeconds }

    func sleep(until instant: Instant) async throws { try await process.sleep(.milliseconds(1)) }
}

// MARK: EC2

extension LifePorts: EC2Port {
    func describeVolume(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> VolumeDescription? {
        let volume = cloud.volume(id)
        let told = try await cloud.call(
            .describe, of: host.index, on: volume.index, by: process, deadline: deadline
        ) { [self] _ in
            .success(volume.isDeleted ? nil : cloud.told(volume, to: host.index))
        }
        if volume.attachment(on: host.index) != nil { host.told(of: volume) }
        return told
    }

    func describeInstance(
        _ id: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription? {
        try await cloud.call(
            .describe, of: host.index, on: -1, by: process, deadline: deadline
        ) { [self] _ in
            guard let asked = cloud.host(of: id), !cloud.isUnknown(asked) else {
                return .success(nil)
            }
            var (state, isHibernated, own) = cloud.toldOfInstance(asked, by: host.index)
            if fault == .ownersSeemStopped, asked != host.index { state = .stopped }
            if fault == .hibernationHidden { isHibernated = false }
            if asked == host.index { host.told(ofAttachments: own) }
            let others = world.otherNames.map {
                BlockDeviceMapping(deviceName: $0, volume: nil)
            }
            return .success(
                InstanceDescription(
                    id: id, state: state, instanceType: cloud.limit?.instanceType ?? "",
                    availabilityZone: LifeCloud.zone, mappings: own + others,
                    networkInterfaces: cloud.networkInterfaces,
                    rootDeviceName: cloud.rootDeviceNames[asked], isHibernated: isHibernated))
        }
    }

    func attachmentLimit(
        of instanceType: String, by deadline: Instant
    ) async throws -> AttachmentLimit? {
        try await cloud.call(
            .describe, of: host.index, on: -1, by: process, deadline: deadline
        ) { [self] _ in .success(cloud.limit) }
    }

    func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment {
        let volume = cloud.volume(volume)
        host.attaching(volume, as: deviceName)
        return try await cloud.call(
            .attachVolume, of: host.index, on: volume.index, by: process, deadline: deadline
        ) { [self] _ in cloud.attach(volume, to: host.index, as: deviceName) }
    }

    func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment {
        let volume = cloud.volume(volume)
        let owner = cloud.host(of: instance) ?? -1
        let force = force || fault == .detachForced
        return try await cloud.call(
            .detachVolume, of: host.index, on: volume.index, by: process, sentBy: latest,
            deadline: deadline
        ) { [self] call in
            if fault == .detachDropped {
                return .success(
                    VolumeAttachment(
                        volume: volume.id, instance: instance, device: nil, state: .detaching))
            }
            if owner == host.index { host.detaching(volume) }
            world.checkDetach(of: volume, from: owner, by: host.index, force: force, call)
            return cloud.detach(volume, from: owner, force: force, by: host.index)
        }
    }

    func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let volume = cloud.volume(volume)
        let _: Bool = try await cloud.call(
            .createTags, of: host.index, on: volume.index, by: process, sentBy: latest,
            deadline: deadline
        ) { [self] call in
            if fault == .leaseNotWritten { return .success(true) }
            // If the volume stayed, nobody could know of such a late lease.
            if call.isLost, volume.attachment(on: host.index) != nil { return .success(true) }
            world.checkLease(on: volume, by: host.index, call)
            return cloud.setTags(volume, tags, by: host.index, isLate: call.isLate)
        }
    }

    func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool {
        try await cloud.call(
            .describe, of: host.index, on: cloud.volume(volume).index, by: process,
            deadline: deadline
        ) { [self] _ in .success(!host.tagsForbidden || fault == .permissionAssumed) }
    }

    func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let volume = cloud.volume(volume)
        let _: Bool = try await cloud.call(
            .deleteTags, of: host.index, on: volume.index, by: process, sentBy: latest,
            deadline: deadline
        ) { [self] call in
            guard fault != .leaseKept, volume.tags[key] == value else {
                return .success(true)
            }
            if key == LifeCloud.lease {
                world.checkLeaseDrop(of: volume, by: host.index, call)
            }
            return cloud.removeTag(volume, key, by: host.index, isLate: call.isLate)
        }
    }
}

// MARK: Devices

extension LifePorts: DevicePort {
    func find(_ volume: VolumeID, attachedAs deviceName: String?) async throws -> BlockDevice? {
        try await step(world.times.find) { [self] in .success(present(volume, deviceName)) }
    }

    private func present(_ id: VolumeID, _ name: String?) -> BlockDevice? {
        if fault == .anyDeviceTaken { return kernel.devices.first { $0.isPresent }?.node }
        if fault == .oldDeviceTaken, let last = lastDevices[id] { return last }
        let device =
            host.isXen
            ? name.flatMap { kernel.device(attachedAs: $0) } : kernel.device(of: cloud.volume(id))
        if let node = device?.node { lastDevices[id] = node }
        return device?.node
    }

    func arrival(
        of volume: VolumeID, attachedAs deviceName: String, by deadline: Instant
    ) async throws -> BlockDevice {
        while true {
            if let device = present(volume, deviceName) { return device }
            guard scheduler.now < deadline || fault == .arrivalWithoutDeadline else {
                throw OperationError(
                    .deadline, doing: "wait for \(volume) to come", found: "its device did not come"
                )
            }
            let end =
                fault == .arrivalWithoutDeadline ? scheduler.now + .seconds(3600) : deadline
            try await kernel.deviceChange(of: cloud.volume(volume), by: end, process)
        }
    }

    func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws {
        if fault == .departureNotAwaited { return }
        let volume = cloud.volume(volume)
        while let present = kernel.device(device), host.isXen || present.volume === volume {
            guard scheduler.now < deadline else {
                throw OperationError(
                    .deadline, doing: "wait for \(volume.id) to go", found: "it is still here")
            }
            try await kernel.deviceChange(of: volume, by: deadline, process)
        }
    }

    func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice {
        guard cloud.volume(volume).partition == number else {
            throw OperationError(
                .device, doing: "find partition \(number) of \(volume)", found: "there is none")
        }
        return LifeKernel.partition(number, of: device)
    }
}

// MARK: File systems

extension LifePorts: FileSystemPort {
    /// The opened device, proved to be the volume (unless a planted fault skips the proof). Once it
    /// is gone it fails, and a device with its name is then another one.
    private func proved(
        _ node: BlockDevice, _ id: VolumeID, _ opened: LifeKernel.Device?
    ) -> Result<LifeKernel.Device, any Error> {
        let isProved = fault != .anyDeviceTaken && fault != .oldDeviceTaken && !host.isXen
        guard let device = kernel.device(node), !isProved || device.volume.id == id else {
            return .failure(
                OperationError(.device, doing: "open \(node.path)", found: "it is not \(id)"))
        }
        guard device === opened else {
            return .failure(
                OperationError(.device, doing: "use \(node.path)", found: "it has gone"))
        }
        return .success(device)
    }

    func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent {
        let opened = kernel.device(device)
        return try await step(world.times.probe, at: volume) { [self] in
            let isReadError = kernelFails()
            return proved(device, volume, opened).flatMap { found in
                if isReadError {
                    if fault == .readErrorIsBlank { return .success(.blank) }
                    return .failure(
                        OperationError(.system, doing: "read \(device.path)", found: "EIO"))
                }
                if fault == .unknownIsBlank {
                    if case .fileSystem = found.volume.content {} else { return .success(.blank) }
                }
                if found.volume.isPartitioned, !LifeKernel.isPartition(device) {
                    return .success(.signature("a dos partition table"))
                }
                return .success(found.volume.content)
            }
        }
    }

    func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws {
        let opened = kernel.device(device)
        // mkfs dies with the daemon that started it, and is dead before the next one starts.
        let ifCut = { [self] in
            guard case .success(let found) = proved(device, volume, opened),
                found.volume.content == .blank
            else { return }
            found.volume.content = .unfinished(type: plan.type.rawValue)
        }
        world.checkChange("formats", cloud.volume(volume), on: host.index)
        let _: Bool = try await step(world.times.format, at: volume, ifCut: ifCut) { [self] in
            proved(device, volume, opened).map { found in
                world.checkFormat(of: found.volume, for: volume, as: plan, on: host.index)
                found.volume.content = .fileSystem(
                    type: plan.type.rawValue, label: nil, uuid: nil)
                found.volume.data = []
                found.volume.isSmall = false
                return true
            }
        }
    }

    func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String? {
        let volume = cloud.volume(volume)
        world.checkChange("repairs", volume, on: host.index)
        guard volume.isUnclean, type.hasPrefix("ext") else { return nil }
        volume.isUnclean = false
        return "repaired"
    }

    func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth? {
        try await step(world.times.grow, at: volume) { [self] in
            guard let superBlock = kernel.mounts[mountpoint] else {
                return .failure(
                    OperationError(.system, doing: "grow \(volume)", found: "it is not mounted"))
            }
            world.checkChange("grows", superBlock, on: host.index)
            guard superBlock.device.volume.isSmall else { return .success(nil) }
            superBlock.device.volume.isSmall = false
            return .success(Growth(from: 1 << 30, to: 2 << 30))
        }
    }

    func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws {
        if let superBlock = kernel.mounts[mountpoint] {
            world.checkChange("gives an owner to", superBlock, on: host.index)
        }
    }

    func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome {
        let isReadOnly = access != .writable
        let canGrow = cloud.volume(volume).isSmall
        let isUnreplayed = cloud.volume(volume).isUnreplayed
        if fault == .mountAcknowledgedEarly {
            process.spawn { [self] in
                try? await reallyMount(device, volume, type, mountpoint, isReadOnly)
            }
        } else {
            try await reallyMount(device, volume, type, mountpoint, isReadOnly)
        }
        return MountOutcome(
            canGrow: canGrow, mayBeOutdated: isUnreplayed && access == .withoutReplay)
    }

    private func reallyMount(
        _ device: BlockDevice, _ volume: VolumeID, _ type: String, _ mountpoint: String,
        _ readOnly: Bool
    ) async throws {
        let fails = kernelFails()
        let opened = kernel.device(device)
        let _: Bool = try await step(fails ? 1000...8000 : world.times.mount, at: volume) {
            [self] in
            proved(device, volume, opened).flatMap { found in
                let isReadOnly = readOnly && fault != .readOnlyDropped
                world.checkMount(
                    of: found, by: device, for: volume, on: host.index, readOnly: isReadOnly)
                let isMounted =
                    !fails
                    && kernel.mount(
                        found, by: device, type: type, at: mountpoint, readOnly: isReadOnly)
                guard isMounted else {
                    return .failure(
                        OperationError(.system, doing: "mount \(mountpoint)", found: "EBUSY"))
                }
                world.trace.note(.kernelMount, host: host.index, volume: found.volume.index)
                return .success(true)
            }
        }
    }

    func unmount(_ mountpoint: String, of volume: VolumeID) async throws {
        let fails = kernelFails()
        if fault == .unmountDropped { return }
        // The failure may be caused by the loss of the device.
        if fails, scheduler.random.chance(200) { world.flap(cloud.volume(volume)) }
        do {
            let _: Bool = try await step(world.times.unmount, at: volume) { [self] in
                let index = cloud.volume(volume).index
                guard !fails else {
                    world.trace.note(.busyUnmount, host: host.index, volume: index)
                    return .failure(
                        OperationError(.system, doing: "unmount \(mountpoint)", found: "EBUSY"))
                }
                guard kernel.mounts[mountpoint] != nil else { return .success(true) }
                world.checkUnmount(of: index, on: host.index)
                _ = kernel.unmount(mountpoint)
                world.trace.note(.kernelUnmount, host: host.index, volume: index)
                return .success(true)
            }
        } catch let error as OperationError {
            if fault != .unmountErrorDropped { throw error }
        }
    }

    func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState {
        guard let superBlock = kernel.mounts[mountpoint], superBlock.node.number == device.number
        else { return .notMounted }
        return superBlock.isShutDown && fault != .shutDownHidden ? .broken : .mounted
    }

    func isHeld(_ device: BlockDevice) async throws -> Bool {
        if fault == .neverHeld { return false }
        return try await step(world.times.open) { [self] in
            guard let found = kernel.device(device) else {
                return .failure(
                    OperationError(.device, doing: "open \(device.path)", found: "ENXIO"))
            }
            return .success(kernel.isHeld(found.volume))
        }
    }

    func mounted() async throws -> [MountedFileSystem] {
        if fault == .mountsNotAdopted { return [] }
        return try await step(world.times.listMounts) { [self] in
            .success(
                kernel.mounts.sorted { $0.key < $1.key }.map {
                    MountedFileSystem(
                        mountpoint: $0.key, device: $0.value.node.number,
                        type: $0.value.type, source: $0.value.node.path, readOnly: $0.value.readOnly
                    )
                })
        }
    }

    func kernelRelease() async -> String { "6.1.0" }
}

// MARK: State and host

extension LifePorts: StatePort, HostPort {
    func load(inBoot boot: String) async throws -> SavedState {
        try await step(world.times.load) { [self] in
            var records = fault == .nothingLoaded ? [] : host.disk
            if let counted = host.countsBoot ?? host.diskOwner?.boot, counted != boot {
                for index in records.indices { records[index].mounts = MountCounts() }
            }
            return .success(SavedState(owner: host.diskOwner, records: records))
        }
    }

    func save(_ changes: [SavedChange], of owner: StateOwner) async throws {
        if fault == .nothingSaved { return }
        if fault == .saveAcknowledgedEarly {
            process.spawn { [self] in try? await reallySave(changes, owner) }
        } else {
            try await reallySave(changes, owner)
        }
    }

    private func reallySave(_ changes: [SavedChange], _ owner: StateOwner) async throws {
        let _: Bool = try await step(world.times.save) { [self] in
            host.disk.apply(changes)
            host.diskOwner = owner
            return .success(true)
        }
    }

    func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws {
        if fault == .nothingSaved { return }
        if fault == .saveAcknowledgedEarly {
            process.spawn { [self] in try? await reallySaveCounts(records, owner) }
        } else {
            try await reallySaveCounts(records, owner)
        }
    }

    private func reallySaveCounts(
        _ records: [VolumeRecord], _ owner: StateOwner
    ) async throws {
        let _: Bool = try await step(world.times.saveCounts) { [self] in
            host.disk.takeCounts(of: records)
            host.countsBoot = owner.boot
            return .success(true)
        }
    }

    func keepCopy(named suffix: String) async throws -> String { suffix }

    func conclude(of owner: StateOwner) async throws {}

    func host(by deadline: Instant) async throws -> Host {
        Host(instance: cloud.instances[host.index], availabilityZone: LifeCloud.zone)
    }

    var boot: String { "\(host.index) \(host.boots)" }
}
