import Base

/// CreateVolume and CopyVolumes.
extension Region {
    mutating func createVolume(
        _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        if let earlier = try created("CreateVolume", parameters) {
            return earlier.members(withAttachments: false)
        }
        let snapshot = try sourceSnapshot(parameters)
        let zone = try requiredZone(parameters)
        let ordered = try specification(parameters, sourceBytes: snapshot?.bytes)
        if let snapshot { try requireSize(ordered, notBelow: snapshot) }
        var volume = try newVolume(
            parameters, ordered, sourceKey: snapshot?.kmsKeyID, zone: zone, at: now, newID: newID)
        volume.snapshotID = snapshot?.id
        volume.initializationRate = try initializationRate(parameters, snapshot)
        if let snapshot, ordered.gibibytes == snapshot.gibibytes { volume.bytes = snapshot.bytes }
        try refuseDryRun(parameters)
        tokens.note("CreateVolume", parameters, created: volume.id)
        begin(volume, from: snapshot.map { .snapshot($0.id) } ?? .blank, at: now)
        return volume.members(withAttachments: false)
    }

    /// The copy has its own tags only.
    ///
    /// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopyVolumes.html.
    mutating func copyVolumes(
        _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        if let earlier = try created("CopyVolumes", parameters) {
            return [.list("volumeSet", [earlier.members(withAttachments: false)])]
        }
        let source = try requiredVolume(parameters, "SourceVolumeId")
        guard source.state == .available || source.state == .inUse else {
            throw APIError(
                "IncorrectState",
                "Volume '\(source.id)' is in the '\(source.state.rawValue)' state.")
        }
        let ordered = try specification(parameters, sourceBytes: source.bytes)
        guard ordered.gibibytes >= source.gibibytes else {
            throw .invalidValue(
                "\(ordered.gibibytes)", for: "size",
                "The size of a copy must be at least that of its source, \(source.gibibytes) GiB.")
        }
        var volume = try newVolume(
            parameters, ordered, sourceKey: source.kmsKeyID, zone: source.zone, at: now,
            newID: newID)
        volume.sourceVolumeID = source.id
        if ordered.gibibytes == source.gibibytes { volume.bytes = source.bytes }
        try refuseDryRun(parameters)
        tokens.note("CopyVolumes", parameters, created: volume.id)
        begin(volume, from: .volume(source.id), at: now)
        return [.list("volumeSet", [volume.members(withAttachments: false)])]
    }

    /// The volume that an earlier call with this client token has created.
    private func created(
        _ action: String, _ parameters: QueryParameters
    ) throws(APIError) -> Volume? {
        let exists = { (id: VolumeID) in volumes[id].map { $0.state != .deleting } ?? false }
        guard let id = try tokens.volume(action, parameters, exists: exists) else { return nil }
        return volumes[id]
    }

    private mutating func begin(
        _ volume: Volume, from source: StorageOrder.Source, at now: Moment
    ) {
        add(volume, at: now)
        note("volume-creating", volume.id, nil, "\(source)", at: now.instant)
        order(.make(volume.id, bytes: volume.bytes, from: source))
        let vanishes = faults.take("Volume") == .vanishes
        schedule(
            vanishes ? .volumeGone(volume.id) : .volumeReady(volume.id),
            at: now.instant + latency.change)
    }

    private func newVolume(
        _ parameters: QueryParameters, _ ordered: Specification, sourceKey: String?,
        zone: String, at now: Moment, newID: () -> String
    ) throws(APIError) -> Volume {
        let key = try encryptionKey(parameters, source: sourceKey)
        let tags = try specifiedTags(parameters, "volume")
        try requireQuota(for: ordered, replacing: nil)
        guard let id = VolumeID("vol-" + newID()) else { preconditionFailure("newID") }
        var volume = Volume(
            id: id, state: .creating, zone: zone, bytes: UInt64(ordered.gibibytes) << 30,
            type: ordered.type, multiAttach: ordered.multiAttach, kmsKeyID: key,
            createdAt: now.unixSeconds, tags: tags)
        volume.iops = ordered.iops
        volume.throughput = ordered.throughput
        return volume
    }

    private func requiredZone(_ parameters: QueryParameters) throws(APIError) -> String {
        let zone = try parameters.required("AvailabilityZone")
        guard zone.hasPrefix(name), zone.count == name.count + 1 else {
            throw APIError("InvalidZone.NotFound", "The zone '\(zone)' does not exist.")
        }
        return zone
    }

    private func sourceSnapshot(_ parameters: QueryParameters) throws(APIError) -> Snapshot? {
        guard let id = parameters["SnapshotId"], !id.isEmpty else { return nil }
        let snapshot = try required(snapshot: id)
        guard snapshot.state == .completed else {
            // Message and code: github.com/tschellenbach/Snaptastic/issues/17.
            throw APIError("IncorrectState", "Snapshot '\(id)' is not 'completed'.")
        }
        return snapshot
    }

    private func requireSize(
        _ ordered: Specification, notBelow snapshot: Snapshot
    ) throws(APIError) {
        guard ordered.gibibytes < snapshot.gibibytes else { return }
        throw APIError(
            "InvalidParameterValue",
            "Volume of size \(ordered.gibibytes)GB is smaller than snapshot '\(snapshot.id)', "
                + "expect size >= \(snapshot.gibibytes)GB")
    }

    private func initializationRate(
        _ parameters: QueryParameters, _ snapshot: Snapshot?
    ) throws(APIError) -> Int? {
        let name = "VolumeInitializationRate"
        guard let rate = try parameters.integer(name) else { return nil }
        guard snapshot != nil else {
            throw APIError(
                "InvalidParameterCombination", "The parameter \(name) requires a snapshot.")
        }
        guard (100...300).contains(rate) else {
            throw .invalidValue("\(rate)", for: name, "Expecting 100 to 300 MiB/s.")
        }
        return rate
    }

    /// What is ordered, with the defaults of its type.
    private func specification(
        _ parameters: QueryParameters, sourceBytes: UInt64?
    ) throws(APIError) -> Specification {
        let type = parameters["VolumeType"] ?? "gp2"
        guard let rules = VolumeTypeRules(type) else { throw .unknownType(type) }
        let sourceSize = sourceBytes.map { Int(roundedGibibytes($0)) }
        guard let size = try parameters.integer("Size") ?? sourceSize else {
            throw .missingParameter("size/snapshot")
        }
        var iops = try parameters.integer("Iops")
        if iops == nil, type.hasPrefix("io") {
            throw APIError(
                "InvalidParameterCombination",
                "The parameter iops must be specified for \(type) volumes.")
        }
        iops = iops ?? rules.defaultIOPS
        let ordered = Specification(
            type: type, gibibytes: size, iops: iops,
            throughput: try parameters.integer("Throughput") ?? rules.defaultThroughput,
            multiAttach: try parameters.flag("MultiAttachEnabled") ?? false)
        try rules.check(ordered)
        return ordered
    }

    /// Whether the account may have this volume, or may change the volume `replacing` to it.
    func requireQuota(
        for ordered: Specification, replacing old: VolumeID?
    ) throws(APIError) {
        let others = volumes.values.filter {
            $0.type == ordered.type && $0.id != old && $0.state != .deleting
        }
        if let quota = quotas.storage[ordered.type] {
            let sum = others.reduce(ordered.gibibytes) { $0 + Int($1.gibibytes) }
            guard sum <= quota else {
                let limit = quota % 1024 == 0 ? "\(quota / 1024) TiB" : "\(quota) GiB"
                throw .quota("VolumeLimitExceeded", "\(ordered.type) storage limit of \(limit)")
            }
        }
        if let quota = quotas.iops[ordered.type] {
            let sum = others.reduce(ordered.iops ?? 0) { $0 + ($1.iops ?? 0) }
            guard sum <= quota else {
                throw .quota("MaxIOPSLimitExceeded", "\(ordered.type) IOPS limit of \(quota)")
            }
        }
    }
}

extension APIError {
    static func unknownType(_ type: String) -> APIError {
        APIError("UnknownVolumeType", "Unsupported volume type '\(type)' for volume creation.")
    }

    /// Message of VolumeLimitExceeded: github.com/kubernetes-sigs/aws-ebs-csi-driver/issues/2512.
    fileprivate static func quota(_ code: String, _ limit: String) -> APIError {
        APIError(
            code,
            "You have exceeded your maximum \(limit) in this region. Please contact AWS Support "
                + "to request an Elastic Block Store service limit increase.")
    }
}
