package import Base

/// What is remembered of a volume from its first Create until it is removed and given back.
package struct VolumeRecord: Sendable, Equatable {
    package var id: VolumeID
    /// What Docker calls it, by one name or several; none once Docker has removed it.
    package var names: [VolumeNaming]
    /// The name that it is mounted by, or was last.
    package var name: String
    /// The options that it is mounted with, or was last: those of that name.
    package var options: VolumeOptions
    package var mounts: MountCounts
    /// The name it was attached by here, `/dev/sdf`, while it is attached as far as is known.
    package var deviceName: String?
    /// Whether this plugin attached it, so that it may detach it: what somebody attached by hand is
    /// used where it is, and left attached.
    package var isOurs = false
    /// Whether the volume bears this instance's lease, as far as is known.
    package var hasLease: Bool
    /// Whether a format was begun and not seen to end: what it left unfinished may be written over.
    package var isFormatting = false
    /// Whether the file system was made here since the volume was attached, and its root has not
    /// got its owner and mode yet. Once it was detached another host may have used it, and what its
    /// users set is theirs.
    package var isOwnershipDue = false
    /// What a newer version has saved besides, as a JSON object; it is written back as it came.
    package var others: String?
    /// The whole of a saved record that cannot be understood, as JSON; it is written back as it
    /// came.
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

    /// Whether Docker has removed it: it is remembered only until it is given back.
    package var isRemoved: Bool { names.isEmpty }

    package func naming(_ name: String) -> VolumeNaming? { names.first { $0.name == name } }

    /// Whether anything of the volume may be on this instance, besides its name.
    package var isAtRest: Bool {
        mounts.isEmpty && deviceName == nil && !isOurs && !hasLease && !isRemoved
    }

    /// Whether both would be saved alike; counts are saved apart.
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

    /// Drops what holds only on the instance, and since the boot, that it was noted on.
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
    /// Why what was saved of it cannot be used: a newer version wrote it, or it is damaged.
    package var flaw: String?
    /// What was saved of it and is not understood, as a JSON object; it is written back as it came.
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
/// A count per ID, for Docker sends Mount and Unmount with the ID of a running container when
/// `docker cp` looks into it: a set would unmount under that container.
package struct MountCounts: Sendable, Equatable {
    package private(set) var counts: [String: Int]
    /// IDs whose last Mount may not have been answered yet. After a crash nobody can tell: Docker
    /// sends an Unmount for a Mount that it had an answer to, and none for another.
    package private(set) var unanswered: Set<String>
    /// The volume's names that were mounted since there were no counts: Docker's Unmounts come by
    /// them.
    package private(set) var names: Set<String>

    package init(
        _ counts: [String: Int] = [:], unanswered: Set<String> = [], names: Set<String> = []
    ) {
        self.counts = counts.filter { $0.value > 0 }
        self.unanswered = unanswered.filter { counts[$0, default: 0] > 0 }
        self.names = self.counts.isEmpty ? [] : names
    }

    package var isEmpty: Bool { counts.isEmpty }
    package var total: Int { counts.values.reduce(0, +) }

    /// Counts a Mount, by one of the volume's names, that is about to be answered. Throws when the
    /// table is full.
    package mutating func add(_ id: String, by name: String? = nil) throws(OperationError) {
        guard counts.count < Limit.mountIDsMax || counts[id] != nil else {
            throw OperationError(
                .limitReached, doing: "count one more mount",
                found: "\(counts.count) containers have the volume mounted, as many as are allowed")
        }
        counts[id, default: 0] += 1
        unanswered.insert(id)
        if let name { names.insert(name) }
    }

    /// Notes that the answer to the ID's Mount has gone out.
    package mutating func answered(_ id: String) { unanswered.remove(id) }

    /// False when the ID has nothing mounted.
    package mutating func remove(_ id: String) -> Bool {
        guard let count = counts[id] else { return false }
        counts[id] = count > 1 ? count - 1 : nil
        unanswered.remove(id)
        if counts.isEmpty { names = [] }
        return true
    }
}
