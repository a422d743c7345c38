import Base

/// The actions on snapshots.
extension Region {
    /// Adds a snapshot unchanged.
    package mutating func add(_ snapshot: Snapshot) { snapshots[snapshot.id] = snapshot }

    mutating func createSnapshot(
        _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        guard volume.state == .available || volume.state == .inUse else {
            throw APIError(
                "IncorrectState",
                "Volume '\(volume.id)' is in the '\(volume.state.rawValue)' state.")
        }
        let tags = try specifiedTags(parameters, "snapshot")
        try refuseDryRun(parameters)
        var snapshot = Snapshot(
            id: "snap-" + newID(), state: .pending, volume: volume.id, bytes: volume.bytes,
            kmsKeyID: volume.kmsKeyID, description: parameters["Description"] ?? "",
            startedAt: now.unixSeconds, tags: tags)
        let end = now.instant + latency.snapshot
        snapshot.span = Span(begin: now.instant, end: end)
        add(snapshot)
        note("snapshot-pending", volume.id, nil, snapshot.id, at: now.instant)
        order(.takeSnapshot(snapshot.id, of: volume.id))
        let fails = faults.take("Snapshot", subject: volume.id.description) == .fails
        schedule(.snapshotDone(snapshot.id, fails ? .error : .completed), at: end)
        return snapshot.members(owner: accountID, at: now.instant)
    }

    mutating func finish(_ id: String, _ state: Snapshot.State, at now: Moment) {
        guard let snapshot = snapshots[id] else { return }
        snapshots[id]?.state = state
        note("snapshot-\(state.rawValue)", snapshot.volume, nil, id, at: now.instant)
        if snapshot.isDeletedWhenDone { remove(id, at: now) }
    }

    /// A pending snapshot is deleted when it is completed:
    /// docs.aws.amazon.com/ebs/latest/userguide/ebs-deleting-snapshot.html.
    mutating func deleteSnapshot(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let snapshot = try required(snapshot: try parameters.required("SnapshotId"))
        try refuseDryRun(parameters)
        if snapshot.state == .pending {
            snapshots[snapshot.id]?.isDeletedWhenDone = true
        } else {
            remove(snapshot.id, at: now)
        }
        return [XMLNode("return", "true")]
    }

    private mutating func remove(_ id: String, at now: Moment) {
        note("snapshot-deleted", snapshots[id]?.volume, nil, id, at: now.instant)
        snapshots[id] = nil
        order(.removeSnapshot(id))
    }

    func required(snapshot id: String) throws(APIError) -> Snapshot {
        guard Snapshot.isID(id) else {
            throw .invalidValue(id, for: "snapshotId", "Expected: 'snap-...'.")
        }
        guard let snapshot = snapshots[id] else { throw .snapshotNotFound(id) }
        return snapshot
    }

    /// All snapshots belong to the account.
    func describeSnapshots(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        let named = parameters.list("SnapshotId")
        if !named.isEmpty, parameters["MaxResults"] != nil {
            throw APIError(
                "InvalidParameterCombination",
                "The parameter snapshotSet cannot be used with the parameter maxResults")
        }
        var candidates: [Snapshot] = []
        for name in named { candidates.append(try required(snapshot: name)) }
        if named.isEmpty { candidates = snapshots.values.sorted { $0.id < $1.id } }
        let owners = parameters.list("Owner")
        if !owners.isEmpty, !owners.contains("self"), !owners.contains(accountID) {
            candidates = []
        }
        var found: [[XMLNode]] = []
        for snapshot in candidates {
            let isIndexed = now.instant >= snapshot.span.begin + latency.tagFilters
            guard isIndexed || !filters.useTags else { continue }
            let values = { (name: String) in filterValues(snapshot, name, at: now.instant) }
            if try filters.accept(tags: snapshot.tags, values) {
                found.append(snapshot.members(owner: accountID, at: now.instant))
            }
        }
        let page = try Page(found, parameters, max: 1000)
        return [.list("snapshotSet", page.elements)] + page.tokenMember
    }

    private func filterValues(
        _ snapshot: Snapshot, _ name: String, at now: Instant
    ) -> [String]? {
        switch name {
        case "snapshot-id": [snapshot.id]
        case "volume-id": [snapshot.volume.description]
        case "volume-size": ["\(snapshot.gibibytes)"]
        case "status": [snapshot.state.rawValue]
        case "description": [snapshot.description]
        case "encrypted": ["\(snapshot.kmsKeyID != nil)"]
        case "owner-id": [accountID]
        case "progress": [snapshot.progress(at: now)]
        case "start-time": [timestamp(snapshot.startedAt)]
        case "storage-tier": ["standard"]
        default: nil
        }
    }
}

extension Snapshot {
    fileprivate func progress(at now: Instant) -> String {
        "\(state == .completed ? 100 : min(99, span.percent(at: now)))%"
    }

    /// The response to CreateSnapshot has the same members as each of DescribeSnapshots.
    fileprivate func members(owner: String, at now: Instant) -> [XMLNode] {
        var members = [
            XMLNode("snapshotId", id), XMLNode("volumeId", "\(volume)"),
            XMLNode("status", state.rawValue), XMLNode("startTime", timestamp(startedAt)),
            XMLNode("progress", progress(at: now)), XMLNode("ownerId", owner),
            XMLNode("volumeSize", "\(gibibytes)"), XMLNode("description", description),
            XMLNode("encrypted", "\(kmsKeyID != nil)"), XMLNode("storageTier", "standard"),
        ]
        if let kmsKeyID { members.append(XMLNode("kmsKeyId", kmsKeyID)) }
        if !tags.isEmpty { members.append(tagSet(tags)) }
        return members
    }
}
