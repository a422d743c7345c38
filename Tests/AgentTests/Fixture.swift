import Agent
import Base
import Logging
import Simulation
import VolumeCore

/// A manager over the simulated parts, with one volume.
final class Fixture: @unchecked Sendable {
    static let id = VolumeID(literal: "vol-0123456789abcdef0")
    static let here = InstanceID(literal: "i-0123456789abcdef0")
    static let other = InstanceID(literal: "i-0fedcba9876543210")
    static let name = "\(id)"
    static let mountpoint = "/mnt/\(id)"
    static let xfs = DeviceContent.fileSystem(type: "xfs", label: nil, uuid: nil)

    let executor = SimulatedExecutor()
    let cloud: SimulatedCloud
    let host: SimulatedHost
    let state = SimulatedState()
    let log = LogRecord()
    let time: FixtureTime
    private(set) var manager: VolumeManager
    private let settings: VolumeManager.Settings
    static let driverName = "ebs:1.2.3"

    init(
        _ content: DeviceContent = .blank, detachAfter: Duration? = .seconds(15),
        takeover: TakeoverPolicy = .unlessMounted
    ) {
        time = FixtureTime(executor)
        cloud = SimulatedCloud(
            host: Host(instance: Self.here, availabilityZone: "eu-west-1a"), time: executor)
        host = SimulatedHost(cloud: cloud)
        cloud.add(Self.id, content)
        settings = VolumeManager.Settings(
            mountRoot: "/mnt", detachAfter: detachAfter, takeover: takeover,
            driverName: Self.driverName)
        manager = Self.makeManager(time, cloud, host, state, settings, log)
    }

    private static func makeManager(
        _ time: FixtureTime, _ cloud: SimulatedCloud, _ host: SimulatedHost,
        _ state: SimulatedState, _ settings: VolumeManager.Settings, _ log: LogRecord
    ) -> VolumeManager {
        VolumeManager(
            ports: VolumeManager.Ports(
                ec2: cloud, devices: host, fileSystems: host, state: state, host: cloud,
                time: time),
            settings: settings, executor: time.executor,
            log: Logger(label: "test") { _ in RecordingLogHandler(record: log) })
    }

    /// The tags that this plugin sets on a volume that it has mounted here.
    func mark() {
        cloud.volumes[Self.id]?.tags = [
            Lease.tag: "\(Self.here)",
            AttachmentMark.tag: AttachmentMark.value(of: Self.id, on: Self.here),
        ]
    }

    /// How long a call takes to fail, and its error.
    func failure(
        of call: @escaping @Sendable (VolumeManager) async throws -> Void
    ) async -> (error: OperationError?, time: Duration) {
        let begin = executor.now
        let result = await start(call).result
        guard case .failure(let error) = result else { return (nil, executor.now - begin) }
        return (error as? OperationError, executor.now - begin)
    }

    /// A new daemon with the state that the old one left.
    func restart() { manager = Self.makeManager(time, cloud, host, state, settings, log) }

    /// What the next daemon finds if this one is killed now. What EC2 has under way does not go on.
    func successor() -> Fixture {
        let next = Fixture()
        for volume in cloud.volumes.values {
            next.cloud.add(volume.id, cloud.content[volume.id] ?? .blank)
            next.cloud.volumes[volume.id] = volume
            if cloud.device(of: volume.id) != nil { next.cloud.bringDevice(of: volume.id) }
        }
        next.state.records = state.records
        return next
    }

    func run<T: Sendable>(
        _ body: @escaping @Sendable (VolumeManager) async throws -> T
    ) throws -> T {
        let manager = manager
        return try executor.run { try await body(manager) }
    }

    func sleep(_ duration: Duration) async throws {
        try await executor.sleep(until: executor.now + duration)
    }

    /// Starts a call that runs in parallel.
    func start<T: Sendable>(
        _ body: @escaping @Sendable (VolumeManager) async throws -> T
    ) -> Task<T, any Error> {
        let manager = manager
        return Task(executorPreference: executor) { try await body(manager) }
    }
}

/// The manager's own waits, which can be made to fail.
final class FixtureTime: TimeSource, @unchecked Sendable {
    let executor: SimulatedExecutor
    /// The error of a wait that begins now.
    var failure: OperationError?

    init(_ executor: SimulatedExecutor) { self.executor = executor }

    var now: Instant { executor.now }
    var unixSeconds: Int64 { executor.unixSeconds }

    func sleep(until instant: Instant) async throws {
        if let failure { throw failure }
        try await executor.sleep(until: instant)
    }
}
