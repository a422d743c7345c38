package import Base

/// The remaining steps until an unused volume is released, and when they are due.
package enum GiveBackStep: Sendable, Equatable {
    case unmount
    case dropLease
    case detach

    /// The next step, and how long after the last use it is due; nil if nothing is left to do.
    ///
    /// An unused mount, for example of an abandoned call, is kept for the retry, but not as long as
    /// an attachment, because its lease keeps other hosts off.
    ///
    /// - Parameter linger: nil for a volume that stays attached.
    package static func next(
        isMounted: Bool, hasLease: Bool, isHere: Bool, linger: Duration?
    ) -> (step: GiveBackStep, after: Duration)? {
        let longest = Limit.unusedMountTimeMax
        if isMounted { return (.unmount, min(linger ?? longest, longest)) }
        let leaseDrop = linger.map { min($0, Limit.leaseDropDelay) } ?? Limit.leaseDropDelay
        if hasLease { return (.dropLease, leaseDrop) }
        if isHere, let linger { return (.detach, linger) }
        return nil
    }
}

/// When the steps of one release are taken: each when it is due, and after a pause if one has
/// failed or had no effect.
package struct GiveBackPace: Sendable {
    private let lastUse: Instant
    private var earliest: Instant
    private var backoff = Backoff(
        from: Limit.leaseDropDelay, to: Limit.detachRetryInterval, .twofold)

    package init(since lastUse: Instant) {
        self.lastUse = lastUse
        earliest = lastUse
    }

    /// When to take a step that is due so long after the last use.
    package func due(after delay: Duration) -> Instant { max(earliest, lastUse + delay) }

    /// A step has failed.
    package mutating func failed(at now: Instant) { earliest = now + backoff.next() }

    /// A step has ended without an error. If it is the next one again, it had no effect.
    package mutating func ended(_ step: GiveBackStep, next: GiveBackStep?, at now: Instant) {
        if next == step { earliest = now + backoff.pause }
    }
}
