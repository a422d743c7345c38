import Base

/// The actions on volumes.
extension Region {
    func describeVolumes(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        let named = try parameters.namedVolumes()
        var candidates: [Volume] = []
        if named.isEmpty {
            candidates = visibleVolumes(at: now.instant)
        } else {
            candidates = try namedVolumes(named, at: now.instant)
        }
        var found: [Volume] = []
        for volume in candidates {
            let tags = filters.useTags ? indexedTags(volume.id, at: now.instant) : volume.tags
            guard let tags else { continue }
            if try filters.accept(tags: tags, volume.filterValues) { found.append(volume) }
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
        let card = try ebsCard(parameters, of: instance)
        try refuseDryRun(parameters)
        beginAttach(volume.id, to: instance.id, as: name, at: now)
        if let card { setCard(card, of: volume.id, on: instance.id, at: now) }
        return attachmentMembers(volume.id, instance.id)
    }

    /// The card that the call asks for, or the default one; nil if the instance has only one.
    private func ebsCard(
        _ parameters: QueryParameters, of instance: Instance
    ) throws(APIError) -> Int? {
        let card = try parameters.integer("EbsCardIndex") ?? 0
        guard (0..<instance.ebsCards).contains(card) else {
            throw .invalidValue(
                "\(card)", for: "ebsCardIndex",
                "The instance type \(instance.type) has \(instance.ebsCards) EBS card(s).")
        }
        return instance.ebsCards > 1 ? card : nil
    }

    private mutating func setCard(
        _ card: Int, of id: VolumeID, on instance: InstanceID, at now: Moment
    ) {
        change(id, at: now) { (volume: inout Volume) in
            guard let index = volume.index(of: instance) else { return }
            volume.attachments[index].ebsCard = card
        }
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

    mutating func deleteVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        guard volume.state != .inUse else {
            let holder = volume.attachments.first?.instance.description ?? ""
            throw APIError("VolumeInUse", "Volume \(volume.id) is currently attached to \(holder)")
        }
        guard volume.state == .available else {
            throw APIError(
                "IncorrectState",
                "Volume '\(volume.id)' is in the '\(volume.state.rawValue)' state.")
        }
        try refuseDryRun(parameters)
        beginDelete(volume.id, at: now)
        return [XMLNode("return", "true")]
    }

    func requiredVolume(
        _ parameters: QueryParameters, _ name: String = "VolumeId"
    ) throws(APIError) -> Volume {
        let text = try parameters.required(name)
        guard let volume = volumes[try volumeID(text)], volume.state != .deleting else {
            throw .volumesNotFound([text])
        }
        return volume
    }

    func volumeID(_ text: String) throws(APIError) -> VolumeID {
        guard let id = VolumeID(text) else {
            throw .invalidValue(text, for: "volumeId", "Expected: 'vol-...'.")
        }
        return id
    }
}
