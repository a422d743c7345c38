/// The pauses between attempts, each longer than the one before, up to the longest.
package struct Backoff: Sendable, Equatable {
    /// How much longer than the one before a pause is.
    package enum Growth: Sendable { case byHalf, twofold }

    /// The pause before the next attempt.
    package private(set) var pause: Duration
    private let longest: Duration
    private let growth: Growth

    package init(from shortest: Duration, to longest: Duration, _ growth: Growth) {
        pause = shortest
        self.longest = longest
        self.growth = growth
    }

    /// Between two looks at what EC2 sends no event of.
    package static var looks: Backoff {
        Backoff(from: Limit.lookIntervalMin, to: Limit.lookIntervalMax, .byHalf)
    }

    /// Makes the next pause longer.
    package mutating func grow() {
        let longer =
            switch growth {
            case .byHalf: pause * 3 / 2
            case .twofold: pause * 2
            }
        pause = min(longer, longest)
    }

    /// The pause before the next attempt, which makes the one after it longer.
    package mutating func next() -> Duration {
        defer { grow() }
        return pause
    }
}
