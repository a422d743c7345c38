package import Base

/// One account's volumes and instances in one Region: a state machine without I/O.
///
/// Every call passes the time. Future events are kept in a list of timers: call `advance` when
/// `nextTimer` is reached, and after every other call; execute the orders that it returns, and
/// report the outcome of each.
package struct Region: Sendable {
    package let name: String
    package let accountID: String
    package var latency = Latency()
    package var throttle = Throttle()
    package var faults = Faults()
    package var quotas = Quotas()
    package internal(set) var volumes: [VolumeID: Volume] = [:]
    package internal(set) var instances: [InstanceID: Instance] = [:]
    package internal(set) var snapshots: [String: Snapshot] = [:]
    /// Each volume's modifications, the latest last.
    package internal(set) var modifications: [VolumeID: [Modification]] = [:]
    var tokens = ClientTokens()
    package private(set) var events: [Event] = []

    /// The interval between attempts to detach a device that is held.
    package static let busyRetryTime: Duration = .milliseconds(100)

    enum Timer: Sendable {
        case volumeReady(VolumeID)
        case volumeGone(VolumeID)
        case plug(VolumeID, attachment: Int)
        case attached(VolumeID, attachment: Int)
        case attachmentEnds(VolumeID, attachment: Int)
        case unplug(VolumeID, attachment: Int)
        case instanceState(InstanceID, Instance.State)
        case snapshotDone(String, Snapshot.State)
        case modification(VolumeID, Modification.State)
    }

    private var timers: [(due: Instant, timer: Timer)] = []
    private var orders: [DeviceOrder] = []
    private var storageOrders: [StorageOrder] = []
    /// What DescribeVolumes still shows if responses are old; nil: no such volume.
    private var history: [VolumeID: [(at: Instant, volume: Volume?)]] = [:]
    private var attachmentCount = 0
    private var eventCount = 0

    package init(name: String, accountID: String) {
        self.name = name
        self.accountID = accountID
    }

    // MARK: Time

    /// When the next timer is due.
    package var nextTimer: Instant? { timers.map(\.due).min() }

    /// Executes everything that is due at `now`, and returns the orders that result from it and
    /// from earlier calls.
    package mutating func advance(to now: Moment) -> [DeviceOrder] {
        while let index = nextIndex(due: now.instant) {
            let timer = timers.remove(at: index).timer
            fire(timer, at: now)
        }
        defer { orders = [] }
        return orders
    }

    private func nextIndex(due: Instant) -> Int? {
        let index = timers.indices.min { timers[$0].due < timers[$1].due }
        return index.flatMap { timers[$0].due <= due ? $0 : nil }
    }

    mutating func schedule(_ timer: Timer, at instant: Instant) {
        timers.append((instant, timer))
    }

    private mutating func fire(_ timer: Timer, at now: Moment) {
        switch timer {
        case .volumeReady(let id): change(id, at: now) { $0.state = .available }
        case .volumeGone(let id): remove(id, at: now)
        case .plug(let id, let number): orderPlug(id, number, at: now)
        case .attached(let id, let number):
            changeAttachment(id, number, at: now) {
                if $0.state == .attaching { $0.state = .attached }
            }
        case .attachmentEnds(let id, let number):
            note("attachment-failed", id, attachment(id, number)?.instance, at: now.instant)
            endAttachment(id, number, at: now)
        case .unplug(let id, let number): orderUnplug(id, number, at: now)
        case .instanceState(let id, let state): finish(id, state, at: now)
        case .snapshotDone(let id, let state): finish(id, state, at: now)
        case .modification(let id, let state): advanceModification(id, to: state, at: now)
        }
    }

    // MARK: Storage

    mutating func order(_ order: StorageOrder) { storageOrders.append(order) }

    /// The orders since the last call. Take them after each call of `perform` and `advance`.
    package mutating func takeStorageOrders() -> [StorageOrder] {
        defer { storageOrders = [] }
        return storageOrders
    }

    // MARK: Volumes

    /// Adds a volume unchanged.
    package mutating func add(_ volume: Volume, at now: Moment) {
        setVolume(volume.id, to: volume, at: now)
    }

    /// The volume as DescribeVolumes shows it at `now`.
    func visible(_ id: VolumeID, at now: Instant) -> Volume? {
        var seen = past(id, now + (.zero - latency.consistency))
        if latency.tagConsistency > latency.consistency,
            let older = past(id, now + (.zero - latency.tagConsistency))
        {
            seen?.tags = older.tags
        }
        return seen
    }

    /// The tags by which filters find the volume at `now`; nil if they do not find it yet.
    func indexedTags(_ id: VolumeID, at now: Instant) -> [String: String]? {
        past(id, now + (.zero - latency.tagFilters))?.tags
    }

    private func past(_ id: VolumeID, _ horizon: Instant) -> Volume? {
        guard let past = history[id] else { return volumes[id] }
        if let seen = past.last(where: { $0.at <= horizon }) { return seen.volume }
        return past.first?.volume
    }

    func visibleVolumes(at now: Instant) -> [Volume] {
        Set(volumes.keys).union(history.keys).compactMap { visible($0, at: now) }
            .sorted { $0.id.description < $1.id.description }
    }

    mutating func change(_ id: VolumeID, at now: Moment, _ body: (inout Volume) -> Void) {
        guard var volume = volumes[id] else { return }
        body(&volume)
        setVolume(id, to: volume, at: now)
    }

    private mutating func change(_ id: VolumeID, at now: Moment, _ body: (inout Volume?) -> Void) {
        var volume = volumes[id]
        body(&volume)
        setVolume(id, to: volume, at: now)
    }

    private mutating func setVolume(_ id: VolumeID, to volume: Volume?, at now: Moment) {
        let age = max(latency.consistency, latency.tagConsistency, latency.tagFilters)
        if age > .zero {
            // The first entry is the state before the first remembered change.
            var past = history[id] ?? [(Instant(nanoseconds: 0), volumes[id])]
            past.append((now.instant, volume))
            let horizon = now.instant + (.zero - age)
            if let current = past.lastIndex(where: { $0.at <= horizon }) {
                past.removeFirst(current)
            }
            history[id] = past
        } else {
            history[id] = nil
        }
        volumes[id] = volume
    }

    /// Deletes a volume that is attached to nothing.
    mutating func beginDelete(_ id: VolumeID, at now: Moment) {
        change(id, at: now) { (volume: inout Volume) in volume.state = .deleting }
        schedule(.volumeGone(id), at: now.instant + latency.change)
    }

    private mutating func remove(_ id: VolumeID, at now: Moment) {
        change(id, at: now) { (volume: inout Volume?) in volume = nil }
        modifications[id] = nil
        note("volume-gone", id, at: now.instant)
        order(.remove(id))
    }

    /// Changes an attachment if it still exists.
    mutating func changeAttachment(
        _ id: VolumeID, _ number: Int, at now: Moment, _ body: (inout Attachment) -> Void
    ) {
        change(id, at: now) { (volume: inout Volume) in
            guard let index = volume.attachments.firstIndex(where: { $0.number == number })
            else { return }
            body(&volume.attachments[index])
        }
    }

    func attachment(_ id: VolumeID, _ number: Int) -> Attachment? {
        volumes[id]?.attachments.first { $0.number == number }
    }

    mutating func nextAttachmentNumber() -> Int {
        attachmentCount += 1
        return attachmentCount
    }

    mutating func order(
        _ kind: DeviceOrder.Kind, _ volume: VolumeID, _ attachment: Attachment
    ) {
        orders.append(
            DeviceOrder(
                kind: kind, volume: volume, instance: attachment.instance,
                attachment: attachment.number))
    }

    // MARK: Events

    private static let eventsMax = 20_000

    /// Records an event; if there are more than `eventsMax`, drops the oldest half.
    package mutating func note(
        _ name: String, _ volume: VolumeID? = nil, _ instance: InstanceID? = nil,
        _ detail: String? = nil, at now: Instant
    ) {
        eventCount += 1
        events.append(
            Event(
                sequence: eventCount, at: now, name: name, volume: volume, instance: instance,
                detail: detail))
        if events.count > Self.eventsMax { events.removeFirst(Self.eventsMax / 2) }
    }
}
