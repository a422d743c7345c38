package import Base
package import Logging
package import VolumeCore

/// The volumes of this instance: executes Docker's calls.
///
/// Everything runs on the given executor: the ring's thread in the daemon, a seeded one in
/// simulations. Calls about different volumes run concurrently; those about one volume wait for or
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
        /// How long an unused volume stays attached; nil: forever.
        package var detachAfter: Duration?
        /// The file system of a blank volume whose options do not specify one.
        package var fileSystem: FileSystemType
        /// For volumes whose options do not specify it.
        package var takeover: TakeoverPolicy
        /// The name of this plugin for Docker's users, for advice in errors.
        package var driverName: String

        package init(
            mountRoot: String, detachAfter: Duration?, fileSystem: FileSystemType = .xfs,
            takeover: TakeoverPolicy = .unlessMounted,
            driverName: String = "polarity-ecs-ebs-plugin"
        ) {
            self.mountRoot = mountRoot
            self.detachAfter = detachAfter
            self.fileSystem = fileSystem
            self.takeover = takeover
            self.driverName = driverName
        }
    }

    /// The result of Get and List for a volume.
    package struct Info: Sendable, Equatable {
        package var name: String
        /// Nil while it is not mounted.
        package var mountpoint: String?
        /// Seconds since 1970.
        package var createdAt: Int64
        package var volume: VolumeID
        /// In one word.
        package var phase: String
        /// The number of counted mounts by Docker.
        package var mounts: Int
        /// Its node while it is mounted, or `lost`.
        package var device: String?
        /// `/dev/sdf`, while it is attached as far as known.
        package var attachedAs: String?
        /// The command that keeps it, if EC2 deletes it together with this instance.
        package var deletionWarning: String?
        /// Whether it is mounted without a replay of its journal, which is not empty.
        package var mayBeOutdated: Bool
        /// Why it cannot be used; usually nil.
        package var problem: String?
    }

    package typealias Executor = any SerialExecutor & TaskExecutor

    let ports: Ports
    let settings: Settings
    let log: Logger
    nonisolated let executor: Executor
    let volumes: VolumeTable
    let saver: StateSaver
    let leases: LeaseKeeper
    /// The Creates and Removes in progress, by their names and by their volumes' ids.
    var definitions: [String: Task<Void, any Error>] = [:]
    var slots = Slots()
    /// Volumes whose release failed to wait, until another release begins.
    var stalledReleases: Set<VolumeID> = []
    /// Mounted volumes whose device or lease is not watched because a wait failed, until the
    /// watches of another volume begin.
    var stalledWatches: Set<VolumeID> = []
    /// How many calls about a volume were answered before their work had ended.
    var overdueCalls: [VolumeID: Int] = [:]

    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        // The manager keeps its executor alive, and nobody holds the reference for longer.
        unsafe executor.asUnownedSerialExecutor()
    }

    package init(ports: Ports, settings: Settings, executor: Executor, log: Logger) {
        self.ports = ports
        self.settings = settings
        self.executor = executor
        self.log = log
        volumes = VolumeTable(origin: StateOrigin(boot: ports.host.boot))
        saver = StateSaver(
            of: volumes, to: ports.state, time: ports.time, executor: executor, log: log)
        leases = LeaseKeeper(
            of: volumes, ports: ports, saver: saver, executor: executor, log: log)
    }

    /// Whose state the table is.
    var origin: StateOrigin {
        get { volumes.origin }
        set { volumes.origin = newValue }
    }

    func mountpoint(of id: VolumeID) -> String { "\(settings.mountRoot)/\(id)" }

    /// The volume of that name, an id or an alias.
    func known(_ name: String) throws(OperationError) -> Volume {
        if let volume = volumes[name: name] { return volume }
        throw unknown(name)
    }

    private func unknown(_ name: String) -> OperationError {
        do { try VolumeName.check(name) } catch { return error }
        return OperationError(
            .noSuchVolume, doing: "find the volume \(name)", found: "it was not created here",
            advice: "run docker volume create -d \(settings.driverName) \(name)")
    }
}

// MARK: Calls that ask EC2 nothing

extension VolumeManager {
    package func get(_ name: String) throws(OperationError) -> Info {
        guard let id = volumes.id(named: name), let record = volumes.record(of: id),
            let naming = record.naming(name)
        else { throw unknown(name) }
        return info(naming, record)
    }

    package func list() -> [Info] {
        volumes.ids.flatMap { id in
            volumes.record(of: id).map { record in record.names.map { info($0, record) } } ?? []
        }.sorted { $0.name < $1.name }
    }

    /// Nil while the volume is not mounted.
    package func path(_ name: String) throws(OperationError) -> String? {
        try get(name).mountpoint
    }

    private func info(_ naming: VolumeNaming, _ record: VolumeRecord) -> Info {
        let volume = volumes.awakened(record.id)
        return Info(
            name: naming.name,
            mountpoint: volume?.state.device == nil ? nil : mountpoint(of: record.id),
            createdAt: naming.createdAt, volume: record.id,
            phase: volume?.state.phaseName ?? "detached",
            mounts: record.mounts.total,
            device: volume?.state.isLost == true ? "lost" : volume?.state.device?.path,
            attachedAs: origin.isConfirmed ? record.deviceName : nil,
            deletionWarning: volume?.state.isHere == true
                ? volume?.state.description?.deletionWarning : nil,
            mayBeOutdated: volume?.state.device != nil && volume?.state.mayBeOutdated == true,
            problem: naming.flaw)
    }
}
