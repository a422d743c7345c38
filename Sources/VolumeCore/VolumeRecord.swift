package import Base

/// What is remembered of a volume from its Create to its Remove.
package struct VolumeRecord: Sendable, Equatable {
    package var id: VolumeID
    /// What Docker calls it: the id, or an alias.
    package var name: String
    package var options: VolumeOptions
    /// Seconds since 1970.
    package var createdAt: Int64
    package var mounts: MountCounts
    /// The name it was attached by here, `/dev/sdf`, while it is attached as far as is known.
    package var deviceName: String?
    /// Whether this plugin attached it, so that it may detach it: what somebody attached by hand is used
    /// where it is, and left attached.
    package var isOurs = false
    /// Whether the volume bears this instance's lease, as far as is known.
    package var hasLease: Bool
    /// Whether a format was begun and not seen to end: what it left unfinished may be written over.
    package var isFormatting = false
    /// Whether Docker has removed it: it is remembered only until it is given back.
    package var isRemoved: Bool

    package init(
        id: VolumeID, name: String? = nil, options: VolumeOptions = VolumeOptions(),
        createdAt: Int64, mounts: MountCounts = MountCounts(), deviceName: String? = nil,
        hasLease: Bool = false, isRemoved: Bool = false
    ) {
        self.id = id
        self.name = name ?? id.description
        self.hasLease = hasLease
        self.isRemoved = isRemoved
        self.options = options
        self.createdAt = createdAt
        self.mounts = mounts
        self.deviceName = deviceName
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

    package init(_ counts: [String: Int] = [:], unanswered: Set<String> = []) {
        self.counts = counts.filter { $0.value > 0 }
        self.unanswered = unanswered.filter { counts[$0, default: 0] > 0 }
    }

    package var isEmpty: Bool { counts.isEmpty }
    package var total: Int { counts.values.reduce(0, +) }

    /// Counts a Mount that is about to be answered. Throws when the table is full.
    package mutating func add(_ id: String) throws(OperationError) {
        guard counts.count < Limit.mountIDsMax || counts[id] != nil else {
            throw OperationError(
                .limitReached, doing: "count one more mount",
                found: "\(counts.count) containers have the volume mounted, as many as are allowed")
        }
        counts[id, default: 0] += 1
        unanswered.insert(id)
    }

    /// Notes that the answer to the ID's Mount has gone out.
    package mutating func answered(_ id: String) { unanswered.remove(id) }

    /// False when the ID has nothing mounted.
    package mutating func remove(_ id: String) -> Bool {
        guard let count = counts[id] else { return false }
        counts[id] = count > 1 ? count - 1 : nil
        unanswered.remove(id)
        return true
    }
}
