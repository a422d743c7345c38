package import Base

/// What came of writing a lease.
package enum LeaseWriting: Sendable, Equatable {
    case done
    /// There can be no lease: the permission for the tag is missing, or the volume has the maximum
    /// number of tags, or it is a Multi-Attach volume.
    case refused
    /// It could not be sent soon enough after the attachment was seen.
    case outdated
}

/// Counts the attempts to write a lease until a look shows it, and decides what follows from each.
package struct LeaseProof: Sendable {
    package enum Step: Sendable, Equatable {
        case writeAgain
        /// EC2 shows the lease: nobody has taken the volume.
        case certain
        /// The volume is here, and cannot have a lease.
        case goWithout
        /// The volume is here, and EC2 does not show what was written often enough.
        case leaveUnproved
        case notHere
        /// The time is over before a lease could be written.
        case giveUp
    }

    private var written = 0

    package init() {}

    /// - Parameters:
    ///   - seen: EC2's description after the writing; nil if the volume is not attached here.
    ///   - isTimeLeft: whether the Mount has time for another attempt.
    package mutating func next(
        after writing: LeaseWriting, seen: VolumeDescription?, on instance: InstanceID,
        isTimeLeft: Bool
    ) -> Step {
        if writing == .done { written += 1 }
        guard let seen else { return .notHere }
        if writing == .refused || seen.multiAttachEnabled { return .goWithout }
        if writing == .done, Lease.isHeld(by: instance, on: seen) { return .certain }
        guard isTimeLeft else { return .giveUp }
        return written < Limit.leaseTriesMax ? .writeAgain : .leaveUnproved
    }
}

/// What a look at a mounted volume shows of its lease.
package enum LeaseCheck: Sendable, Equatable {
    case held
    /// Somebody has removed or changed it.
    case missing
    /// The volume is not attached here any more.
    case taken(Situation)

    /// Throws if the volume cannot be used at all.
    package init(_ seen: VolumeDescription, on host: Host) throws(OperationError) {
        let situation = try Situation(of: seen, seenFrom: host, readOnly: true)
        guard case .here = situation else {
            self = .taken(situation)
            return
        }
        self = Lease.isHeld(by: host.instance, on: seen) ? .held : .missing
    }
}
