import Base

/// The actions on volumes.
extension Region {
    func describeVolumes(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        let named = parameters.list("VolumeId")
        if !named.isEmpty, parameters["MaxResults"] != nil {
            throw APIError(
                "InvalidParameterCombination",
                "The parameter volumeSet cannot be used with the parameter maxResults")
        }
        var candidates: [Volume] = []
        if named.isEmpty {
            candidates = visibleVolumes(at: now.instant)
        } else {
            candidates = try namedVolumes(named, at: now.instant)
        }
        var found: [Volume] = []
        for volume in candidates {
            if try filters.accept(tags: volume.tags, volume.filterValues) { found.append(volume) }
        }
        let page = try Page(found, parameters, max: 500)
        return [.list("volumeSet", page.elements.map { $0.members() })] + page.tokenMember
    }

    private func namedVolumes(_ names: [String], at now: Instant) throws(APIError) -> [Volume] {
        var found: [Volume] = []
        var missing: [String] = []
        for name in names {
            if let volume = visible(try volumeID(name), at: now) {
                found.append(volume)
            } else {
                missing.append(name)
            }
        }
        guard missing.isEmpty else { throw .volumesNotFound(missing) }
        return found
    }

    mutating func attachVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let deviceName = try parameters.required("Device")
        let instanceID = try parameters.required("InstanceId")
        let volume = try requiredVolume(parameters)
        let instance = try required(instanceID)
        try requireAttachable(volume, to: instance)
        let name = try freeDeviceName(deviceName, on: instance)
        try refuseDryRun(parameters)
        beginAttach(volume.id, to: instance.id, as: name, at: now)
        return attachmentMembers(volume.id, instance.id)
    }

    mutating func detachVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        let instance = try parameters["InstanceId"].map { id throws(APIError) in try required(id) }
        let force = try parameters.flag("Force") ?? false
        guard !volume.attachments.isEmpty else {
            throw APIError(
                "IncorrectState", "Volume '\(volume.id)' is in the 'available' state.")
        }
        if instance == nil, volume.attachments.count > 1 { throw .missingParameter("instanceId") }
        let attachment = volume.attachments.first {
            (instance == nil || $0.instance == instance?.id)
                && (parameters["Device"] == nil || $0.deviceName == parameters["Device"])
        }
        guard let attachment else {
            let place = instance.map { " to instance '\($0.id)'" } ?? ""
            throw APIError(
                "InvalidAttachment.NotFound",
                "The volume '\(volume.id)' is not attached\(place)"
                    + (parameters["Device"].map { " as device \($0)" } ?? "") + ".")
        }
        try refuseRoot(volume.id, attachment)
        try refuseDryRun(parameters)
        beginDetach(volume.id, attachment, force: force, at: now)
        return attachmentMembers(volume.id, attachment.instance)
    }

    private func refuseRoot(
        _ id: VolumeID, _ attachment: Attachment
    ) throws(APIError) {
        guard let instance = instances[attachment.instance], instance.state == .running,
            attachment.deviceName == instance.rootDeviceName
        else { return }
        throw APIError(
            "OperationNotPermitted",
            "Unable to detach root volume '\(id)' from instance '\(instance.id)'")
    }

    private func attachmentMembers(_ id: VolumeID, _ instance: InstanceID) -> [XMLNode] {
        guard let volume = volumes[id], let index = volume.index(of: instance) else { return [] }
        return volume.attachments[index].members(of: id)
    }

    mutating func createVolume(
        _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        let zone = try parameters.required("AvailabilityZone")
        guard zone.hasPrefix(name), zone.count == name.count + 1 else {
            throw APIError(
                "InvalidZone.NotFound", "The zone '\(zone)' does not exist.")
        }
        guard let size = try parameters.integer("Size") else {
            throw .missingParameter("size/snapshot")
        }
        guard (1...16384).contains(size) else {
            throw .invalidValue("\(size)", for: "size", "Expecting 1 to 16384 GiB.")
        }
        try refuseDryRun(parameters)
        guard let id = VolumeID("vol-" + newID()) else { preconditionFailure("newID") }
        var tags: [String: String] = [:]
        for index in parameters.indices("TagSpecification") {
            tags.merge(self.tags(parameters, "TagSpecification.\(index).Tag")) { $1 }
        }
        let volume = Volume(
            id: id, state: .creating, zone: zone, bytes: UInt64(size) << 30,
            type: parameters["VolumeType"] ?? "gp2",
            multiAttach: try parameters.flag("MultiAttachEnabled") ?? false,
            createdAt: now.unixSeconds, tags: tags)
        add(volume, at: now)
        schedule(.volumeReady(id), at: now.instant + latency.change)
        return volume.members(withAttachments: false)
    }

    mutating func deleteVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        guard volume.state != .inUse else {
            let holder = volume.attachments.first?.instance.description ?? ""
            throw APIError("VolumeInUse", "Volume \(volume.id) is currently attached to \(holder)")
        }
        try refuseDryRun(parameters)
        change(volume.id, at: now) { (volume: inout Volume) in volume.state = .deleting }
        schedule(.volumeGone(volume.id), at: now.instant + latency.change)
        return [XMLNode("return", "true")]
    }

    /// Size, type and Multi-Attach. The edge adapts the device when it sees a new size.
    mutating func modifyVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        let size = UInt64(try parameters.integer("Size") ?? Int(volume.gibibytes))
        guard size >= volume.gibibytes else {
            throw APIError(
                "InvalidParameterValue", "New size cannot be smaller than existing size")
        }
        let type = parameters["VolumeType"] ?? volume.type
        let multiAttach = try parameters.flag("MultiAttachEnabled") ?? volume.multiAttach
        try requireModifiable(volume, to: type, multiAttach: multiAttach)
        try refuseDryRun(parameters)
        change(volume.id, at: now) { (volume: inout Volume) in
            if size > volume.gibibytes { volume.bytes = size << 30 }
            volume.type = type
            volume.multiAttach = multiAttach
        }
        let members = [
            XMLNode("volumeId", "\(volume.id)"), XMLNode("modificationState", "completed"),
            XMLNode("targetSize", "\(size)"), XMLNode("originalSize", "\(volume.gibibytes)"),
            XMLNode("targetVolumeType", type), XMLNode("originalVolumeType", volume.type),
            XMLNode("targetMultiAttachEnabled", "\(multiAttach)"),
            XMLNode("originalMultiAttachEnabled", "\(volume.multiAttach)"),
            XMLNode("progress", "100"),
            XMLNode("startTime", timestamp(now.unixSeconds)),
        ]
        return [XMLNode("volumeModification", members)]
    }

    /// Multi-Attach is for io1 and io2, and can be changed only while the volume is not attached:
    /// docs.aws.amazon.com/ebs/latest/userguide/working-with-multi-attach.html.
    private func requireModifiable(
        _ volume: Volume, to type: String, multiAttach: Bool
    ) throws(APIError) {
        if multiAttach, !type.hasPrefix("io") {
            throw APIError(
                "InvalidParameterCombination",
                "Multi-Attach is not supported for volumes of type '\(type)'.")
        }
        if multiAttach != volume.multiAttach, !volume.attachments.isEmpty {
            throw APIError(
                "IncorrectState",
                "Multi-Attach of volume '\(volume.id)' cannot be changed while it is attached.")
        }
    }

    private func requiredVolume(_ parameters: QueryParameters) throws(APIError) -> Volume {
        let text = try parameters.required("VolumeId")
        guard let volume = volumes[try volumeID(text)], volume.state != .deleting else {
            throw .volumesNotFound([text])
        }
        return volume
    }

    private func volumeID(_ text: String) throws(APIError) -> VolumeID {
        guard let id = VolumeID(text) else {
            throw .invalidValue(text, for: "volumeId", "Expected: 'vol-...'.")
        }
        return id
    }
}
