import Base

/// Something that does not respond for a while, such as an impaired volume: whoever touches it
/// waits until `recover`. Touched by the one thread that runs the simulation.
package final class SimulatedHang: @unchecked Sendable {
    private let time: SimulatedExecutor
    private var waiters: [CheckedContinuation<Void, Never>] = []
    /// Operations with this prefix hang; none if nil.
    private var prefix: String?
    /// The operation that has waited for longest.
    private var first: (doing: String, since: Instant)?

    package init(time: SimulatedExecutor) { self.time = time }

    package func begin(at prefix: String = "") { self.prefix = prefix }

    package func recover() {
        prefix = nil
        first = nil
        let woken = waiters
        waiters = []
        for waiter in woken { waiter.resume() }
    }

    func pass(_ doing: String) async {
        guard let prefix, doing.hasPrefix(prefix) else { return }
        first = first ?? (doing, time.now)
        await withCheckedContinuation { waiters.append($0) }
    }

    var workUnderWay: WorkUnderWay? {
        first.map {
            WorkUnderWay(
                doing: $0.doing, since: $0.since, hangs: time.now - $0.since >= Limit.hangTimeMin)
        }
    }
}
