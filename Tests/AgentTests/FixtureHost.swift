import Base
import VolumeCore

@testable import Simulation

/// The kernel of the life's host as the daemon under test reaches it, with faults on demand, and
/// what was done there.
final class FixtureHost: @unchecked Sendable {
    private let stage: Stage
    private var kernel: LifeKernel { stage.host.kernel }

    /// Volumes that were mounted, oldest first.
    private(set) var everMounted: [VolumeID] = []
    /// Volumes that were formatted, oldest first.
    private(set) var formatted: [VolumeID] = []
    /// The mountpoints of unmount requests, oldest first.
    private(set) var unmountsAsked: [String] = []
    /// The access of each volume's last mount.
    private(set) var accesses: [VolumeID: MountAccess] = [:]
    /// How often it was checked whether a mounted file system can grow.
    private(set) var growthsAsked = 0
    /// Operations on file systems other than formatting and mounting: `repair ext4`, `own 1000:-`.
    private(set) var actions: [String] = []
    /// Consumed by the next calls: unmount fails as for a busy file system.
    var busyUnmounts = 0
    /// Consumed by the next looks at a mount: how long they take to report the state at their
    /// beginning.
    var lookTimes: [Duration] = []
    /// Consumed by the next waits for the disappearance of a device: their error.
    var departureErrors: [any Error] = []
    /// Whether there is a device that may be any volume's.
    var hasUnreadableDevice = false
    /// Consumed by the next call: growing fails.
    var failGrowth = false
    /// Consumed by the next call: owner and permissions cannot be set.
    var failOwnership = false
    /// Nodes that do not belong to a volume in the cloud, by the device names that they occupy.
    var foreignNodes: [String: BlockDevice] = [:]
    private var hangs: [VolumeID: Hang] = [:]

    init(_ stage: Stage) { self.stage = stage }

    var mounts: [String: MountedFileSystem] {
        Dictionary(
            uniqueKeysWithValues: kernel.mounts.map { mountpoint, superBlock in
                (
                    mountpoint,
                    MountedFileSystem(
                        mountpoint: mountpoint, device: superBlock.node.number,
                        type: superBlock.type, source: superBlock.node.path,
                        readOnly: superBlock.readOnly)
                )
            })
    }

    /// Devices that something else holds open.
    var held: Set<VolumeID> {
        get { kernel.opened }
        set { kernel.opened = newValue }
    }

    /// Mountpoints whose file system has shut down.
    var broken: Set<String> {
        get { Set(kernel.mounts.filter(\.value.isShutDown).keys) }
        set { newValue.compactMap { kernel.mounts[$0] }.forEach(kernel.shutDown) }
    }

    var mountTime: Duration {
        get { .milliseconds(stage.life.times.mount.lowerBound) }
        set { stage.life.times.mount = newValue.range }
    }

    var unmountTime: Duration {
        get { .milliseconds(stage.life.times.unmount.lowerBound) }
        set { stage.life.times.unmount = newValue.range }
    }

    /// Volumes whose file system is smaller than the device.
    var ungrown: Set<VolumeID> {
        get { volumes(\.isSmall) }
        set { set(\.isSmall, newValue) }
    }

    /// Volumes whose ext file system asks for a repair.
    var unclean: Set<VolumeID> {
        get { volumes(\.isUnclean) }
        set { set(\.isUnclean, newValue) }
    }

    /// Volumes whose journal must be replayed.
    var unreplayed: Set<VolumeID> {
        get { volumes(\.isUnreplayed) }
        set { set(\.isUnreplayed, newValue) }
    }

    private func volumes(_ isSo: KeyPath<LifeCloud.Volume, Bool>) -> Set<VolumeID> {
        Set(stage.cloud.volumes.filter { $0[keyPath: isSo] }.map(\.id))
    }

    private func set(
        _ isSo: ReferenceWritableKeyPath<LifeCloud.Volume, Bool>, _ ids: Set<VolumeID>
    ) {
        for volume in stage.cloud.volumes { volume[keyPath: isSo] = ids.contains(volume.id) }
    }

    /// Whether the volume's device responds.
    func hang(of volume: VolumeID) -> Hang {
        if let hang = hangs[volume] { return hang }
        let hang = Hang(stage)
        hangs[volume] = hang
        return hang
    }

    private func pass(_ device: BlockDevice, _ doing: String) async {
        for (id, hang) in hangs where stage.device(of: id) == device { await hang.pass(doing) }
    }
}

extension FixtureHost: DevicePort {
    func find(_ volume: VolumeID, attachedAs deviceName: String?) async throws -> BlockDevice? {
        if hasUnreadableDevice {
            throw OperationError(
                .device, doing: "find \(volume)", found: "a serial number cannot be read")
        }
        if let deviceName, let node = foreignNodes[deviceName] { return node }
        return try await stage.ports.find(volume, attachedAs: deviceName)
    }

    func arrival(
        of volume: VolumeID, attachedAs deviceName: String, by deadline: Instant
    ) async throws -> BlockDevice {
        try await stage.ports.arrival(of: volume, attachedAs: deviceName, by: deadline)
    }

    func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws {
        if !departureErrors.isEmpty { throw departureErrors.removeFirst() }
        try await stage.ports.departure(of: device, volume: volume, by: deadline)
    }

    func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice {
        try await stage.ports.partition(number, of: device, volume: volume, by: deadline)
    }
}

extension FixtureHost: FileSystemPort {
    func workUnderWay(on volume: VolumeID) async -> WorkUnderWay? { hangs[volume]?.workUnderWay }

    func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent {
        await hang(of: volume).pass("probe \(volume)")
        return try await stage.ports.probe(device, of: volume)
    }

    func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws {
        await hang(of: volume).pass("mkfs.\(plan.type) \(device.path)")
        let formats = kernel.device(device)?.volume.id ?? volume
        try await stage.ports.format(device, of: volume, plan: plan, by: deadline)
        formatted.append(formats)
    }

    func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String? {
        let done = try await stage.ports.repair(device, of: volume, type: type, by: deadline)
        if done != nil { actions.append("repair \(type)") }
        return done
    }

    func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome {
        await hang(of: volume).pass("mount \(volume)")
        var outcome = try await stage.ports.mount(
            device, of: volume, type: type, at: mountpoint, access: access, options: options)
        everMounted.append(volume)
        accesses[volume] = access
        if failGrowth { outcome.canGrow = true }
        return outcome
    }

    func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth? {
        growthsAsked += 1
        if failGrowth {
            failGrowth = false
            throw OperationError(.system, doing: "grow \(volume)", found: "ENOSPC")
        }
        let growth = try await stage.ports.grow(device, of: volume, type: type, at: mountpoint)
        if growth != nil { actions.append("grow \(type)") }
        return growth
    }

    func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws {
        precondition(kernel.mounts[mountpoint] != nil, "\(mountpoint) is not mounted")
        if failOwnership {
            failOwnership = false
            throw OperationError(.system, doing: "own \(volume)", found: "EIO")
        }
        try await stage.ports.setOwnership(
            of: mountpoint, volume: volume, uid: uid, gid: gid, mode: mode)
        let parts = [uid.map { "\($0)" }, gid.map { "\($0)" }, mode.map { String($0, radix: 8) }]
        actions.append("own " + parts.map { $0 ?? "-" }.joined(separator: ":"))
    }

    func unmount(_ mountpoint: String, of volume: VolumeID) async throws {
        unmountsAsked.append(mountpoint)
        if busyUnmounts > 0 {
            try await stage.process.sleep(unmountTime)
            busyUnmounts -= 1
            throw OperationError(.system, doing: "unmount \(mountpoint)", found: "EBUSY")
        }
        await hang(of: volume).pass("unmount \(volume)")
        try await stage.ports.unmount(mountpoint, of: volume)
    }

    func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState {
        await pass(device, "look at \(mountpoint)")
        let state = await stage.ports.mountState(of: device, at: mountpoint)
        if !lookTimes.isEmpty { try? await stage.process.sleep(lookTimes.removeFirst()) }
        return state
    }

    func isHeld(_ device: BlockDevice) async throws -> Bool {
        await pass(device, "open \(device.path)")
        return try await stage.ports.isHeld(device)
    }

    func mounted() async throws -> [MountedFileSystem] { try await stage.ports.mounted() }

    func kernelRelease() async -> String { await stage.ports.kernelRelease() }
}
