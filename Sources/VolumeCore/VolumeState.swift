package import Base

/// What is known of one volume on this instance: its attachment, its lease, its mount, and who uses
/// it.
///
/// Only events change it, one method each. docs/volume-states.md has the table of states and
/// events.
package struct VolumeState: Sendable, Equatable {
    /// The volume's attachment to this instance, as far as is known.
    package enum Attachment: Sendable, Equatable {
        /// - Parameter expectsDeparture: whether a device that is here all the same leaves.
        case away(expectsDeparture: Bool)
        /// Only the record of an earlier run names it, and it is not known yet whose record that
        /// is.
        case recorded(as: String)
        /// AttachVolume was asked for, and is not answered.
        case attaching(as: String, expectsDeparture: Bool)
        /// - Parameter isPresumed: whether only the record of an earlier run says so.
        case attached(as: String?, isPresumed: Bool)
        /// Its detachment was asked for here, and EC2 has not said since that it is attached.
        case detaching(as: String?, isPresumed: Bool)
    }

    /// This instance's lease of the volume.
    package enum LeaseState: Sendable, Equatable {
        case none
        /// CreateTags was asked for: the lease may be there, whatever the answer.
        case writing
        /// It may be there.
        case uncertain
        /// It is there: written here, seen by a look after that, and no removal begun since.
        case certain
        /// DeleteTags was asked for, or is about to be.
        case removing
    }

    /// What a look that shows the mark of this plugin's attachment says.
    private enum Mark: Sendable, Equatable {
        /// The attachment that it names is this plugin's.
        case current
        /// The attachment with this name has ended: the look is old, or the mark could not be
        /// removed.
        ///
        /// - Parameter isLeft: whether the mark is still to be removed.
        case ended(as: String, isLeft: Bool)
    }

    /// What is mounted, and how.
    package struct Mounted: Sendable, Equatable {
        package enum Condition: Sendable, Equatable {
            case sound
            /// No Mount may join it, but unmounts it and begins anew: another host was taking the
            /// volume and it could not be unmounted again, nobody knows of the mount, its options
            /// have changed since, or its file system has shut down.
            case stale
            /// Its device has gone.
            case lost
        }

        package let device: BlockDevice
        package fileprivate(set) var condition = Condition.sound
    }

    /// What the volume is going through here. One operation at a time.
    package enum Mount: Sendable, Equatable {
        /// The device may be here, lingering.
        case unmounted
        case mounting
        case mounted(Mounted)
        /// It may fail, and then stays mounted.
        case unmounting(Mounted)
        /// Not mounted, and detached before it is mounted again.
        case detaching
    }

    package private(set) var attachment: Attachment
    /// Whether this plugin attached it, so that it may detach it.
    package private(set) var isOurs: Bool
    package private(set) var lease: LeaseState
    package private(set) var mount = Mount.unmounted
    /// EC2's last description, updated with what was done here since.
    package private(set) var description: VolumeDescription?
    /// When EC2 accepted the last attachment here, or may have.
    package private(set) var attachedAt: Instant?
    /// Whether EC2 has shown the attachment of `attachedAt` since.
    package private(set) var isSeenHere = false
    /// The names that were requested of AttachVolume in this run since the volume was last
    /// detached, and not refused: an attachment under one of them is this plugin's.
    package private(set) var askedNames: Set<String> = []
    /// The last of them while EC2 has not answered, if it was not one of them before.
    private var newlyAskedName: String?
    /// The name of an AttachVolume whose response was lost. A further AttachVolume requests the
    /// same name, which is in the record, so a later run recognises the attachment, whichever call
    /// made it.
    package private(set) var unansweredName: String?
    private var mark = Mark.current
    /// When the first look was requested that showed the attachment under an unexpected name.
    private var foreignSince: Instant?
    /// When the first look at this instance was requested that did not list it, although it should
    /// be attached.
    private var unlistedSince: Instant?
    /// The number of Mount calls in progress. While there are any, the volume is not released.
    package private(set) var mountCalls: UInt = 0
    /// Distinguishes its mounts in this run.
    package private(set) var mountNumber = 0
    /// Whether its journal was not replayed at the last mount: the contents may be older than what
    /// was written.
    package private(set) var mayBeOutdated = false
    /// When the linger began.
    package private(set) var unusedSince = Instant(nanoseconds: 0)

    /// What an earlier run has left, or nothing.
    package init(of record: VolumeRecord) {
        attachment = record.deviceName.map { .recorded(as: $0) } ?? .away(expectsDeparture: false)
        isOurs = record.isOurs
        lease = record.hasLease ? .uncertain : .none
    }
}

// MARK: What follows from it

extension VolumeState {
    /// Whether it is attached to this instance, or being attached or detached, as far as known.
    package var isHere: Bool {
        switch attachment {
        case .attached, .detaching: true
        case .away, .recorded, .attaching: false
        }
    }

    /// The name that it is attached by here, or is to be, as far as is known.
    package var deviceName: String? {
        switch attachment {
        case .away: nil
        case .recorded(let name), .attaching(let name, _): name
        case .attached(let name, _), .detaching(let name, _): name
        }
    }

    /// Whether only the record of an earlier run says that it is here.
    package var isPresumed: Bool {
        switch attachment {
        case .attached(_, let isPresumed), .detaching(_, let isPresumed): isPresumed
        case .away, .recorded, .attaching: false
        }
    }

    /// Whether a device of it that is here is one that leaves.
    package var expectsDeparture: Bool {
        switch attachment {
        case .away(let expects), .attaching(_, let expects): expects
        case .detaching: true
        case .recorded, .attached: false
        }
    }

    /// Whether the volume has this instance's lease, as far as known.
    package var hasLease: Bool { lease != .none }

    /// The device of a mounted volume.
    package var device: BlockDevice? {
        if case .mounted(let mounted) = mount { mounted.device } else { nil }
    }

    /// The same while it is being unmounted, which may fail.
    package var mountedDevice: BlockDevice? { mounted?.device }

    private var mounted: Mounted? {
        switch mount {
        case .mounted(let mounted), .unmounting(let mounted): mounted
        case .unmounted, .mounting, .detaching: nil
        }
    }

    /// Whether the device of a mounted volume is gone.
    package var isLost: Bool { mounted?.condition == .lost }

    /// Whether an operation on it is under way.
    package var isBusy: Bool { mount.isBusy }

    /// In one word, for Get's Status.
    package var phaseName: String {
        switch mount {
        case .unmounted: isHere ? "attached" : "detached"
        case .mounting: "mounting"
        case .mounted(let mounted): mounted.condition == .lost ? "lost" : "mounted"
        case .unmounting: "unmounting"
        case .detaching: "detaching"
        }
    }

    /// The name to ask for again, by which the volume may be attached already.
    package var nameToAskAgain: String? { unansweredName ?? (isOurs ? deviceName : nil) }

    /// Whether EC2 accepted the last attachment so lately that a look may be older than it.
    package func isAttachedLately(at now: Instant) -> Bool {
        attachedAt.map { now < $0 + Limit.attachmentLagMax } ?? false
    }

    /// Whether it needs no look to be sure of the attachment: EC2 has answered for it a moment
    /// before, and it is nobody else's before it has ended.
    package func isSurelyAttached(at now: Instant) -> Bool {
        unansweredName == nil && isAttachedLately(at: now)
    }

    /// Whether this plugin attached the volume here under that name.
    package func isPlugins(
        attachedAs name: String, _ seen: VolumeDescription, on instance: InstanceID
    ) -> Bool {
        isMarked(seen, on: instance) || askedNames.contains(name) || isOurs && deviceName == name
    }

    /// The name in the mark of an attachment that has ended, if that mark is still to be removed.
    package var staleMarkName: String? {
        if case .ended(let name, isLeft: true) = mark { name } else { nil }
    }

    /// Whether a mark says that this plugin attached the volume here.
    package func isMarked(_ seen: VolumeDescription, on instance: InstanceID) -> Bool {
        if case .ended(let name, _) = mark, seen.attachment(to: instance)?.device == name {
            return false
        }
        return AttachmentMark.isBorne(by: seen, for: instance)
    }

    /// Whether two looks that are apart, of which the second was asked for at `askedAt`, have shown
    /// an attachment that this plugin did not ask for.
    package func isSurelyForeign(at askedAt: Instant) -> Bool {
        foreignSince.map { askedAt >= $0 + Limit.tagLagMax } ?? false
    }

    /// Whether two looks that are apart, of which the second was asked for at `askedAt`, did not
    /// list it.
    package func isSurelyUnlisted(at askedAt: Instant) -> Bool {
        unlistedSince.map { askedAt >= $0 + Limit.tagLagMax } ?? false
    }

    /// What a look at this instance says of a volume that should be attached to it.
    package enum Listing: Sendable, Equatable {
        /// It is attached, or is no matter while something is done to it.
        case current
        /// Only a later look can tell.
        case doubtful
        /// Two looks that are apart do not list it, and its device has gone.
        case ended
    }

    /// - Parameters:
    ///   - isGone: whether its device was looked for here and not found.
    ///   - askedAt: when the look was asked for.
    package func listing(isListed: Bool, isGone: Bool, askedAt: Instant) -> Listing {
        if isListed || attachedAt != nil || mount != .unmounted { return .current }
        return isGone && isSurelyUnlisted(at: askedAt) ? .ended : .doubtful
    }

    /// The invariant that does not hold; nil where all do.
    package var fault: String? {
        if lease == .certain && !isHere { return "a certain lease of a volume that is not here" }
        if mounted != nil && !isHere { return "a mount of a volume that is not here" }
        if isSeenHere && attachedAt == nil { return "an attachment seen that was never accepted" }
        return nil
    }

    private func check() { precondition(fault == nil, fault ?? "") }
}

// MARK: Events of the attachment

extension VolumeState {
    /// The volume is not here any more: it is written here alone what that means. What is mounted
    /// is here until it is unmounted, whatever is said of it.
    private mutating func leave(expectsDeparture: Bool) {
        isOurs = false
        if mounted != nil {
            nameReleased()
            return
        }
        attachment = .away(expectsDeparture: expectsDeparture)
        if lease == .certain { lease = .uncertain }
    }

    /// What the record of an earlier run says counts from here on.
    ///
    /// - Parameter isPresent: whether its device is here.
    package mutating func takenUp(isPresent: Bool) {
        let name = deviceName
        // The previous run may have ended before EC2 answered.
        guard name != nil || isOurs || isPresent else { return }
        attachment =
            if case .detaching = attachment { .detaching(as: name, isPresumed: !isPresent) } else {
                .attached(as: name, isPresumed: !isPresent)
            }
        // If a look is outdated and AttachVolume fails, the name is forgotten.
        if isOurs, let name { askedNames.insert(name) }
        check()
    }

    /// Its device was found here.
    package mutating func deviceFound() {
        switch attachment {
        case .away(let expectsDeparture):
            attachment =
                expectsDeparture
                ? .detaching(as: nil, isPresumed: false) : .attached(as: nil, isPresumed: false)
        case .recorded(let name): attachment = .attached(as: name, isPresumed: false)
        case .attaching(let name, let expectsDeparture):
            attachment =
                expectsDeparture
                ? .detaching(as: name, isPresumed: false)
                : .attached(as: name, isPresumed: false)
        case .attached, .detaching: break
        }
        check()
    }

    /// AttachVolume is about to be asked for.
    package mutating func attachBegan(as name: String) {
        switch attachment {
        case .away, .recorded, .attaching:
            attachment = .attaching(as: name, expectsDeparture: expectsDeparture)
        case .attached: attachment = .attached(as: name, isPresumed: isPresumed)
        case .detaching: attachment = .detaching(as: name, isPresumed: isPresumed)
        }
        isOurs = true
        newlyAskedName = askedNames.insert(name).inserted ? name : nil
        check()
    }

    /// EC2 has accepted the attachment.
    package mutating func attachAccepted(
        _ accepted: VolumeAttachment, as name: String, at now: Instant
    ) {
        description?.attachments = [accepted]
        attachedAt = now
        isSeenHere = false
        attached(as: name)
    }

    /// EC2's answer was lost: the volume may be attached.
    package mutating func attachUnanswered(as name: String, at now: Instant) {
        deviceFound()
        newlyAskedName = nil
        unansweredName = name
        attachedAt = now
        isSeenHere = false
        check()
    }

    /// EC2 was not asked after all, or has refused.
    package mutating func attachRefused(as name: String, wasOurs: Bool) {
        // An earlier call with that name may have been applied.
        if !wasOurs || newlyAskedName == name { nameReleased() }
        isOurs = wasOurs
        if let name = newlyAskedName { askedNames.remove(name) }
        newlyAskedName = nil
        check()
    }

    /// The name was given to another volume, or EC2 says that it is in use.
    package mutating func unansweredNameTaken() { unansweredName = nil }

    /// EC2 says that it is attached, or being attached, here.
    package mutating func attached(as name: String) {
        newlyAskedName = nil
        attachment = .attached(as: name, isPresumed: false)
        unansweredName = nil
        check()
    }

    /// EC2 has shown the attachment, whose last acceptance it may be.
    package mutating func seenHere() {
        isSeenHere = attachedAt != nil
        check()
    }

    /// EC2 tells whether it was this plugin that attached it.
    package mutating func originTold(isOurs: Bool) { self.isOurs = isOurs }

    /// EC2 says that it is not attached here, and has not accepted an attachment a moment before.
    package mutating func seenElsewhere() {
        leave(expectsDeparture: expectsDeparture)
        check()
    }

    /// A look shows the attachment that this plugin made.
    package mutating func ownAttachmentSeen() { foreignSince = nil }

    /// A look that was asked for at `askedAt` shows an attachment that this plugin did not ask for.
    package mutating func foreignAttachmentSeen(at askedAt: Instant) {
        foreignSince = foreignSince ?? askedAt
    }

    /// A look at this instance lists it, or is no matter while something is done to it.
    package mutating func listed() { unlistedSince = nil }

    /// A look at this instance that was asked for at `askedAt` does not list it.
    package mutating func unlisted(at askedAt: Instant) {
        unlistedSince = unlistedSince ?? askedAt
    }

    /// DetachVolume is about to be asked for.
    package mutating func detachBegan() {
        switch attachment {
        case .away, .recorded: attachment = .away(expectsDeparture: true)
        case .attaching(let name, _): attachment = .attaching(as: name, expectsDeparture: true)
        case .attached(let name, let isPresumed):
            attachment = .detaching(as: name, isPresumed: isPresumed)
        case .detaching: break
        }
        check()
    }

    /// Its attachment has ended, and its device has gone.
    package mutating func detached() {
        leave(expectsDeparture: false)
        attachedAt = nil
        isSeenHere = false
        foreignSince = nil
        askedNames = []
        unansweredName = nil
        description?.attachments = []
        description?.state = .available
        check()
    }

    /// It was detached because its device did not come. Should that come all the same, it leaves.
    package mutating func detachedStuck() {
        leave(expectsDeparture: true)
        askedNames = []
        description = nil
        check()
    }

    /// Another volume was given its name, which only the record of an earlier run has claimed.
    package mutating func claimDropped() {
        leave(expectsDeparture: expectsDeparture)
        check()
    }

    /// All that the record says of it was another instance's.
    package mutating func disowned() {
        leave(expectsDeparture: expectsDeparture)
        lease = .none
        check()
    }

    /// Its name may be given to another volume.
    package mutating func nameReleased() {
        switch attachment {
        case .away: break
        case .recorded: attachment = .away(expectsDeparture: false)
        case .attaching(_, let expectsDeparture):
            attachment = .away(expectsDeparture: expectsDeparture)
        case .attached(_, let isPresumed): attachment = .attached(as: nil, isPresumed: isPresumed)
        case .detaching(_, let isPresumed):
            attachment = .detaching(as: nil, isPresumed: isPresumed)
        }
        check()
    }

    /// EC2 has said how the volume is.
    package mutating func described(_ description: VolumeDescription) {
        self.description = description
    }

    /// What EC2 said may be old: it is asked anew.
    package mutating func descriptionDoubted() { description = nil }
}

// MARK: Events of the lease

extension VolumeState {
    /// An earlier run may have written it, or its removal has failed.
    package mutating func leasePresumed() { if lease == .none { lease = .uncertain } }

    package mutating func leaseWritingBegan() { if lease != .certain { lease = .writing } }

    /// Written, as EC2 says, or perhaps, for its answer was lost.
    package mutating func leaseWritingEnded() { if lease == .writing { lease = .uncertain } }

    /// With the lease its mark has been written.
    package mutating func markWritten() {
        if isOurs { mark = .current }
    }

    package mutating func leaseRefused() { lease = .none }

    /// A look that was asked for after it was written shows it.
    package mutating func leaseSeen() {
        lease = isHere ? .certain : .uncertain
        check()
    }

    /// Somebody may have removed it, or the volume may have been taken.
    package mutating func leaseDoubted() { if lease == .certain { lease = .uncertain } }

    package mutating func leaseRemovalBegan() { if hasLease { lease = .removing } }

    /// It stays, as far as is known: the removal is tried again.
    package mutating func leaseRemovalFailed() { if lease == .removing { lease = .uncertain } }

    package mutating func leaseRemoved() { lease = .none }

    /// An attachment has ended, or ends, and its mark was removed or not. What stays is removed
    /// together with the lease.
    ///
    /// - Parameter name: the name in the mark.
    package mutating func markEnded(as name: String, isRemoved: Bool) {
        mark = .ended(as: name, isLeft: !isRemoved)
        if !isRemoved { leasePresumed() }
    }

    package mutating func staleMarkRemoved() {
        if let name = staleMarkName { mark = .ended(as: name, isLeft: false) }
    }
}

// MARK: Events of the mount

extension VolumeState {
    /// A Mount call wants it: it is not given back before the call has ended.
    package mutating func mountCallBegan() { mountCalls += 1 }

    package mutating func mountCallEnded() { mountCalls -= 1 }

    package mutating func lingerBegan(at instant: Instant) { unusedSince = instant }

    package mutating func mountingBegan() { go(.mountingBegan) }

    /// The kernel has mounted it, and tells whether it replayed the journal.
    package mutating func journalTold(mayBeOutdated: Bool) { self.mayBeOutdated = mayBeOutdated }

    package mutating func mounted(on device: BlockDevice) {
        deviceFound()
        go(.mounted(device))
        mountNumber += 1
        check()
    }

    package mutating func mountingFailed() { go(.mountingFailed) }

    /// What was mounted could not be unmounted again: it is unmounted later.
    package mutating func mountStays(on device: BlockDevice) {
        deviceFound()
        go(.mountStays(device))
        check()
    }

    /// It is mounted since an earlier run.
    package mutating func foundMounted(on device: BlockDevice, mayBeOutdated: Bool) {
        deviceFound()
        go(.foundMounted(device))
        self.mayBeOutdated = mayBeOutdated
        check()
    }

    /// The next Mount begins anew. Says nothing of what is not mounted.
    package mutating func mountOutlived() { go(.outlived) }

    /// The device of the mounted volume has gone.
    package mutating func deviceLost() {
        go(.deviceLost)
        description = nil
        attachedAt = nil
        isSeenHere = false
        leaseDoubted()
        check()
    }

    package mutating func unmountingBegan() { go(.unmountingBegan) }

    package mutating func unmountingFailed() { go(.unmountingFailed) }

    /// Unmounted, by this plugin or by somebody else.
    package mutating func unmounted() { go(.unmounted) }

    /// It is about to be detached, and no Mount can begin.
    package mutating func releaseBegan() { go(.releaseBegan) }

    package mutating func releaseEnded() { go(.releaseEnded) }

    private mutating func go(_ event: Mount.Event) {
        guard let next = mount.after(event) else {
            preconditionFailure("\(event) of a volume that is \(mount)")
        }
        mount = next
    }
}

extension VolumeState.Mount {
    package enum Event: Sendable, Equatable {
        case mountingBegan
        case mounted(BlockDevice)
        case mountingFailed
        case mountStays(BlockDevice)
        case foundMounted(BlockDevice)
        case outlived
        case deviceLost
        case unmountingBegan
        case unmountingFailed
        case unmounted
        case releaseBegan
        case releaseEnded
    }

    /// What follows from an event; nil where it cannot occur.
    package func after(_ event: Event) -> Self? {
        switch event {
        case .mountingBegan: self == .unmounted ? .mounting : nil
        case .mounted(let device): self == .mounting ? .mounted(.init(device: device)) : nil
        case .mountStays(let device):
            self == .mounting ? .mounted(.init(device: device, condition: .stale)) : nil
        // The kernel lists what is mounted over another mount after that.
        case .foundMounted(let device): isBusy ? nil : .mounted(.init(device: device))
        // What could not be unmounted again stays mounted.
        case .mountingFailed: self == .mounting ? .unmounted : self
        case .outlived: judged(.stale) ?? self
        case .deviceLost: judged(.lost)
        case .unmountingBegan:
            if case .mounted(let mounted) = self { .unmounting(mounted) } else { nil }
        case .unmountingFailed:
            if case .unmounting(let mounted) = self { .mounted(mounted) } else { nil }
        case .unmounted: isMounted ? .unmounted : nil
        case .releaseBegan: self == .unmounted ? .detaching : nil
        case .releaseEnded: self == .detaching ? .unmounted : nil
        }
    }

    /// Whether an operation is under way.
    package var isBusy: Bool {
        switch self {
        case .mounting, .unmounting, .detaching: true
        case .unmounted, .mounted: false
        }
    }

    private var isMounted: Bool {
        switch self {
        case .mounted, .unmounting: true
        case .unmounted, .mounting, .detaching: false
        }
    }

    /// Nil where nothing is mounted. What is lost stays so.
    private func judged(_ condition: VolumeState.Mounted.Condition) -> Self? {
        switch self {
        case .mounted(let mounted): .mounted(mounted.judged(condition))
        case .unmounting(let mounted): .unmounting(mounted.judged(condition))
        case .unmounted, .mounting, .detaching: nil
        }
    }
}

extension VolumeState.Mounted {
    fileprivate func judged(_ condition: Condition) -> Self {
        var judged = self
        if self.condition != .lost { judged.condition = condition }
        return judged
    }
}
