import Base
import VolumeCore

/// One volume of the table, the manager's own.
final class Volume {
    /// What a volume is going through on this instance. An operation is a task that every call
    /// interested in its outcome awaits; it goes on when such a call is cut.
    enum Phase {
        /// Not mounted; the device may be here, lingering.
        case unmounted
        case mounting(Task<Void, any Error>)
        case mounted(BlockDevice)
        case unmounting(Task<Void, any Error>)
        case detaching(Task<Void, any Error>)
    }

    var record: VolumeRecord
    var phase = Phase.unmounted
    /// Whether its detachment was asked for here, and EC2 has not said since that it is attached.
    var isLeaving = false
    /// Whether the lease is surely there: written here, and no dropping begun since.
    var isLeaseSure = false
    /// The dropping of the lease that is under way.
    var leaseDrop: Task<Void, any Error>?
    /// Whether no Mount may join what is mounted, but unmounts it and begins anew: another host was
    /// taking the volume and it could not be unmounted again, nobody knows of the mount, its options
    /// have changed since, or its file system has shut down.
    var needsRemount = false
    /// Whether its journal was not replayed when it was mounted last: the contents may be older than
    /// what was written.
    var mayBeOutdated = false
    /// Whether the device of a mounted volume has gone.
    var isLost = false
    /// Notices when the device of a mounted volume goes.
    var lossWatch: Task<Void, Never>?
    /// Whether it is attached to this instance, or being attached or detached, as far as is known.
    var isHere = false
    /// What EC2 said last, brought up to date by what was done here since.
    var description: VolumeDescription?
    /// Mount calls that are under way. While there are any the volume is not given back.
    var mountsUnderWay = 0
    /// When the linger began.
    var unusedSince = Instant(nanoseconds: 0)
    /// Waits out the linger, then unmounts what nobody uses and detaches.
    var givingBack: Task<Void, Never>?

    init(_ record: VolumeRecord) { self.record = record }

    var id: VolumeID { record.id }
    var isKnown: Bool { !record.isRemoved }
    /// Whether Docker knows it, or something is still to be given back.
    var isRemembered: Bool { isKnown || isHere || record.hasLease }
    var isUsed: Bool { !record.mounts.isEmpty || mountsUnderWay > 0 }

    /// Whether it is attached here for the next Mount alone, or being detached.
    var isLingering: Bool {
        switch phase {
        case .unmounted, .detaching: isHere && !isUsed
        case .mounting, .mounted, .unmounting: false
        }
    }

    /// Whether a step of giving it back is under way.
    var isBeingGivenBack: Bool {
        if case .detaching = phase { true } else { leaseDrop != nil }
    }

    var device: BlockDevice? {
        if case .mounted(let device) = phase { device } else { nil }
    }

    /// In one word, for Get's Status.
    var phaseName: String {
        switch phase {
        case .unmounted: isHere ? "attached" : "detached"
        case .mounting: "mounting"
        case .mounted: isLost ? "lost" : "mounted"
        case .unmounting: "unmounting"
        case .detaching: "detaching"
        }
    }
}
