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
        case unmounting(Task<Void, any Error>, BlockDevice)
        case detaching(Task<Void, any Error>)
    }

    var record: VolumeRecord {
        didSet { table?.noteChange(of: self, from: oldValue, isSaved: isPublishing) }
    }
    var phase = Phase.unmounted { didSet { table?.noteActivity(of: self) } }
    /// The table that it is in.
    weak var table: VolumeTable?
    /// The names that Docker is to know it by once they are on the disk.
    var proposal: NamesProposal?
    private var isPublishing = false
    /// Whether its detachment was asked for here, and EC2 has not said since that it is attached.
    var isLeaving = false
    /// Whether the lease is surely there: written here, seen by a look after that, and no dropping begun
    /// since.
    var isLeaseSure = false
    /// The dropping of the lease that is under way.
    var leaseDrop: Task<Void, any Error>?
    /// Whether no Mount may join what is mounted, but unmounts it and begins anew: another host was
    /// taking the volume and it could not be unmounted again, nobody knows of the mount, its options
    /// have changed since, or its file system has shut down.
    var needsRemount = false
    /// Tells its mounts of this run apart.
    var mountNumber = 0
    /// Whether its journal was not replayed when it was mounted last: the contents may be older than
    /// what was written.
    var mayBeOutdated = false
    /// Whether the device of a mounted volume has gone.
    var isLost = false
    /// When EC2 accepted the last attachment here, or may have.
    var attachedAt: Instant?
    /// Whether EC2 has shown the attachment of `attachedAt` since.
    var isLookedAt = false
    /// When a look was asked for first that showed the attachment by a name that was not asked for.
    var foreignAt: Instant?
    /// The names that AttachVolume was asked for in this run, since the volume was detached last: an
    /// attachment by one of them is this plugin's.
    var askedNames: Set<String> = []
    /// Whether the mark of an attachment that has ended could not be removed: it says nothing of another.
    var isMarkStale = false
    /// The name of an AttachVolume whose answer was lost: another one, if there is to be one, asks for the
    /// same, which the record has. So a later run knows the attachment, whichever it is of.
    var unansweredName: String?
    /// When a look at this instance was asked for first that did not list it, though it is thought to be
    /// attached.
    var unlistedAt: Instant?
    /// Looks now and then whether a mounted volume still bears its lease.
    var leaseWatch: Task<Void, Never>?
    /// The writing of a lease that `leaseWatch` found missing.
    var leaseRestoring: Task<Void, Never>?
    /// Notices when the device of a mounted volume goes.
    var lossWatch: Task<Void, Never>?
    /// Whether it is attached to this instance, or being attached or detached, as far as is known.
    var isHere = false { didSet { table?.noteActivity(of: self) } }
    /// Whether only the record of an earlier run says that it is here.
    var isPresumed = false
    /// What EC2 said last, brought up to date by what was done here since.
    var description: VolumeDescription?
    /// Mount calls that are under way. While there are any the volume is not given back.
    var mountsUnderWay = 0 { didSet { table?.noteActivity(of: self) } }
    /// When the linger began.
    var unusedSince = Instant(nanoseconds: 0)
    /// Waits out the linger, then unmounts what nobody uses and detaches.
    var givingBack: Task<Void, Never>?

    init(_ record: VolumeRecord) { self.record = record }

    var id: VolumeID { record.id }
    var isKnown: Bool { !record.isRemoved }
    /// Whether Docker knows it or is about to, or something is still to be given back.
    var isRemembered: Bool {
        isKnown || proposal != nil || record.isOurs || record.hasLease
    }
    var isUsed: Bool { !record.mounts.isEmpty || mountsUnderWay > 0 }

    /// Whether nothing of it is on this instance but its names, and nothing is being done for it.
    var isAtRest: Bool {
        guard case .unmounted = phase else { return false }
        return !isHere && mountsUnderWay == 0 && record.isAtRest
    }

    /// The record as it is to be on the disk; nil where it is to be forgotten.
    var toBeSaved: VolumeRecord? {
        var saved = record
        if let proposal { saved.propose(proposal) }
        return saved.isRemoved && !saved.isOurs && !saved.hasLease ? nil : saved
    }

    /// Lets Docker know the names that are on the disk by now.
    func publish(_ proposal: NamesProposal) {
        self.proposal = nil
        isPublishing = true
        record.propose(proposal)
        isPublishing = false
        proposal.outcome = .success(())
    }

    func withdraw(_ proposal: NamesProposal, after error: any Error) {
        self.proposal = nil
        proposal.outcome = .failure(error)
    }

    /// Whether it is attached here for the next Mount alone, or being detached.
    var isLingering: Bool {
        switch phase {
        case .unmounted, .detaching: isHere && record.isOurs && !isUsed
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

    /// The same while it is being unmounted, which may fail.
    var mountedDevice: BlockDevice? {
        switch phase {
        case .mounted(let device), .unmounting(_, let device): device
        case .unmounted, .mounting, .detaching: nil
        }
    }

    /// What is being done to it, if anything is.
    var operation: Task<Void, any Error>? {
        switch phase {
        case .mounting(let task), .unmounting(let task, _), .detaching(let task): task
        case .unmounted, .mounted: nil
        }
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

/// Names of a volume that are being saved, and what came of it. Until they are on the disk Docker is
/// told of the former ones: so no answer is contradicted by the next start. The manager's own: hence
/// `@unchecked`.
final class NamesProposal: @unchecked Sendable {
    let names: [VolumeNaming]
    var outcome: Result<Void, any Error>?

    init(_ names: [VolumeNaming]) { self.names = names }
}

extension VolumeRecord {
    fileprivate mutating func propose(_ proposal: NamesProposal) {
        names = proposal.names
        if names.isEmpty { verbatim = nil }
    }
}
