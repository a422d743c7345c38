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
    /// Its names for Docker once they are on disk.
    var proposal: NamesProposal?
    private var isPublishing = false
    /// What is being done to it, if anything is: a task that every call interested in its outcome
    /// awaits. It goes on when such a call is cut.
    private(set) var operation: Task<Void, any Error>?
    /// The removal of the lease that is under way.
    var leaseDrop: Task<Void, any Error>?
    /// Checks regularly whether a mounted volume still has its lease.
    var leaseWatch: Task<Void, Never>?
    /// The writing of a lease that `leaseWatch` found missing.
    var leaseRestoring: Task<Void, Never>?
    /// Detects the loss of a mounted volume's device.
    var lossWatch: Task<Void, Never>?
    /// Waits for the end of the linger, then unmounts and detaches.
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
    /// Whether Docker knows it or is about to, or something must still be released.
    var isRemembered: Bool {
        isKnown || proposal != nil || state.isOurs || state.hasLease
    }
    var isUsed: Bool { !record.mounts.isEmpty || state.mountCalls > 0 }

    /// Whether nothing but its names is on this instance, and no work for it is in progress.
    var isAtRest: Bool {
        guard state.mount == .unmounted else { return false }
        return !state.isHere && state.mountCalls == 0 && record.isAtRest
    }

    /// The record to be saved; nil if it is to be forgotten.
    var toBeSaved: VolumeRecord? {
        var saved = record
        if let proposal { saved.propose(proposal) }
        return saved.isRemoved && !state.isOurs && !state.hasLease ? nil : saved
    }

    /// Publishes to Docker the names that are now on disk.
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

    /// Whether it is attached here only for the next Mount, or being detached.
    var isLingering: Bool {
        switch state.mount {
        case .unmounted, .detaching: state.isHere && state.isOurs && !isUsed
        case .mounting, .mounted, .unmounting: false
        }
    }

    /// Whether it is being detached.
    var isBeingDetached: Bool { state.mount == .detaching }
}

/// Names of a volume that are being saved, and the outcome. Until they are on disk, Docker is told
/// the previous ones, so that the next start does not contradict a response. Only the manager uses
/// it: hence `@unchecked`.
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
