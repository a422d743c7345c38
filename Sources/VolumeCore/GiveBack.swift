import Base

/// What is still to be done, and when, until a volume that nobody uses is given back.
package enum GiveBackStep: Sendable, Equatable {
    case unmount
    case dropLease
    case detach

    /// The next step and how long after the last use it is due; nil when nothing is left to do.
    ///
    /// A mount that nobody uses, that of a cut call say, is kept for the retry, and not for as long
    /// as an attachment: its lease keeps other hosts off.
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
