import Base

/// ModifyVolume and DescribeVolumesModifications.
extension Region {
    /// How many modifications of one volume may begin within `modificationWindow`:
    /// docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVolume.html.
    private static let modificationsMax = 4
    private static let modificationWindow: Int64 = 24 * 3600

    mutating func modifyVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        let target = try targetSpecification(parameters, of: volume)
        try requireModifiable(volume, to: target, at: now)
        try requireQuota(for: target, replacing: volume.id)
        try refuseDryRun(parameters)
        let optimizing = now.instant + latency.modifying
        let completed = optimizing + latency.optimizing
        let modification = Modification(
            volume: volume.id, original: volume.specification, target: target,
            startedAt: now.unixSeconds, span: Span(begin: now.instant, end: completed))
        let recent = modifications[volume.id, default: []].filter { isRecent($0, at: now) }
        modifications[volume.id] = recent + [modification]
        note("modification-accepted", volume.id, at: now.instant)
        if faults.take("Modification", subject: volume.id.description) == .fails {
            schedule(.modification(volume.id, .failed), at: optimizing)
        } else {
            schedule(.modification(volume.id, .optimizing), at: optimizing)
            schedule(.modification(volume.id, .completed), at: completed)
        }
        return [XMLNode("volumeModification", modification.members(at: now.instant))]
    }

    private func isRecent(_ modification: Modification, at now: Moment) -> Bool {
        modification.startedAt > now.unixSeconds - Self.modificationWindow
    }

    /// The volume with the changes that are asked for, and the defaults of its new type.
    private func targetSpecification(
        _ parameters: QueryParameters, of volume: Volume
    ) throws(APIError) -> Specification {
        var target = volume.specification
        target.gibibytes = try parameters.integer("Size") ?? target.gibibytes
        guard target.gibibytes >= volume.gibibytes else {
            throw APIError(
                "InvalidParameterValue", "New size cannot be smaller than existing size")
        }
        target.type = parameters["VolumeType"] ?? volume.type
        guard let rules = VolumeTypeRules(target.type) else { throw .unknownType(target.type) }
        if target.type != volume.type {
            target.iops = rules.defaultIOPS
            target.throughput = rules.defaultThroughput
        }
        target.iops = try parameters.integer("Iops") ?? target.iops
        target.throughput = try parameters.integer("Throughput") ?? target.throughput
        target.multiAttach = try parameters.flag("MultiAttachEnabled") ?? volume.multiAttach
        try rules.check(target)
        return target
    }

    /// Multi-Attach can be changed only while the volume is not attached:
    /// docs.aws.amazon.com/ebs/latest/userguide/working-with-multi-attach.html.
    private func requireModifiable(
        _ volume: Volume, to target: Specification, at now: Moment
    ) throws(APIError) {
        guard volume.state == .available || volume.state == .inUse else {
            throw APIError(
                "IncorrectState",
                "Volume '\(volume.id)' is in the '\(volume.state.rawValue)' state.")
        }
        if target.multiAttach != volume.multiAttach, !volume.attachments.isEmpty {
            throw APIError(
                "IncorrectState",
                "Multi-Attach of volume '\(volume.id)' cannot be changed while it is attached.")
        }
        let earlier = modifications[volume.id, default: []]
        if let last = earlier.last, last.isRunning {
            throw APIError(
                "IncorrectModificationState",
                "Volume \(volume.id) cannot be modified in modification state "
                    + "\(last.state.rawValue.uppercased()).")
        }
        let recent = earlier.filter { isRecent($0, at: now) }
        guard recent.count < Self.modificationsMax else {
            let next = recent[0].startedAt + Self.modificationWindow
            throw APIError(
                "VolumeModificationRateExceeded",
                "You've reached the maximum modification rate per volume limit. You can modify "
                    + "volume \(volume.id) again at \(timestamp(next)).")
        }
    }

    mutating func advanceModification(
        _ id: VolumeID, to state: Modification.State, at now: Moment
    ) {
        guard let index = modifications[id]?.indices.last, let target = volumes[id],
            let modification = modifications[id]?[index]
        else { return }
        modifications[id]?[index].state = state
        if !(modifications[id]?[index].isRunning ?? false) {
            modifications[id]?[index].endedAt = now.unixSeconds
        }
        note("modification-\(state.rawValue)", id, at: now.instant)
        if state == .optimizing { apply(modification.target, to: target, at: now) }
    }

    private mutating func apply(_ target: Specification, to volume: Volume, at now: Moment) {
        let grows = target.gibibytes > volume.gibibytes
        change(volume.id, at: now) { (volume: inout Volume) in
            if grows { volume.bytes = UInt64(target.gibibytes) << 30 }
            volume.type = target.type
            volume.iops = target.iops
            volume.throughput = target.throughput
            volume.multiAttach = target.multiAttach
        }
        if grows { order(.grow(volume.id, bytes: UInt64(target.gibibytes) << 30)) }
    }

    func describeVolumesModifications(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        let named = try parameters.namedVolumes()
        var ids = modifications.keys.sorted { $0.description < $1.description }
        if !named.isEmpty {
            ids = []
            for name in named { ids.append(try volumeID(name)) }
        }
        var found: [[XMLNode]] = []
        for id in ids {
            guard let last = modifications[id]?.last else {
                throw APIError(
                    "InvalidVolumeModification.NotFound",
                    "Modification for volume '\(id)' does not exist.")
            }
            if try filters.accept(tags: [:], last.filterValues) {
                found.append(last.members(at: now.instant))
            }
        }
        let page = try Page(found, parameters, max: 500)
        return [.list("volumeModificationSet", page.elements)] + page.tokenMember
    }
}

extension Volume {
    fileprivate var specification: Specification {
        Specification(
            type: type, gibibytes: Int(gibibytes), iops: iops, throughput: throughput,
            multiAttach: multiAttach)
    }
}

extension Modification {
    fileprivate func members(at now: Instant) -> [XMLNode] {
        [
            XMLNode("volumeId", "\(volume)"), XMLNode("modificationState", state.rawValue),
        ] + target.members("target") + original.members("original") + [
            XMLNode("progress", state == .completed ? "100" : "\(min(99, span.percent(at: now)))"),
            XMLNode("startTime", timestamp(startedAt)),
        ] + (endedAt.map { [XMLNode("endTime", timestamp($0))] } ?? [])
            + (state == .failed ? [XMLNode("statusMessage", "The modification failed.")] : [])
    }

    fileprivate func filterValues(_ name: String) -> [String]? {
        switch name {
        case "volume-id": [volume.description]
        case "modification-state": [state.rawValue]
        case "start-time": [timestamp(startedAt)]
        case "original-size": ["\(original.gibibytes)"]
        case "original-iops": original.iops.map { ["\($0)"] } ?? []
        case "original-volume-type": [original.type]
        case "originalMultiAttachEnabled": ["\(original.multiAttach)"]
        case "target-size": ["\(target.gibibytes)"]
        case "target-iops": target.iops.map { ["\($0)"] } ?? []
        case "target-volume-type": [target.type]
        case "targetMultiAttachEnabled": ["\(target.multiAttach)"]
        default: nil
        }
    }
}

extension Specification {
    fileprivate func members(_ side: String) -> [XMLNode] {
        var members = [
            XMLNode(side + "Size", "\(gibibytes)"), XMLNode(side + "VolumeType", type),
            XMLNode(side + "MultiAttachEnabled", "\(multiAttach)"),
        ]
        if let iops { members.append(XMLNode(side + "Iops", "\(iops)")) }
        if let throughput { members.append(XMLNode(side + "Throughput", "\(throughput)")) }
        return members
    }
}
