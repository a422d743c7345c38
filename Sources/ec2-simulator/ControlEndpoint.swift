import Base
import EC2Model
import HTTPWire
import JSON
import Ring

/// The control endpoint: JSON over HTTP on a unix socket.
///
///     GET    /state            volumes, attachments, instances, counters
///     GET    /events?since=N   the events after number N
///     POST   /volumes          adds a volume, as in the configuration
///     POST   /snapshots        adds a snapshot, as in the configuration
///     POST   /quotas           sets the account's limits that are there
///     POST   /instances        adds an instance, or sets state, networkInterfaces and
///                              holdsDetachBack of one that is there
///     POST   /latency          sets the members that are there
///     POST   /buckets          true, false, or buckets by action
///     POST   /faults           adds one; DELETE /faults removes all, and lets held calls go on
///     POST   /credentials      {"rotate": true} new keys; {"revoke": true} and the old ones expire
///     POST   /reset-counters
@RingActor
struct ControlEndpoint {
    let simulator: Simulator
    /// `https://127.0.0.1:1234`.
    let endpoint: String
    let authorityFile: String
    /// Starts an instance's metadata service, and returns its port.
    let serveInstance: (Configuration.InstanceSetting) async throws -> UInt16
    let imdsPort: (InstanceID) -> UInt16?

    func handle(_ request: HTTPRequest) async -> Outcome {
        do {
            return .answer(json(200, try await answer(request)))
        } catch let error as Refusal {
            return .answer(json(error.status, ["error": .string(error.text)]))
        } catch {
            return .answer(json(400, ["error": .string("\(error)")]))
        }
    }

    private struct Refusal: Error {
        var status: Int
        var text: String
    }

    private func json(_ status: Int, _ value: JSONValue) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "application/json", body: value.serialised())
    }

    private func answer(_ request: HTTPRequest) async throws -> JSONValue {
        let body = request.body.isEmpty ? JSONValue.object([:]) : try JSONValue.parse(request.body)
        switch (request.method, String(request.path)) {
        case ("GET", "/state"): return state()
        case ("GET", "/events"): return events(request)
        case ("POST", "/volumes"): return try await addVolume(body)
        case ("POST", "/snapshots"): return try await addSnapshot(body)
        case ("POST", "/quotas"): try simulator.region.quotas.update(body)
        case ("POST", "/instances"): return try await setInstance(body)
        case ("POST", "/latency"): try simulator.region.latency.update(body)
        case ("POST", "/buckets"): try simulator.region.throttle.update(body)
        case ("POST", "/faults"): simulator.region.faults.add(try Fault(body, "fault"))
        case ("DELETE", "/faults"): simulator.removeFaults()
        case ("POST", "/credentials"): try changeCredentials(body)
        case ("POST", "/reset-counters"): simulator.counters = Simulator.Counters()
        default:
            throw Refusal(status: 404, text: "no \(request.method) \(request.path)")
        }
        return [:]
    }

    private func addVolume(_ body: JSONValue) async throws -> JSONValue {
        let setting = try Configuration.VolumeSetting(
            body, "volume", region: simulator.region.name,
            unixSeconds: simulator.now.unixSeconds)
        try await simulator.add(setting)
        guard let volume = simulator.region.volumes[setting.volume.id] else { return .null }
        return volume.json
    }

    private func addSnapshot(_ body: JSONValue) async throws -> JSONValue {
        let setting = try Configuration.SnapshotSetting(
            body, "snapshot", unixSeconds: simulator.now.unixSeconds)
        try await simulator.add(setting)
        return setting.snapshot.json
    }

    private func setInstance(_ body: JSONValue) async throws -> JSONValue {
        if let id = body["id"]?.string.flatMap({ InstanceID($0) }),
            var instance = simulator.region.instances[id]
        {
            var reader = try ObjectReader(body, "instance")
            _ = try reader.requiredString("id")
            instance.state =
                try reader.choice("state", Instance.State.self) ?? instance.state
            instance.networkInterfaces =
                try reader.integer("networkInterfaces", in: 1...64) ?? instance.networkInterfaces
            instance.holdsDetachBack =
                try reader.bool("holdsDetachBack") ?? instance.holdsDetachBack
            try reader.finish()
            simulator.region.set(instance, at: simulator.now)
            simulator.advance()
            return json(instance)
        }
        let setting = try Configuration.InstanceSetting(
            body, "instance", region: simulator.region.name, devPath: nil,
            stateDirectory: simulator.stateDirectory.path,
            unixSeconds: simulator.now.unixSeconds)
        _ = try await serveInstance(setting)
        return json(setting.instance)
    }

    private func changeCredentials(_ body: JSONValue) throws {
        var reader = try ObjectReader(body, "credentials")
        if let lifetime = try reader.integer("lifetimeSeconds", in: 1...86400) {
            simulator.credentials.lifetime = Int64(lifetime)
        }
        let rotates = try reader.bool("rotate") ?? false
        let revokes = try reader.bool("revoke") ?? false
        try reader.finish()
        if rotates || revokes {
            simulator.credentials.rotate(revoke: revokes, at: simulator.now.unixSeconds)
        }
    }

    // MARK: State

    private func state() -> JSONValue {
        let volumes = simulator.region.volumes.values.sorted {
            $0.id.description < $1.id.description
        }
        let instances = simulator.region.instances.values.sorted {
            $0.id.description < $1.id.description
        }
        let snapshots = simulator.region.snapshots.values.sorted { $0.id < $1.id }
        return [
            "endpoint": .string(endpoint), "caFile": .string(authorityFile),
            "region": .string(simulator.region.name), "ns": .integer(nanoseconds(simulator.now)),
            "volumes": .array(volumes.map(\.json)),
            "snapshots": .array(snapshots.map(\.json)), "instances": .array(instances.map(json)),
            "counters": simulator.counters.json,
        ]
    }

    private func json(_ instance: Instance) -> JSONValue {
        let tree = simulator.tree(of: instance.id)
        let port = imdsPort(instance.id) ?? 0
        return [
            "id": .string(instance.id.description), "type": .string(instance.type),
            "availabilityZone": .string(instance.zone), "mode": .string(instance.mode.rawValue),
            "state": .string(instance.state.rawValue),
            "devPath": .string(tree?.devPath ?? ""), "sysPath": .string(tree?.sysPath ?? ""),
            "imdsPort": .integer(Int64(port)),
            "imdsEndpoint": .string("http://127.0.0.1:\(port)"),
            "attachmentLimit": .integer(Int64(instance.attachmentsMax)),
        ]
    }

    private func events(_ request: HTTPRequest) -> JSONValue {
        let since = request.query.flatMap { query in
            query.hasPrefix("since=") ? Int(query.dropFirst(6)) : nil
        }
        let events = simulator.region.events.filter { $0.sequence > since ?? 0 }
        return ["events": .array(events.map(\.json))]
    }
}

private func nanoseconds(_ moment: Moment) -> Int64 {
    Int64(clamping: moment.instant.nanoseconds)
}

private func optional(_ number: Int?) -> JSONValue {
    number.map { .integer(Int64($0)) } ?? .null
}

private func optional(_ text: (some CustomStringConvertible)?) -> JSONValue {
    text.map { .string($0.description) } ?? .null
}

extension Volume {
    fileprivate var json: JSONValue {
        [
            "id": .string(id.description), "state": .string(state.rawValue),
            "availabilityZone": .string(zone), "bytes": .integer(Int64(bytes)),
            "snapshotId": optional(snapshotID), "sourceVolumeId": optional(sourceVolumeID),
            "volumeType": .string(type), "iops": optional(iops), "throughput": optional(throughput),
            "initializationRate": optional(initializationRate), "kmsKeyId": optional(kmsKeyID),
            "tags": .object(JSONObject(tags.mapValues { .string($0) })),
            "attachments": .array(attachments.map(\.json)),
        ]
    }
}

extension Snapshot {
    fileprivate var json: JSONValue {
        [
            "id": .string(id), "state": .string(state.rawValue),
            "volumeId": .string(volume.description), "bytes": .integer(Int64(bytes)),
            "tags": .object(JSONObject(tags.mapValues { .string($0) })),
        ]
    }
}

extension Attachment {
    fileprivate var json: JSONValue {
        [
            "instance": .string(instance.description), "device": .string(deviceName),
            "state": .string(state.rawValue), "node": optional(node),
        ]
    }
}

extension Event {
    fileprivate var json: JSONValue {
        [
            "sequence": .integer(Int64(sequence)), "ns": .integer(Int64(clamping: at.nanoseconds)),
            "event": .string(name), "volume": optional(volume), "instance": optional(instance),
            "detail": optional(detail),
        ]
    }
}

extension Simulator.Counters {
    fileprivate var json: JSONValue {
        let counts = { (counts: [String: Int]) in
            JSONValue.object(JSONObject(counts.mapValues { .integer(Int64($0)) }))
        }
        return [
            "calls": counts(calls), "errors": counts(errors), "imds": counts(imds),
            "faults": .integer(Int64(faults)), "connections": .integer(Int64(connections)),
            "handshakes": .integer(Int64(handshakes)), "resumed": .integer(Int64(resumed)),
        ]
    }
}
