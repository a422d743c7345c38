import Base
import VolumeCore

@testable import Simulation

/// A life with one host whose daemon is under test, and further instances without a daemon.
///
/// Every duration is fixed, nothing fails by chance, and jobs run in the order in which they became
/// ready. What a test makes happen is added by FixtureCloud, FixtureHost and FixtureState.
final class Stage: @unchecked Sendable {
    let life: LifeWorld
    /// The ports of the daemon that runs now.
    private(set) var ports: LifePorts

    var cloud: LifeCloud { life.cloud }
    var host: LifeHost { life.hosts[0] }
    var process: SimulatedProcess { ports.process }
    var now: Instant { life.scheduler.now }

    init(_ instance: InstanceID, detachAfter: Duration?, takeover: TakeoverPolicy) {
        life = LifeWorld(detachAfter: detachAfter, takeover: takeover)
        life.times = Self.times
        let host = life.addHost(instance)
        ports = LifePorts(host: host, process: life.newProcess(isDaemon: true))
    }

    /// Processes and timers hold the life, which holds them.
    deinit { life.end() }

    private static var times: LifeTimes {
        var times = LifeTimes()
        times.response = 0...0
        times.find = 0...0
        times.probe = 0...0
        times.format = 0...0
        times.mount = 5...5
        times.grow = 0...0
        times.unmount = 0...0
        times.open = 0...0
        times.listMounts = 0...0
        times.load = 0...0
        times.save = 0...0
        times.saveCounts = 0...0
        return times
    }

    /// Kills the daemon, whose tasks end with it. The next one gets new ports.
    func killDaemon() {
        process.kill()
        ports = LifePorts(host: host, process: life.newProcess(isDaemon: true))
    }

    /// The place of an instance in the life; one that is new begins to run.
    func index(of instance: InstanceID) -> Int {
        cloud.host(of: instance) ?? life.addHost(instance).index
    }

    func device(of id: VolumeID) -> BlockDevice? {
        cloud.find(id).flatMap { host.kernel.device(of: $0) }?.node
    }
}

extension Duration {
    /// A time of a life that is always the same.
    var range: ClosedRange<Int> { Int(milliseconds)...Int(milliseconds) }
}
