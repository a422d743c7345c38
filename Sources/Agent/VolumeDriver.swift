import Base
import JSON
import VolumeCore

/// The Docker volume plugin protocol, version 1: a path and a JSON body in, a JSON body out.
///
/// Source: docs.docker.com/engine/extend/plugins_volume. An error is told in the answer's `Err`,
/// which Docker prints as it is.
package struct VolumeDriver: Sendable {
    private let volumes: VolumeManager

    package init(volumes: VolumeManager) { self.volumes = volumes }

    /// Whether the protocol has such a path.
    package static func has(_ path: String) -> Bool { calls[path] != nil }

    /// The body that answers a call of a path that the protocol has.
    package func answer(path: String, body: [UInt8]) async -> [UInt8] {
        guard let call = Self.calls[path] else { preconditionFailure("no such path: \(path)") }
        let answer: JSONValue
        do {
            answer = try await call(volumes, Request(body, path: path))
        } catch {
            answer = ["Err": .string("\(error)")]
        }
        return answer.serialised()
    }

    private typealias Call =
        @Sendable (VolumeManager, Request) async throws -> JSONValue

    private static let calls: [String: Call] = [
        "/Plugin.Activate": { _, _ in ["Implements": ["VolumeDriver"]] },
        "/VolumeDriver.Capabilities": { _, _ in ["Capabilities": ["Scope": "local"]] },
        "/VolumeDriver.Create": { volumes, request in
            try await volumes.create(request.name, options: request.options)
            return ["Err": ""]
        },
        "/VolumeDriver.Remove": { volumes, request in
            try await volumes.remove(request.name)
            return ["Err": ""]
        },
        "/VolumeDriver.Mount": { volumes, request in
            let mountpoint = try await volumes.mount(request.name, id: request.mountID)
            return ["Mountpoint": .string(mountpoint), "Err": ""]
        },
        "/VolumeDriver.Unmount": { volumes, request in
            try await volumes.unmount(request.name, id: request.mountID)
            return ["Err": ""]
        },
        "/VolumeDriver.Path": { volumes, request in
            let mountpoint = try await volumes.path(request.name)
            return ["Mountpoint": .string(mountpoint ?? ""), "Err": ""]
        },
        "/VolumeDriver.Get": { volumes, request in
            ["Volume": try await volumes.get(request.name).json, "Err": ""]
        },
        "/VolumeDriver.List": { volumes, _ in
            ["Volumes": .array(await volumes.list().map(\.json)), "Err": ""]
        },
    ]
}

/// The members that calls take. A member that is not there is an error of the call that needs it.
private struct Request: Sendable {
    private let members: JSONObject
    private let path: String
    private let isEmpty: Bool

    /// An empty body is one without members: Docker sends Plugin.Activate so, and may send a
    /// retried call so.
    init(_ body: [UInt8], path: String) throws {
        self.path = path
        isEmpty = body.isEmpty
        guard !isEmpty else {
            members = [:]
            return
        }
        guard let members = try JSONValue.parse(body).object else {
            throw Self.invalid(path, "the body is no JSON object")
        }
        self.members = members
    }

    var name: String { get throws { try text("Name") } }
    var mountID: String { get throws { try text("ID") } }

    var options: [String: String] {
        get throws {
            guard let options = members["Opts"], options != .null else { return [:] }
            guard let options = options.object else {
                throw Self.invalid(path, "Opts is no JSON object")
            }
            return try options.mapValues { value throws(OperationError) in
                guard let text = value.string else {
                    throw Self.invalid(path, "a value in Opts is no string")
                }
                return text
            }
        }
    }

    private func text(_ member: String) throws -> String {
        guard let text = members[member]?.string else {
            // moby sends a repeated call's body empty, for it was read before: pkg/plugins/client.go.
            guard !isEmpty else {
                throw OperationError(
                    .invalidInput, doing: "answer \(path)",
                    found: "the body is empty: Docker repeats a call so whose answer took too long",
                    advice: "try again, for what was begun goes on; docker plugin enable --timeout "
                        + "120 makes Docker wait longer")
            }
            throw Self.invalid(path, "the body has no string \(member)")
        }
        return text
    }

    private static func invalid(_ path: String, _ found: String) -> OperationError {
        OperationError(.invalidInput, doing: "answer \(path)", found: found)
    }
}

extension VolumeManager.Info {
    fileprivate var json: JSONValue {
        var status: JSONObject = [
            "volume": .string("\(volume)"), "phase": .string(phase),
            "mounts": .string("\(mounts)"),
        ]
        if let device { status["device"] = .string(device) }
        if let attachedAs { status["attachedAs"] = .string(attachedAs) }
        return [
            "Name": .string(name),
            "Mountpoint": .string(mountpoint ?? ""),
            "CreatedAt": .string(CivilTime(unixSeconds: createdAt).rfc3339),
            "Status": .object(status),
        ]
    }
}
