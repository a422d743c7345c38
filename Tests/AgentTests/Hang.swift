import Base
import VolumeCore

@testable import Simulation

/// Something that does not respond for a while, such as an impaired volume: whoever touches it
/// waits until `recover`, or until its process ends.
final class Hang: @unchecked Sendable {
    private let stage: Stage
    private var waiters: [SimulatedProcess.Reply<Bool>] = []
    /// Operations with this prefix hang; none if nil.
    private var prefix: String?
    /// The operation that has waited for longest.
    private var first: (doing: String, since: Instant)?

    init(_ stage: Stage) { self.stage = stage }

    func begin(at prefix: String = "") { self.prefix = prefix }

    func recover() {
        prefix = nil
        first = nil
        let woken = waiters
        waiters = []
        for waiter in woken { waiter.succeed(true) }
    }

    func pass(_ doing: String) async {
        guard let prefix, doing.hasPrefix(prefix) else { return }
        first = first ?? (doing, stage.now)
        let _: Bool? = try? await stage.process.waitToTheEnd { waiters.append($0) }
    }

    var workUnderWay: WorkUnderWay? {
        first.map {
            WorkUnderWay(
                doing: $0.doing, since: $0.since, hangs: stage.now - $0.since >= Limit.hangTimeMin)
        }
    }
}
