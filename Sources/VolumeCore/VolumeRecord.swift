package import Base

/// What is remembered of a volume from its first Create until it is removed and released.
package struct VolumeRecord: Sendable, Equatable {
    package var id: VolumeID
    /// Docker's names for it; none once Docker has removed it.
    package var names: [VolumeNaming]
    /// The name that it is mounted by, or was last mounted by.
    package var name: String
    /// The options of that name.
    package var options: VolumeOptions
    package var mounts: MountCounts
    /// The device name of its attachment here, `/dev/sdf`, while it is attached as far as known.
    package var deviceName: String?
    /// Whether this plugin attached it, and thus may detach it: a volume that somebody attached by
    /// hand is used and left attached.
    package var isOurs = false
    /// Whether the volume has this instance's lease, as far as known.
    package var hasLease: Bool
    /// Whether a format was begun and its end is not known: an unfinished file system may be
    /// overwritten.
    package var isFormatting = false
    /// Whether the file system was created here since the volume was attached, and the owner and
    /// mode of its root are not set yet. Once the volume was detached, another host may have used
    /// it, and what its users have set must stay.
    package var isOwnershipDue = false
    /// Additional members from a newer version, as a JSON object; written back unchanged.
    package var others: String?
    /// The complete saved record if it cannot be understood, as JSON; written back unchanged.
    package var verbatim: String?

    package init(
        id: VolumeID, name: String? = nil, options: VolumeOptions = VolumeOptions(),
        createdAt: Int64, mounts: MountCounts = MountCounts(), deviceName: String? = nil,
        hasLease: Bool = false, isRemoved: Bool = false
    ) {
        let naming = VolumeNaming(
            name: name ?? id.description, options: options, createdAt: createdAt)
        self.init(id: id, names: isRemoved ? [] : [naming])
        self.name = naming.name
        self.options = options
        self.mounts = mounts
        self.deviceName = deviceName
        self.hasLease = hasLease
    }

    package init(id: VolumeID, names: [VolumeNaming]) {
        self.id = id
        self.names = names
        name = names.first?.name ?? id.description
        options = names.first?.options ?? VolumeOptions()
        mounts = MountCounts()
        hasLease = false
    }

    /// Whether Docker has removed it: it is remembered only until it is released.
    package var isRemoved: Bool { names.isEmpty }

    package func naming(_ name: String) -> VolumeNaming? { names.first { $0.name == name } }

    /// Whether nothing of the volume but its name is on this instance.
    package var isAtRest: Bool {
        mounts.isEmpty && deviceName == nil && !isOurs && !hasLease && !isRemoved
    }

    /// Whether both have the same saved form; counts are saved separately.
    package func isSavedLike(_ other: VolumeRecord) -> Bool {
        deviceName == other.deviceName && isOurs == other.isOurs && hasLease == other.hasLease
            && isFormatting == other.isFormatting && isOwnershipDue == other.isOwnershipDue
            && names == other.names
    }

    /// Takes what is to be saved of the volume's state.
    package mutating func note(_ state: VolumeState) {
        guard !isUpToDate(with: state) else { return }
        deviceName = state.deviceName
        isOurs = state.isOurs
        hasLease = state.hasLease
    }

    package func isUpToDate(with state: VolumeState) -> Bool {
        deviceName == state.deviceName && isOurs == state.isOurs && hasLease == state.hasLease
    }

    /// Drops what is valid only on the instance, and in the boot, in which it was recorded.
    package mutating func dropWhatIsOfAnotherInstance() {
        mounts = MountCounts()
        deviceName = nil
        isOurs = false
        hasLease = false
        isFormatting = false
        isOwnershipDue = false
    }
}

/// A name of a volume, with the options that it was created with.
package struct VolumeNaming: Sendable, Equatable {
    package var name: String
    package var options: VolumeOptions
    /// Seconds since 1970.
    package var createdAt: Int64
    /// Why its saved form cannot be used: a newer version wrote it, or it is damaged.
    package var flaw: String?
    /// Its saved form if that is not understood, as a JSON object; written back unchanged.
    package var kept: String?

    package init(
        name: String, options: VolumeOptions, createdAt: Int64, flaw: String? = nil,
        kept: String? = nil
    ) {
        self.name = name
        self.options = options
        self.createdAt = createdAt
        self.flaw = flaw
        self.kept = kept
    }
}

/// How often each of Docker's mount IDs has mounted a volume.
///
/// A count per ID, because `docker cp` makes Docker send Mount and Unmount with the ID of the
/// running container: with a set, the volume would be unmounted under that container.
package struct MountCounts: Sendable, Equatable {
    package private(set) var counts: [String: Int]
    /// IDs whose last Mount may not have been answered yet. After a crash nobody knows: Docker
    /// sends an Unmount only for a Mount that was answered.
    package private(set) var unanswered: Set<String>
    /// The names by which the volume was mounted since it last had no counts: Docker's Unmounts use
    /// them.
    package private(set) var names: Set<String>

    /// A count above `Limit.mountsPerIDMax`, which only a damaged file has, is reduced to that.
    package init(
        _ counts: [String: Int] = [:], unanswered: Set<String> = [], names: Set<String> = []
    ) {
        self.counts = counts.filter { $0.value > 0 }.mapValues { min($0, Limit.mountsPerIDMax) }
        self.unanswered = unanswered.filter { counts[$0, default: 0] > 0 }
        self.names = self.counts.isEmpty ? [] : names
    }

    package var isEmpty: Bool { counts.isEmpty }
    package var total: Int { counts.values.reduce(0, +) }

    /// Counts a Mount, by one of the volume's names, that is about to be answered. Throws if the
    /// table or the count is full.
    package mutating func add(_ id: String, by name: String? = nil) throws(OperationError) {
        let count = counts[id, default: 0]
        guard counts.count < Limit.mountIDsMax || count > 0 else {
            throw OperationError(
                .limitReached, doing: "count one more mount",
                found: "\(counts.count) containers have the volume mounted, as many as are allowed")
        }
        guard count < Limit.mountsPerIDMax else {
            throw OperationError(
                .limitReached, doing: "count one more mount",
                found:
                    "the container has mounted the volume \(count) times, as often as is allowed",
                advice: "stop the container")
        }
        counts[id, default: 0] += 1
        unanswered.insert(id)
        if let name { names.insert(name) }
    }

    /// Records that the response to the ID's Mount was sent.
    package mutating func answered(_ id: String) { unanswered.remove(id) }

    /// False if the ID has nothing mounted.
    package mutating func remove(_ id: String) -> Bool {
        guard let count = counts[id] else { return false }
        counts[id] = count > 1 ? count - 1 : nil
        unanswered.remove(id)
        if counts.isEmpty { names = [] }
        return true
    }
}
