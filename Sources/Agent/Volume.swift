import Base
import VolumeCore

/// One volume of the table, the manager's own: what is known of it, and the tasks that act on it.
final class Volume {
    /// What is known of it here. What is to be saved of that stands in the record too.
    var state: VolumeState {
        didSet {
            if !state.isBusy { operation = nil }
            if !record.isUpToDate(with: state) { record.note(state) }
            table?.noteActivity(of: self)
        }
    }
    /// What is saved of it.
    var record: VolumeRecord {
        didSet { table?.noteChange(of: self, from: oldValue, isSaved: isPublishing) }
    }
    /// The table that it is in.
    weak var table: VolumeTable?
    /// The names that Docker is to know it by once they are on the disk.
    var proposal: NamesProposal?
    private var isPublishing = false
    /// What is being done to it, if anything is: a task that every call interested in its outcome
    /// awaits. It goes on when such a call is cut.
    private(set) var operation: Task<Void, any Error>?
    /// The removal of the lease that is under way.
    var leaseDrop: Task<Void, any Error>?
    /// Looks now and then whether a mounted volume still bears its lease.
    var leaseWatch: Task<Void, Never>?
    /// The writing of a lease that `leaseWatch` found missing.
    var leaseRestoring: Task<Void, Never>?
    /// Notices when the device of a mounted volume goes.
    var lossWatch: Task<Void, Never>?
    /// Waits out the linger, then unmounts what nobody uses and detaches.
    var givingBack: Task<Void, Never>?

    init(_ record: VolumeRecord) {
        self.record = record
        state = VolumeState(of: record)
    }

    /// Begins an operation, which `event` notes.
    func begin(_ event: (inout VolumeState) -> Void, _ task: Task<Void, any Error>) {
        event(&state)
        operation = task
    }

    var id: VolumeID { record.id }
    var isKnown: Bool { !record.isRemoved }
    /// Whether Docker knows it or is about to, or something is still to be given back.
    var isRemembered: Bool {
        isKnown || proposal != nil || state.isOurs || state.hasLease
    }
    var isUsed: Bool { !record.mounts.isEmpty || state.mountCalls > 0 }

    /// Whether nothing of it is on this instance but its names, and nothing is being done for it.
    var isAtRest: Bool {
        guard state.mount == .unmounted else { return false }
        return !state.isHere && state.mountCalls == 0 && record.isAtRest
    }

    /// The record as it is to be on the disk; nil where it is to be forgotten.
    var toBeSaved: VolumeRecord? {
        var saved = record
        if let proposal { saved.propose(proposal) }
        return saved.isRemoved && !state.isOurs && !state.hasLease ? nil : saved
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
        switch state.mount {
        case .unmounted, .detaching: state.isHere && state.isOurs && !isUsed
        case .mounting, .mounted, .unmounting: false
        }
    }

    /// Whether a step of giving it back is under way.
    var isBeingGivenBack: Bool { state.mount == .detaching || leaseDrop != nil }
}

/// Names of a volume that are being saved, and what came of it. Until they are on the disk Docker
/// is told of the former ones: so no answer is contradicted by the next start. The manager's own:
/// hence `@unchecked`.
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
