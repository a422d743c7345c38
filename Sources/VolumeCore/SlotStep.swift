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
