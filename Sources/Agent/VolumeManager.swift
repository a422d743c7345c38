package import Base
package import Logging
package import VolumeCore

/// The volumes of this instance: what Docker asks of them, and what is done for it.
///
/// Everything runs on the executor that is given: the ring's thread in the daemon, a seeded one in
/// simulations. Calls about different volumes go on at once; those about one volume wait for or
/// join its running operation.
package actor VolumeManager {
    package struct Ports: Sendable {
        package var ec2: any EC2Port
        package var devices: any DevicePort
        package var fileSystems: any FileSystemPort
        package var state: any StatePort
        package var host: any HostPort
        package var time: any TimeSource

        package init(
            ec2: any EC2Port, devices: any DevicePort, fileSystems: any FileSystemPort,
            state: any StatePort, host: any HostPort, time: any TimeSource
        ) {
            self.ec2 = ec2
            self.devices = devices
            self.fileSystems = fileSystems
            self.state = state
            self.host = host
            self.time = time
        }
    }

    package struct Settings: Sendable {
        /// The folder that volumes are mounted in, each under its id.
        package var mountRoot: String
        /// How long an unused volume stays attached; nil for ever.
        package var detachAfter: Duration?
        /// What a blank volume is given whose options do not tell.
        package var fileSystem: FileSystemType
        /// For volumes whose options do not say.
        package var takeover: TakeoverPolicy

        package init(
            mountRoot: String, detachAfter: Duration?, fileSystem: FileSystemType = .xfs,
            takeover: TakeoverPolicy = .unlessMounted
        ) {
            self.mountRoot = mountRoot
            self.detachAfter = detachAfter
            self.fileSystem = fileSystem
            self.takeover = takeover
        }
    }

    /// What Get and List tell of a volume.
    package struct Info: Sendable, Equatable {
        package var name: String
        /// Nil while it is not mounted.
        package var mountpoint: String?
        /// Seconds since 1970.
        package var createdAt: Int64
        package var volume: VolumeID
        /// In one word.
        package var phase: String
        /// How many of Docker's mounts are counted.
        package var mounts: Int
        /// Its node while it is mounted, or `lost`.
        package var device: String?
        /// `/dev/sdf`, while it is attached as far as is known.
        package var attachedAs: String?
        /// Whether it is mounted without a replay of its journal, which holds more.
        package var mayBeOutdated = false
    }

    package typealias Executor = any SerialExecutor & TaskExecutor

    let ports: Ports
    let settings: Settings
    let log: Logger
    nonisolated let executor: Executor
    var volumes: [VolumeID: Volume] = [:]
    var deviceNames = DeviceNames()
    /// Volumes whose lease EC2 has refused to write.
    var refusedLeases: Set<VolumeID> = []
    var attachmentFacts = AttachmentFacts()
    var saves = Saves()

    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        // The manager keeps its executor alive, and nobody keeps the reference longer.
        unsafe executor.asUnownedSerialExecutor()
    }

    package init(ports: Ports, settings: Settings, executor: Executor, log: Logger) {
        self.ports = ports
        self.settings = settings
        self.executor = executor
        self.log = log
    }

    func mountpoint(of id: VolumeID) -> String { "\(settings.mountRoot)/\(id)" }

    /// The volume of that name, an id or an alias.
    func known(_ name: String) throws(OperationError) -> Volume {
        if let volume = volume(named: name) { return volume }
        try VolumeName.check(name)
        throw OperationError(
            .noSuchVolume, doing: "find the volume \(name)", found: "it was not created here",
            advice: "run docker volume create -d polarity-ecs-ebs-plugin \(name)")
    }

    private func volume(named name: String) -> Volume? {
        let volume =
            VolumeID(name).flatMap { volumes[$0] }
            ?? volumes.values.first { $0.record.name == name }
        return volume?.isKnown == true && volume?.record.name == name ? volume : nil
    }
}

// MARK: Calls that ask EC2 nothing

extension VolumeManager {
    package func get(_ name: String) throws(OperationError) -> Info { info(try known(name)) }

    package func list() -> [Info] {
        volumes.values.filter(\.isKnown).map(info).sorted { $0.name < $1.name }
    }

    /// Nil while the volume is not mounted.
    package func path(_ name: String) throws(OperationError) -> String? {
        info(try known(name)).mountpoint
    }

    private func info(_ volume: Volume) -> Info {
        Info(
            name: volume.record.name,
            mountpoint: volume.device == nil ? nil : mountpoint(of: volume.id),
            createdAt: volume.record.createdAt, volume: volume.id, phase: volume.phaseName,
            mounts: volume.record.mounts.total,
            device: volume.isLost ? "lost" : volume.device?.path,
            attachedAs: volume.record.deviceName,
            mayBeOutdated: volume.device != nil && volume.mayBeOutdated)
    }
}

// MARK: Create and Remove

extension VolumeManager {
    /// Remembers a volume that exists and can be used from here. Does nothing for one that is
    /// known with these options.
    package func create(_ name: String, options: [String: String]) async throws {
        let options = try VolumeOptions(options)
        let id = try VolumeName.volume(name, options)
        // Another Create's record may not be on the disk yet, or its save have failed.
        if try isCreated(name, for: id, options) { return try await finishSaving() }
        let description = try await usableDescription(of: id, options: options)
        // The table may have changed meanwhile.
        if try isCreated(name, for: id, options) { return try await finishSaving() }
        if let volume = volumes[id] {
            // A cut call's mount is kept for its retry, as that asked for it.
            if volume.record.options != options { volume.needsRemount = true }
            volume.record.isRemoved = false
            volume.record.name = name
            volume.record.options = options
            volume.description = volume.description ?? description
        } else {
            guard volumes.count < Limit.volumesMax else {
                throw OperationError(
                    .limitReached, doing: "create \(id)",
                    found: "\(volumes.count) volumes are known, as many as are allowed",
                    advice: "remove some with docker volume rm, which keeps their data")
            }
            let volume = Volume(
                VolumeRecord(
                    id: id, name: name, options: options, createdAt: ports.time.unixSeconds))
            volume.description = description
            volumes[id] = volume
        }
        try await save()
        log.info("created", metadata: ["volume": "\(id)", "name": "\(name)"])
    }

    /// Whether there is nothing to do. Throws where name or volume are taken, or in use otherwise.
    private func isCreated(
        _ name: String, for id: VolumeID, _ options: VolumeOptions
    ) throws(OperationError) -> Bool {
        if let volume = volumes[id], volume.isKnown {
            guard volume.record.name == name else {
                throw OperationError(
                    .invalidInput, doing: "create \(name) for \(id)",
                    found: "that volume is known as \(volume.record.name)",
                    advice: "use that name, or docker volume rm it first, which keeps its data")
            }
            if volume.record.options == options { return true }
            try refuseWhileUsed(volume, doing: "change the options of \(name)")
        } else if let other = volume(named: name) {
            throw OperationError(
                .invalidInput, doing: "create \(name) for \(id)",
                found: "it is the name of \(other.id)", advice: "use another name")
        }
        return false
    }

    private func usableDescription(
        of id: VolumeID, options: VolumeOptions
    ) async throws -> VolumeDescription {
        let deadline = ports.time.now + Limit.createTimeMax
        let host = try await ports.host.host(by: deadline)
        let description = try await describe(id, by: deadline)
        _ = try Situation(of: description, seenFrom: host, readOnly: options.readOnly)
        return description
    }

    /// Forgets a volume. Its data stays, and it is given back after the linger.
    package func remove(_ name: String) async throws {
        let volume = try known(name)
        try refuseWhileUsed(volume, doing: "remove \(volume.id)")
        volume.record.isRemoved = true
        forgetIfDone(volume)
        try await save()
        log.info("removed, its data is kept", metadata: ["volume": "\(volume.id)"])
    }

    private func refuseWhileUsed(_ volume: Volume, doing: String) throws(OperationError) {
        guard volume.isUsed else { return }
        throw OperationError(
            .invalidInput, doing: doing,
            found: "it is in use, by \(volume.record.mounts.total) mounts",
            advice: "stop the containers that use it first")
    }

    /// Drops a removed volume from the table once nothing of it is left here.
    func forgetIfDone(_ volume: Volume) {
        guard !volume.isRemembered, case .unmounted = volume.phase else { return }
        volumes[volume.id] = nil
    }
}
