import Agent
package import Base
package import VolumeCore

/// The host's kernel: devices that follow the cloud's attachments, and mounts.
package final class SimulatedHost: DevicePort, FileSystemPort, @unchecked Sendable {
    package private(set) var mounts: [String: MountedFileSystem] = [:]
    /// Volumes that were mounted, oldest first.
    package private(set) var everMounted: [VolumeID] = []
    /// Volumes that were formatted, oldest first.
    package private(set) var formatted: [VolumeID] = []
    /// The mountpoints of unmount requests, oldest first.
    package private(set) var unmountsAsked: [String] = []
    /// Consumed by the next calls: unmount fails as for a busy file system.
    package var busyUnmounts = 0
    /// Devices that something else holds open.
    package var held: Set<VolumeID> = []
    /// Mountpoints whose file system has shut down.
    package var broken: Set<String> = []
    package var mountTime: Duration = .milliseconds(5)
    /// Consumed by the next looks at a mount: how long they take to report the state at their
    /// beginning.
    package var lookTimes: [Duration] = []
    /// Consumed by the next waits for the disappearance of a device: their error.
    package var departureErrors: [any Error] = []
    package var unmountTime: Duration = .zero
    /// Whether there is a device that may be any volume's.
    package var hasUnreadableDevice = false
    /// The partitions of volumes that have some, and what each partition holds.
    package var partitions: [VolumeID: [Int: BlockDevice]] = [:]
    package var partitionContent: [BlockDevice: DeviceContent] = [:]
    /// Volumes whose file system is smaller than the device, by that much less.
    package var ungrown: Set<VolumeID> = []
    /// Volumes whose ext file system asks for a repair.
    package var unclean: Set<VolumeID> = []
    /// Volumes whose journal must be replayed.
    package var unreplayed: Set<VolumeID> = []
    /// The access of each volume's last mount.
    package private(set) var accesses: [VolumeID: MountAccess] = [:]
    /// How often it was checked whether a mounted file system can grow.
    package private(set) var growthsAsked = 0
    /// Operations on file systems other than formatting and mounting: `repair ext4`, `own 1000:-`.
    package private(set) var actions: [String] = []
    /// Consumed by the next call: growing fails.
    package var failGrowth = false
    /// Consumed by the next call: owner and permissions cannot be set.
    package var failOwnership = false

    /// Nodes of a Xen host that do not belong to a volume in the cloud, by the device names that
    /// they occupy.
    package var foreignNodes: [String: BlockDevice] = [:]

    private var hangs: [VolumeID: SimulatedHang] = [:]

    private let cloud: SimulatedCloud
    private var time: SimulatedExecutor { cloud.time }

    package init(cloud: SimulatedCloud) { self.cloud = cloud }

    /// Whether the volume's device responds.
    package func hang(of volume: VolumeID) -> SimulatedHang {
        if let hang = hangs[volume] { return hang }
        let hang = SimulatedHang(time: time)
        hangs[volume] = hang
        return hang
    }

    private func pass(_ device: BlockDevice, _ doing: String) async {
        for (id, hang) in hangs where cloud.device(of: id) == device { await hang.pass(doing) }
    }

    package func workUnderWay(on volume: VolumeID) async -> WorkUnderWay? {
        hangs[volume]?.workUnderWay
    }

    // MARK: Devices

    package func find(
        _ volume: VolumeID, attachedAs deviceName: String?
    ) async throws -> BlockDevice? {
        if hasUnreadableDevice {
            throw OperationError(
                .device, doing: "find \(volume)", found: "a serial number cannot be read")
        }
        if let deviceName, let node = foreignNodes[deviceName] { return node }
        return cloud.device(of: volume, attachedAs: deviceName)
    }

    package func arrival(
        of volume: VolumeID, attachedAs deviceName: String, by deadline: Instant
    ) async throws -> BlockDevice {
        while true {
            if let device = cloud.device(of: volume, attachedAs: deviceName) { return device }
            try await tick(by: deadline, "\(volume) to come")
        }
    }

    package func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws {
        if !departureErrors.isEmpty { throw departureErrors.removeFirst() }
        let begin = time.now
        while (try? check(device, volume)) != nil {
            // A watch over hours need not be accurate to the millisecond.
            let isLong = time.now - begin > .seconds(10)
            try await tick(
                by: deadline, "\(volume) to go", for: .milliseconds(isLong ? 100 : 1))
        }
    }

    package func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice {
        try check(device, volume)
        guard let partition = partitions[volume]?[number] else {
            throw OperationError(
                .device, doing: "find partition \(number) of \(volume)", found: "there is none")
        }
        return partition
    }

    private func tick(
        by deadline: Instant, _ what: String, for pause: Duration = .milliseconds(1)
    ) async throws {
        guard time.now < deadline else {
            throw OperationError(.deadline, doing: "wait for \(what)", found: "it did not happen")
        }
        try await time.sleep(until: time.now + pause)
    }

    // MARK: File systems

    package func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent {
        await hang(of: volume).pass("probe \(volume)")
        try check(device, volume)
        return partitionContent[device] ?? cloud.content[cloud.volume(of: device) ?? volume]
            ?? .blank
    }

    package func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws {
        await hang(of: volume).pass("mkfs.\(plan.type) \(device.path)")
        try check(device, volume)
        let volume = cloud.volume(of: device) ?? volume
        formatted.append(volume)
        cloud.content[volume] = .fileSystem(type: plan.type.rawValue, label: nil, uuid: nil)
    }

    package func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String? {
        try check(device, volume)
        guard type.hasPrefix("ext"), unclean.remove(volume) != nil else { return nil }
        actions.append("repair \(type)")
        return "repaired"
    }

    package func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth? {
        precondition(mounts[mountpoint] != nil, "\(mountpoint) grown but not mounted")
        growthsAsked += 1
        if failGrowth {
            failGrowth = false
            throw OperationError(.system, doing: "grow \(volume)", found: "ENOSPC")
        }
        guard ungrown.remove(volume) != nil else { return nil }
        actions.append("grow \(type)")
        return Growth(from: 1 << 30, to: 2 << 30)
    }

    package func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws {
        precondition(mounts[mountpoint] != nil, "\(mountpoint) is not mounted")
        if failOwnership {
            failOwnership = false
            throw OperationError(.system, doing: "own \(volume)", found: "EIO")
        }
        let parts = [uid.map { "\($0)" }, gid.map { "\($0)" }, mode.map { String($0, radix: 8) }]
        actions.append("own " + parts.map { $0 ?? "-" }.joined(separator: ":"))
    }

    package func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome {
        try await time.sleep(until: time.now + mountTime)
        await hang(of: volume).pass("mount \(volume)")
        try check(device, volume)
        precondition(mounts[mountpoint] == nil, "\(mountpoint) mounted twice")
        everMounted.append(volume)
        mounts[mountpoint] = MountedFileSystem(
            mountpoint: mountpoint, device: device.number, type: type, source: device.path,
            readOnly: access != .writable)
        accesses[volume] = access
        return MountOutcome(
            canGrow: failGrowth || ungrown.contains(volume),
            mayBeOutdated: access == .withoutReplay && unreplayed.contains(volume))
    }

    package func unmount(_ mountpoint: String, of volume: VolumeID) async throws {
        if unmountTime > .zero { try await time.sleep(until: time.now + unmountTime) }
        unmountsAsked.append(mountpoint)
        if busyUnmounts > 0 {
            busyUnmounts -= 1
            throw OperationError(.system, doing: "unmount \(mountpoint)", found: "EBUSY")
        }
        await hang(of: volume).pass("unmount \(volume)")
        mounts[mountpoint] = nil
        broken.remove(mountpoint)
    }

    package func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState {
        await pass(device, "look at \(mountpoint)")
        let isMounted = mounts[mountpoint]?.device == device.number
        let state: MountState =
            isMounted ? broken.contains(mountpoint) ? .broken : .mounted : .notMounted
        if !lookTimes.isEmpty {
            try? await time.sleep(until: time.now + lookTimes.removeFirst())
        }
        return state
    }

    package func isHeld(_ device: BlockDevice) async throws -> Bool {
        await pass(device, "open \(device.path)")
        return mounts.values.contains { $0.device == device.number }
            || held.contains { cloud.device(of: $0) == device }
    }

    package func mounted() async throws -> [MountedFileSystem] { Array(mounts.values) }

    package func kernelRelease() async -> String { "6.1.0" }

    private func check(_ device: BlockDevice, _ volume: VolumeID) throws {
        if cloud.isXen, cloud.volume(of: device) != nil { return }
        let isPartition = partitions[volume]?.values.contains(device) ?? false
        guard let disk = cloud.device(of: volume), isPartition || disk == device else {
            throw OperationError(
                .device, doing: "use \(device.path)", found: "it is not \(volume)")
        }
    }
}

/// A state file in memory.
package final class SimulatedState: StatePort, @unchecked Sendable {
    package var records: [VolumeRecord] = []
    /// Further records that nobody has parsed.
    package var resting: [RestingRecord] = []
    package var owner: StateOwner?
    /// The owner of the counts; nil: the owner of the records.
    private var countsOwner: StateOwner?
    package private(set) var saves = 0
    /// How many saves were tried, including failed ones.
    package private(set) var attempts = 0
    private var isSaving = false
    /// Whether the state is in the form that every version reads.
    package private(set) var isConcluded = false
    /// The error of a save.
    package var saveError: (any Error)?
    /// Whether its disk responds; nil for a disk that always does.
    package var hang: SimulatedHang?
    /// Whether a save that fails has been written nevertheless.
    package var writesBeforeItFails = false
    package private(set) var copies: [String] = []

    package init() {}

    package func workUnderWay() async -> WorkUnderWay? { hang?.workUnderWay }

    package func load(inBoot boot: String) async throws -> SavedState {
        var records = records
        if let counted = countsOwner ?? owner, counted.boot != boot {
            for index in records.indices { records[index].mounts = MountCounts() }
        }
        // As from a file: resting records are not parsed.
        let isAtRest = { (record: VolumeRecord) in
            record.isAtRest && record.names.count == 1 && record.names[0].flaw == nil
        }
        let texts = records.filter(isAtRest).map {
            RestingRecord(id: $0.id, name: $0.names[0].name, text: $0.savedText[...])
        }
        return SavedState(
            owner: owner, records: records.filter { !isAtRest($0) }, resting: texts + resting)
    }

    package func save(_ changes: [SavedChange], of owner: StateOwner) async throws {
        precondition(!isSaving, "two saves at once: one may undo the other's")
        isSaving = true
        defer { isSaving = false }
        attempts += 1
        isConcluded = false
        await hang?.pass("save the records")
        if let saveError {
            if writesBeforeItFails { records.apply(changes) }
            throw saveError
        }
        records.apply(changes)
        self.owner = owner
        saves += 1
    }

    package func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws {
        await hang?.pass("save the counts")
        self.records.takeCounts(of: records)
        countsOwner = owner
    }

    package func keepCopy(named suffix: String) async throws -> String {
        copies.append(suffix)
        return suffix
    }

    package func conclude(of owner: StateOwner) async throws { isConcluded = true }
}

extension [VolumeRecord] {
    /// Like a state file: the counts are in another file.
    mutating func apply(_ changes: [SavedChange]) {
        for change in changes {
            let place = firstIndex { $0.id == change.id }
            switch change {
            case .forget: if let place { remove(at: place) }
            case .put(var record):
                record.mounts = place.map { self[$0].mounts } ?? MountCounts()
                if let place { self[place] = record } else { append(record) }
            }
        }
    }

    mutating func takeCounts(of records: [VolumeRecord]) {
        for index in indices {
            let counted = records.first { $0.id == self[index].id }
            self[index].mounts = counted?.mounts ?? MountCounts()
            guard let counted else { continue }
            self[index].name = counted.name
            self[index].options = counted.options
        }
    }
}
