package import Base

/// What to do next so that EC2 lets the instance have one more volume.
package enum SlotStep: Sendable, Equatable {
    case attach
    /// Ask EC2 what the instance has attached.
    case lookAtInstance
    /// Release a volume that nobody uses; where there is none, refuse.
    case release

    /// Below the limit nothing is asked; what cannot be learned refuses nothing: EC2 decides.
    ///
    /// - Parameters:
    ///   - use: nil where the limit is not known.
    ///   - hasLooked: whether EC2 was asked during this Mount what the instance has attached.
    package init(_ use: AttachmentUse?, hasLooked: Bool) {
        guard let use, use.isFull else {
            self = .attach
            return
        }
        self = hasLooked ? .release : .lookAtInstance
    }
}

/// Whether to stop asking EC2 for the attachment limit, after `attempt` attempts have failed.
package func isLimitUnknowable(after error: any Error, attempt: Int) -> Bool {
    error.ec2Failure?.code == "UnauthorizedOperation" || attempt >= Limit.attachmentLimitTriesMax
}

/// A volume that nobody uses, attached here for the next Mount alone.
package struct LingeringVolume: Sendable {
    package var id: VolumeID
    package var unusedSince: Instant
    package var isBeingDetached: Bool

    package init(_ id: VolumeID, unusedSince: Instant, isBeingDetached: Bool) {
        self.id = id
        self.unusedSince = unusedSince
        self.isBeingDetached = isBeingDetached
    }

    /// The volume to release first: the one unused for longest. A detachment that is under way may
    /// take as long as an Unmount, whoever waits for it: a volume that is being detached needs that
    /// much time.
    ///
    /// - Parameter time: how much is left of the Mount that needs room.
    package static func toRelease(
        of volumes: [LingeringVolume], besides barred: Set<VolumeID>, within time: Duration
    ) -> VolumeID? {
        guard time > .zero else { return nil }
        let canJoin = time >= Limit.unmountTimeMax
        return volumes.filter { (canJoin || !$0.isBeingDetached) && !barred.contains($0.id) }
            .min { ($0.unusedSince, $0.id.description) < ($1.unusedSince, $1.id.description) }?.id
    }
}

/// One Mount's search for a free slot: what it has tried so far, and what follows from that.
package struct SlotSearch: Sendable {
    private enum Look { case due, answered, failed }

    private var look = Look.due
    /// The volumes that it has tried to release.
    package private(set) var tried: Set<VolumeID> = []
    private var kept: [(volume: VolumeID, reason: String)] = []

    package init() {}

    /// - Parameter use: nil if the limit is unknown.
    package func next(_ use: AttachmentUse?) -> SlotStep {
        // If EC2 cannot be asked, it decides when it is asked for the attachment.
        if look == .failed { return .attach }
        return SlotStep(use, hasLooked: look == .answered)
    }

    /// EC2 was asked what the instance has attached.
    package mutating func looked(isAnswered: Bool) { look = isAnswered ? .answered : .failed }

    /// A volume was to be released.
    ///
    /// - Parameter failure: why it was not; nil if it was.
    package mutating func tried(_ id: VolumeID, failure: (any Error)?) {
        tried.insert(id)
        if let failure { kept.append((id, "\(failure)")) }
    }

    /// The error of a Mount that finds no volume to release.
    package func refusal(of volume: VolumeID, _ use: AttachmentUse) -> OperationError {
        use.refusal(of: volume, kept: kept)
    }
}
