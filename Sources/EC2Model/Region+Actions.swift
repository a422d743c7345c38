package import Base

/// The Query API: an action and its parameters in, the members of the answer out.
extension Region {
    package static let apiVersion = "2016-11-15"

    /// Counts the call against the account's rate. Comes before `perform`.
    package mutating func admit(
        _ action: String, _ parameters: QueryParameters, at now: Instant
    ) throws(APIError) {
        let isDescribe = action == "DescribeVolumes" || action == "DescribeInstances"
        let unfiltered =
            isDescribe && parameters.indices("Filter").isEmpty && parameters["MaxResults"] == nil
        guard throttle.admit(action, unfiltered: unfiltered, at: now) else {
            throw APIError("RequestLimitExceeded", "Request limit exceeded.", status: 503)
        }
    }

    /// Carries out a call. `newID` makes the id of what the call creates: 17 hex digits.
    package mutating func perform(
        _ action: String, _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        switch action {
        case "DescribeVolumes": return try describeVolumes(parameters, at: now)
        case "DescribeInstances": return try describeInstances(parameters)
        case "DescribeInstanceStatus": return try describeInstanceStatus(parameters)
        case "DescribeTags": return try describeTags(parameters)
        case "AttachVolume": return try attachVolume(parameters, at: now)
        case "DetachVolume": return try detachVolume(parameters, at: now)
        case "CreateVolume": return try createVolume(parameters, at: now, newID: newID)
        case "DeleteVolume": return try deleteVolume(parameters, at: now)
        case "ModifyVolume": return try modifyVolume(parameters, at: now)
        case "CreateTags": return try changeTags(parameters, at: now, create: true)
        case "DeleteTags": return try changeTags(parameters, at: now, create: false)
        case "StartInstances":
            return try changeInstances(parameters, from: [.stopped], .pending, .running, at: now)
        case "StopInstances":
            return try changeInstances(parameters, from: [.running], .stopping, .stopped, at: now)
        case "TerminateInstances":
            return try changeInstances(
                parameters, from: [.running, .stopped], .shuttingDown, .terminated, at: now)
        default:
            throw APIError(
                "InvalidAction", "The action \(action) is not valid for this web service.")
        }
    }

    private func refuseDryRun(_ parameters: QueryParameters) throws(APIError) {
        if try parameters.flag("DryRun") == true {
            throw APIError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.",
                status: 412)
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

    // MARK: Volumes

    private func describeVolumes(
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

    private mutating func attachVolume(
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

    private mutating func detachVolume(
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
        try refuseDryRun(parameters)
        beginDetach(volume.id, attachment, force: force, at: now)
        return attachmentMembers(volume.id, attachment.instance)
    }

    private func attachmentMembers(_ id: VolumeID, _ instance: InstanceID) -> [XMLNode] {
        guard let volume = volumes[id], let index = volume.index(of: instance) else { return [] }
        return volume.attachments[index].members(of: id)
    }

    private mutating func createVolume(
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

    private mutating func deleteVolume(
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

    /// Only growth: the edge makes the device follow when it sees the new size.
    private mutating func modifyVolume(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let volume = try requiredVolume(parameters)
        let size = UInt64(try parameters.integer("Size") ?? Int(volume.gibibytes))
        guard size >= volume.gibibytes else {
            throw APIError(
                "InvalidParameterValue", "New size cannot be smaller than existing size")
        }
        try refuseDryRun(parameters)
        change(volume.id, at: now) { (volume: inout Volume) in
            if size > volume.gibibytes { volume.bytes = size << 30 }
        }
        let members = [
            XMLNode("volumeId", "\(volume.id)"), XMLNode("modificationState", "completed"),
            XMLNode("targetSize", "\(size)"), XMLNode("originalSize", "\(volume.gibibytes)"),
            XMLNode("progress", "100"),
            XMLNode("startTime", timestamp(now.unixSeconds)),
        ]
        return [XMLNode("volumeModification", members)]
    }

    // MARK: Instances

    private func describedInstances(
        _ parameters: QueryParameters
    ) throws(APIError) -> Page<Instance> {
        let filters = try Filters(parameters)
        let named = parameters.list("InstanceId")
        if !named.isEmpty, parameters["MaxResults"] != nil {
            throw APIError(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults")
        }
        let candidates =
            named.isEmpty
            ? instances.values.sorted { $0.id.description < $1.id.description }
            : try requiredInstances(parameters)
        var found: [Instance] = []
        for instance in candidates {
            let values = { (name: String) in filterValues(instance, name) }
            if try filters.accept(tags: instance.tags, values) { found.append(instance) }
        }
        return try Page(found, parameters, max: 1000)
    }

    private func describeInstances(_ parameters: QueryParameters) throws(APIError) -> [XMLNode] {
        let page = try describedInstances(parameters)
        let reservations = page.elements.map { instance in
            [
                XMLNode("reservationId", "r-" + instance.id.description.dropFirst(2)),
                XMLNode("ownerId", accountID), XMLNode("groupSet", []),
                .list("instancesSet", [members(instance)]),
            ]
        }
        return [.list("reservationSet", reservations)] + page.tokenMember
    }

    private func describeInstanceStatus(
        _ parameters: QueryParameters
    ) throws(APIError) -> [XMLNode] {
        let all = try parameters.flag("IncludeAllInstances") ?? false
        let page = try describedInstances(parameters)
        let statuses = page.elements.filter { all || $0.state == .running }.map { instance in
            [
                XMLNode("instanceId", "\(instance.id)"),
                XMLNode("availabilityZone", instance.zone),
                XMLNode("instanceState", stateMembers(instance.state)),
            ]
        }
        return [.list("instanceStatusSet", statuses)] + page.tokenMember
    }

    private mutating func changeInstances(
        _ parameters: QueryParameters, from: [Instance.State], _ passing: Instance.State,
        _ final: Instance.State, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let chosen = try requiredInstances(parameters)
        for instance in chosen where instance.state == .terminated || instance.state == .pending {
            throw APIError(
                "IncorrectInstanceState",
                "The instance '\(instance.id)' is not in a state from which it can be changed.")
        }
        try refuseDryRun(parameters)
        for instance in chosen where from.contains(instance.state) {
            change(instance.id, passing: passing, final: final, at: now)
        }
        let changes = chosen.map { instance in
            [
                XMLNode("instanceId", "\(instance.id)"),
                XMLNode(
                    "currentState", stateMembers(instances[instance.id]?.state ?? instance.state)),
                XMLNode("previousState", stateMembers(instance.state)),
            ]
        }
        return [.list("instancesSet", changes)]
    }

    // MARK: Tags

    private func tags(_ parameters: QueryParameters, _ prefix: String) -> [String: String] {
        var tags: [String: String] = [:]
        for index in parameters.indices(prefix) {
            guard let key = parameters["\(prefix).\(index).Key"] else { continue }
            tags[key] = parameters["\(prefix).\(index).Value"] ?? ""
        }
        return tags
    }

    private mutating func changeTags(
        _ parameters: QueryParameters, at now: Moment, create: Bool
    ) throws(APIError) -> [XMLNode] {
        let resources = parameters.list("ResourceId")
        guard !resources.isEmpty else { throw .missingParameter("resourceIdSet") }
        for resource in resources { try requireTaggable(resource) }
        let indices = parameters.indices("Tag")
        if create, indices.isEmpty { throw .missingParameter("tagSet") }
        for index in indices where parameters["Tag.\(index).Key"]?.hasPrefix("aws:") ?? false {
            throw APIError(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use")
        }
        try refuseDryRun(parameters)
        for resource in resources {
            change(tagsOf: resource, at: now) { tags in
                if !create, indices.isEmpty { tags = [:] }
                for index in indices {
                    guard let key = parameters["Tag.\(index).Key"] else { continue }
                    let value = parameters["Tag.\(index).Value"]
                    if create {
                        tags[key] = value ?? ""
                    } else if value == nil || tags[key] == value {
                        // With a value given, a tag goes only if it still has that value.
                        tags[key] = nil
                    }
                }
            }
        }
        return [XMLNode("return", "true")]
    }

    private func requireTaggable(_ resource: String) throws(APIError) {
        if let id = VolumeID(resource) {
            guard volumes[id] != nil else { throw .volumesNotFound([resource]) }
        } else if let id = InstanceID(resource) {
            guard instances[id] != nil else { throw .instancesNotFound([resource]) }
        } else {
            throw APIError("InvalidID", "The ID '\(resource)' is not valid")
        }
    }

    private mutating func change(
        tagsOf resource: String, at now: Moment, _ body: (inout [String: String]) -> Void
    ) {
        if let id = VolumeID(resource) {
            change(id, at: now) { (volume: inout Volume) in body(&volume.tags) }
        } else if let id = InstanceID(resource), var instance = instances[id] {
            body(&instance.tags)
            instances[id] = instance
        }
    }

    private func describeTags(_ parameters: QueryParameters) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        var rows: [(resource: String, type: String, key: String, value: String)] = []
        for volume in volumes.values {
            rows += volume.tags.map { ("\(volume.id)", "volume", $0.key, $0.value) }
        }
        for instance in instances.values {
            rows += instance.tags.map { ("\(instance.id)", "instance", $0.key, $0.value) }
        }
        rows.sort { ($0.resource, $0.key) < ($1.resource, $1.key) }
        var items: [[XMLNode]] = []
        for row in rows {
            let values = [
                "key": row.key, "value": row.value, "resource-id": row.resource,
                "resource-type": row.type,
            ]
            guard try filters.accept(tags: [row.key: row.value], { values[$0].map { [$0] } })
            else { continue }
            items.append([
                XMLNode("resourceId", row.resource), XMLNode("resourceType", row.type),
                XMLNode("key", row.key), XMLNode("value", row.value),
            ])
        }
        let page = try Page(items, parameters, max: 1000)
        return [.list("tagSet", page.elements)] + page.tokenMember
    }
}
