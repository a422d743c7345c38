import Agent
import Base
import Logging
import Testing
import VolumeCore

@testable import Simulation

/// A manager on the one host of a life, with one volume.
final class Fixture: @unchecked Sendable {
    static let id = VolumeID(literal: "vol-0123456789abcdef0")
    static let here = InstanceID(literal: "i-0123456789abcdef0")
    static let other = InstanceID(literal: "i-0fedcba9876543210")
    static let name = "\(id)"
    static let mountpoint = "/mnt/\(id)"
    static let xfs = DeviceContent.fileSystem(type: "xfs", label: nil, uuid: nil)

    private let stage: Stage
    let cloud: FixtureCloud
    let host: FixtureHost
    let state: FixtureState
    let log = LogRecord()
    let time: FixtureTime
    private(set) var manager: VolumeManager
    private let settings: VolumeManager.Settings
    static let driverName = "ebs:1.2.3"

    init(
        _ content: DeviceContent = .blank, detachAfter: Duration? = .seconds(15),
        takeover: TakeoverPolicy = .unlessMounted
    ) {
        stage = Stage(Self.here, detachAfter: detachAfter, takeover: takeover)
        time = FixtureTime(stage)
        cloud = FixtureCloud(stage)
        host = FixtureHost(stage)
        state = FixtureState(stage)
        cloud.add(Self.id, content)
        settings = VolumeManager.Settings(
            mountRoot: "/mnt", detachAfter: detachAfter, takeover: takeover,
            driverName: Self.driverName)
        let ports = VolumeManager.Ports(
            ec2: cloud, devices: host, fileSystems: host, state: state, host: cloud, time: time)
        manager = VolumeManager(
            ports: ports, settings: settings, executor: stage.process, log: log.logger)
    }

    /// Processes and timers hold the life, which holds them.
    deinit { stage.life.end() }

    var now: Instant { stage.now }

    /// Whether a device or disk responds.
    func hang() -> Hang { Hang(stage) }

    /// The tags that this plugin sets on a volume that it has mounted here.
    func mark(as name: String = "/dev/sdf") {
        cloud.volumes[Self.id]?.tags = [
            Lease.tag: "\(Self.here)",
            AttachmentMark.tag: AttachmentMark.value(of: Self.id, on: Self.here, as: name),
        ]
    }

    /// How long a call takes to fail, and its error.
    func failure(
        of call: @escaping @Sendable (VolumeManager) async throws -> Void
    ) async -> (error: OperationError?, time: Duration) {
        let begin = now
        let result = await start(call).result
        guard case .failure(let error) = result else { return (nil, now - begin) }
        return (error as? OperationError, now - begin)
    }

    /// Kills the daemon, and makes a new one with the state that it left.
    func restart() { _ = restart(settings, log.logger, time) }

    /// The same with other settings, another log or another clock.
    func restart(
        _ settings: VolumeManager.Settings, _ log: Logger, _ time: any TimeSource
    ) -> VolumeManager {
        stage.killDaemon()
        let ports = VolumeManager.Ports(
            ec2: cloud, devices: host, fileSystems: host, state: state, host: cloud, time: time)
        manager = VolumeManager(
            ports: ports, settings: settings, executor: stage.process, log: log)
        return manager
    }

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
        return try run { try await body(manager) }
    }

    /// Runs on the daemon's thread, until nothing is left to do at that instant. The invariants of
    /// lives hold here too.
    func run<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) throws -> T {
        defer {
            if let broken = stage.life.trace.broken {
                Issue.record("broken: \(broken.invariant): \(broken.detail)")
            }
        }
        return try stage.life.run(on: stage.process, body)
    }

    func sleep(_ duration: Duration) async throws { try await stage.process.sleep(duration) }

    func sleep(until instant: Instant) async throws {
        try await stage.process.sleep(until: instant)
    }

    /// Does something after that many more jobs of the daemon: between any two of its awaits.
    func after(jobs: Int, _ act: @escaping () -> Void) { stage.process.after(jobs: jobs, act) }

    /// Starts a call that runs in parallel.
    func start<T: Sendable>(
        _ body: @escaping @Sendable (VolumeManager) async throws -> T
    ) -> Task<T, any Error> {
        let manager = manager
        return Task(executorPreference: stage.process) { try await body(manager) }
    }
}

/// The manager's own waits, which can be made to fail.
final class FixtureTime: TimeSource, @unchecked Sendable {
    private let stage: Stage
    /// The error of a wait that begins now.
    var failure: OperationError?

    init(_ stage: Stage) { self.stage = stage }

    var now: Instant { stage.now }
    var unixSeconds: Int64 { stage.process.unixSeconds }

    func sleep(until instant: Instant) async throws {
        if let failure { throw failure }
        try await stage.process.sleep(until: instant)
    }
}
