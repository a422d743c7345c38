import Base

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
