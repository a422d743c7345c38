import Base

/// The actions on tags.
extension Region {
    func tags(_ parameters: QueryParameters, _ prefix: String) -> [String: String] {
        var tags: [String: String] = [:]
        for index in parameters.indices(prefix) {
            guard let key = parameters["\(prefix).\(index).Key"] else { continue }
            tags[key] = parameters["\(prefix).\(index).Value"] ?? ""
        }
        return tags
    }

    mutating func changeTags(
        _ parameters: QueryParameters, at now: Moment, create: Bool
    ) throws(APIError) -> [XMLNode] {
        let resources = parameters.list("ResourceId")
        guard !resources.isEmpty else { throw .missingParameter("resourceIdSet") }
        for resource in resources { try requireTaggable(resource) }
        let indices = parameters.indices("Tag")
        if create, indices.isEmpty { throw .missingParameter("tagSet") }
        for index in indices { try refuseReserved(parameters["Tag.\(index).Key"] ?? "") }
        if create {
            try requireRoom(for: indices.compactMap { parameters["Tag.\($0).Key"] }, resources)
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
                        // If a value is given, a tag is removed only if it still has that value.
                        tags[key] = nil
                    }
                }
            }
        }
        return [XMLNode("return", "true")]
    }

    /// How many tags a resource can have:
    /// docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html.
    private static let tagsMax = 50

    private func requireRoom(
        for keys: [String], _ resources: [String]
    ) throws(APIError) {
        for resource in resources {
            let tags =
                VolumeID(resource).flatMap { volumes[$0]?.tags }
                ?? InstanceID(resource).flatMap { instances[$0]?.tags }
                ?? snapshots[resource]?.tags ?? [:]
            try requireTagCount(Set(tags.keys).union(keys).count)
        }
    }

    private func requireTagCount(_ count: Int) throws(APIError) {
        guard count <= Self.tagsMax else {
            throw APIError(
                "TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
        }
    }

    /// The tags that a call gives to what it creates, which is a `resource`: `volume`, `snapshot`.
    func specifiedTags(
        _ parameters: QueryParameters, _ resource: String
    ) throws(APIError) -> [String: String] {
        var tags: [String: String] = [:]
        for index in parameters.indices("TagSpecification") {
            let prefix = "TagSpecification.\(index)"
            let type = try parameters.required(prefix + ".ResourceType")
            guard type == resource else {
                throw APIError(
                    "InvalidParameterValue",
                    "'\(type)' is not a valid taggable resource type for this operation.")
            }
            tags.merge(self.tags(parameters, prefix + ".Tag")) { $1 }
        }
        for key in tags.keys { try refuseReserved(key) }
        try requireTagCount(tags.count)
        return tags
    }

    private func refuseReserved(_ key: String) throws(APIError) {
        guard key.hasPrefix("aws:") else { return }
        throw APIError(
            "InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    }

    private func requireTaggable(_ resource: String) throws(APIError) {
        if let id = VolumeID(resource) {
            guard volumes[id] != nil else { throw .volumesNotFound([resource]) }
        } else if let id = InstanceID(resource) {
            guard instances[id] != nil else { throw .instancesNotFound([resource]) }
        } else if Snapshot.isID(resource) {
            guard snapshots[resource] != nil else { throw .snapshotNotFound(resource) }
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
        } else if var snapshot = snapshots[resource] {
            body(&snapshot.tags)
            snapshots[resource] = snapshot
        }
    }

    func describeTags(_ parameters: QueryParameters) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        var rows: [(resource: String, type: String, key: String, value: String)] = []
        for volume in volumes.values {
            rows += volume.tags.map { ("\(volume.id)", "volume", $0.key, $0.value) }
        }
        for instance in instances.values {
            rows += instance.tags.map { ("\(instance.id)", "instance", $0.key, $0.value) }
        }
        for snapshot in snapshots.values {
            rows += snapshot.tags.map { (snapshot.id, "snapshot", $0.key, $0.value) }
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
