import Base

/// Instances, and what happens to their volumes.
extension Region {
    /// Adds an instance, or changes one. Its volumes' devices follow its state.
    package mutating func set(_ instance: Instance, at now: Moment) {
        var stored = instance
        stored.tags.merge(instances[instance.id]?.tags ?? [:]) { new, _ in new }
        instances[instance.id] = stored
        finish(instance.id, instance.state, at: now)
    }

    /// Stops, starts or terminates: `passing` at once, `final` after `latency.change`.
    mutating func change(
        _ id: InstanceID, passing: Instance.State, final: Instance.State, at now: Moment
    ) {
        instances[id]?.state = passing
        if passing == .pending { instances[id]?.stateReason = nil }
        note("instance-\(passing.rawValue)", nil, id, at: now.instant)
        schedule(.instanceState(id, final), at: now.instant + latency.change)
    }

    mutating func finish(_ id: InstanceID, _ state: Instance.State, at now: Moment) {
        guard instances[id] != nil else { return }
        instances[id]?.state = state
        note("instance-\(state.rawValue)", nil, id, at: now.instant)
        for (volume, attachment) in attachments(of: id) {
            switch state {
            case .running:
                changeAttachment(volume, attachment.number, at: now) { $0.force = false }
                schedule(.plug(volume, attachment: attachment.number), at: now.instant)
            case .stopped where instances[id]?.isHibernated == true:
                // Its kernel is suspended, together with whatever has the device mounted.
                break
            case .stopped, .terminated:
                // The machine is gone, together with whatever held the device.
                changeAttachment(volume, attachment.number, at: now) {
                    $0.force = true
                    if state == .terminated { $0.state = .detaching }
                }
                if state == .terminated || attachment.device != .absent {
                    schedule(.unplug(volume, attachment: attachment.number), at: now.instant)
                }
            case .pending, .stopping, .shuttingDown: break
            }
        }
    }

    func required(_ id: String) throws(APIError) -> Instance {
        guard let parsed = InstanceID(id) else {
            throw APIError(
                "InvalidInstanceID.Malformed", "Invalid id: \"\(id)\" (expecting \"i-...\")")
        }
        guard let instance = instances[parsed] else { throw .instancesNotFound([id]) }
        return instance
    }

    func requiredInstances(_ parameters: QueryParameters) throws(APIError) -> [Instance] {
        let ids = parameters.list("InstanceId")
        guard !ids.isEmpty else { throw .missingParameter("InstanceId") }
        var found: [Instance] = []
        for id in ids { found.append(try required(id)) }
        return found
    }
}
