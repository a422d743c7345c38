import Base

/// The actions on instances.
extension Region {
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

    func describeInstances(_ parameters: QueryParameters) throws(APIError) -> [XMLNode] {
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

    func describeInstanceStatus(
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

    mutating func changeInstances(
        _ parameters: QueryParameters, from: [Instance.State], _ passing: Instance.State,
        _ final: Instance.State, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let chosen = try requiredInstances(parameters)
        for instance in chosen where instance.state == .terminated || instance.state == .pending {
            throw APIError(
                "IncorrectInstanceState",
                "The instance '\(instance.id)' is not in a state from which it can be changed.")
        }
        let hibernates = try parameters.flag("Hibernate") ?? false
        for instance in chosen where hibernates && !instance.canHibernate {
            throw APIError(
                "UnsupportedHibernationConfiguration",
                "Instance '\(instance.id)' is not configured for hibernation.")
        }
        try refuseDryRun(parameters)
        for instance in chosen where from.contains(instance.state) {
            if passing != .pending {
                instances[instance.id]?.stateReason =
                    hibernates ? Instance.hibernated : "Client.UserInitiatedShutdown"
            }
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

    /// The only supported attribute is whether a volume is deleted with its instance.
    mutating func modifyInstanceAttribute(
        _ parameters: QueryParameters, at now: Moment
    ) throws(APIError) -> [XMLNode] {
        let instance = try required(try parameters.required("InstanceId"))
        try refuseDryRun(parameters)
        for index in parameters.indices("BlockDeviceMapping") {
            let prefix = "BlockDeviceMapping.\(index)"
            let name = try parameters.required("\(prefix).DeviceName")
            guard let flag = try parameters.flag("\(prefix).Ebs.DeleteOnTermination"),
                let (volume, attachment) = attachments(of: instance.id).first(where: {
                    $0.attachment.deviceName == name
                })
            else {
                throw APIError(
                    "InvalidInstanceAttributeValue", "No device is currently mapped at \(name)")
            }
            changeAttachment(volume, attachment.number, at: now) { $0.deleteOnTermination = flag }
        }
        return [XMLNode("return", "true")]
    }
}
