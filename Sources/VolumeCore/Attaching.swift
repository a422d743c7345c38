package import Base

/// What to do after AttachVolume by one name has failed.
package enum AttachRecovery: Sendable, Equatable {
    /// EC2 says that the name is in use: set it aside, and ask by another one.
    case tryAnotherName
    /// Look at the volume again: it is not as it was thought to be, or EC2 may be about to have
    /// room.
    case lookAgain
    /// Look at the volume again, and keep the name: if the call, or an earlier one, was applied,
    /// the volume is here by it.
    case lookForAttachment
    /// Make room by releasing another volume, and look again; where there is none, give up.
    case freeSlot
    case giveUp

    /// - Parameters:
    ///   - isAskedAgain: whether it asked for the name of an earlier call whose answer was lost, or
    ///     whose attachment no look has shown. That call may have attached the volume, and the look
    ///     that showed it free may be older.
    ///   - isSlotComing: whether EC2 may be about to take note that another volume has gone.
    package init(after failure: EC2Failure, isAskedAgain: Bool, isSlotComing: Bool) {
        if case .unanswered(_, mayHaveApplied: true) = failure {
            self = .lookForAttachment
            return
        }
        self =
            switch AttachRefusal(failure) {
            case .nameInUse: .tryAnotherName
            case .volumeChanged: isAskedAgain ? .lookForAttachment : .lookAgain
            case .limitReached: isSlotComing ? .lookAgain : .freeSlot
            case .final, nil: .giveUp
            }
    }
}

extension VolumeState {
    /// AttachVolume by that name has failed. What may have been applied counts as done.
    ///
    /// - Parameter wasOurs: whether an attachment of this plugin's was known before the call.
    package mutating func attachFailed(
        _ failure: EC2Failure, _ recovery: AttachRecovery, as name: String, wasOurs: Bool,
        at now: Instant
    ) {
        if case .unanswered(_, mayHaveApplied: true) = failure {
            return attachUnanswered(as: name, at: now)
        }
        switch recovery {
        case .lookForAttachment: deviceFound()
        case .tryAnotherName:
            unansweredNameTaken()
            nameReleased()
            attachRefused(as: name, wasOurs: wasOurs)
        case .lookAgain, .freeSlot, .giveUp: attachRefused(as: name, wasOurs: wasOurs)
        }
    }
}

/// What to do where EC2 has the volume attached here, and its device has not come.
package enum MissingDevice: Sendable, Equatable {
    /// The attachment is stuck in `attaching`: detach it. By another name it helps where the kernel
    /// still holds the old one.
    case attachByAnotherName
    /// The attachment was looked up, and that answer was old: look again.
    case lookAgain
    /// Only whoever attached it may detach it.
    case leaveToOwner
    case giveUp

    /// - Parameters:
    ///   - reason: why the device is not awaited any longer.
    ///   - isAccepted: whether EC2 had just accepted the attachment, which else was looked up.
    ///   - isOurs: whether this plugin attached the volume.
    ///   - isTimeLeft: whether the Mount has time for another attempt.
    package init(
        after reason: OperationError.Reason, isAccepted: Bool, isOurs: Bool, isTimeLeft: Bool
    ) {
        self =
            switch reason {
            case .deadline where isTimeLeft: isOurs ? .attachByAnotherName : .leaveToOwner
            case .device where !isAccepted: .lookAgain
            default: .giveUp
            }
    }
}

/// How two calls' answers about an attachment that EC2 has accepted are weighed: one that does not
/// show it may be older than the attachment.
package struct AttachmentProof: Sendable {
    private var misses = 0

    package init() {}

    /// Notes what a look shows; false where the attachment has ended.
    package mutating func holds(after situation: Situation, attachedAs name: String) -> Bool {
        if situation == .here(deviceName: name) {
            misses = 0
        } else {
            misses += 1
        }
        return misses < 2
    }
}

/// Looks for an attachment here that is thought to be there.
///
/// One look alone may be older than the attachment: soon after it, two that are apart have to
/// agree.
package struct AttachmentSearch: Sendable {
    package enum Outcome: Sendable, Equatable {
        case found(deviceName: String)
        case missing
        case lookAgain(at: Instant)
    }

    private var missedAt: Instant?
    private var backoff = Backoff.looks

    package init() {}

    /// - Parameters:
    ///   - deviceName: the name that the volume is known to be attached by; on Xen its device was
    ///     found by that.
    ///   - isAnothers: whether another volume that is here has that name.
    package mutating func outcome(
        of situation: Situation, askedAt: Instant, now: Instant, deviceName: String?,
        attachedAt: Instant?, isAnothers: (String) -> Bool
    ) -> Outcome {
        if case .here(let name?) = situation, (deviceName ?? name) == name, !isAnothers(name) {
            return .found(deviceName: name)
        }
        let first = missedAt ?? askedAt
        missedAt = first
        guard let attachedAt,
            askedAt < attachedAt + Limit.attachmentLagMax + Limit.tagLagMax,
            askedAt < first + Limit.tagLagMax
        else { return .missing }
        return .lookAgain(at: min(now + backoff.next(), max(now, first + Limit.tagLagMax)))
    }
}

/// The looks that do not show an attachment which is about to be ended here. Where it has ended
/// before, DetachVolume might end what somebody attaches here by hand.
package struct MissedAttachment: Sendable {
    private var first: Instant?

    package init() {}

    /// When to look again; nil where the look that was asked for at `askedAt` is apart enough from
    /// the first one, and from the last acceptance of an attachment, to be sure.
    package mutating func nextLook(
        afterLookAt askedAt: Instant, attachedAt: Instant?
    ) -> Instant? {
        let first = first ?? askedAt
        self.first = first
        let apart = first + Limit.tagLagMax
        let sure = attachedAt.map { max(apart, $0 + Limit.attachmentLagMax) } ?? apart
        return askedAt < sure ? sure : nil
    }
}
