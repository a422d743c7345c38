package import Base
import JSON
import VolumeCore

/// The Docker volume plugin protocol, version 1: takes a path and a JSON body, returns a JSON body.
///
/// Source: docs.docker.com/engine/extend/plugins_volume. An error is told in the answer's `Err`,
/// which Docker prints as it is.
package struct VolumeDriver: Sendable {
    private let volumes: VolumeManager

    package init(volumes: VolumeManager) { self.volumes = volumes }

    /// The body that answers a call.
    package struct Answer: Sendable {
        package let body: [UInt8]
        /// To be told whether the answer went out, on the volume manager's executor; nil where
        /// nobody has to know.
        package let sent: (@Sendable (Bool) -> Void)?
    }

    /// One of the protocol's calls.
    package struct Call: Sendable {
        fileprivate let path: String
        fileprivate let handler: Handler

        /// Nil for a path outside the protocol.
        package init?(_ path: String) {
            guard let handler = VolumeDriver.handlers[path] else { return nil }
            self.path = path
            self.handler = handler
        }
    }

    /// Answers a call with that body. On the volume manager's executor.
    package func reply(to call: Call, body: [UInt8]) -> Reply<Answer> {
        call.handler(volumes, call.path, body)
    }

    /// Answers a call of that path with that body.
    fileprivate typealias Handler = @Sendable (VolumeManager, String, [UInt8]) -> Reply<Answer>

    /// Answers from memory, without waiting; `write` writes the answer's members.
    private static func fromMemory(
        _ write:
            @escaping @Sendable (isolated VolumeManager, Request, inout JSONWriter) throws -> Void
    ) -> Handler {
        { volumes, path, body in
            let answer = volumes.assumeIsolated { volumes in
                document(of: path) {
                    try write(volumes, Request(body, path: path, to: volumes), &$0)
                }
            }
            return .now(Answer(body: answer, sent: nil))
        }
    }

    /// Answers when `work` has ended, which returns what was mounted if the answer tells it.
    private static func afterWork(
        _ work: @escaping @Sendable (VolumeManager, Request) async throws -> Mounted?
    ) -> Handler {
        { volumes, path, body in
            .later {
                do {
                    let mount = try await work(volumes, Request(body, path: path, to: volumes))
                    let body = document(of: path) {
                        if let mount { $0.member("Mountpoint", mount.mountpoint) }
                        $0.member("Err", "")
                    }
                    return Answer(body: body, sent: mount?.sent)
                } catch {
                    return Answer(body: document(of: path) { _ in throw error }, sent: nil)
                }
            }
        }
    }

    fileprivate struct Mounted: Sendable {
        let mountpoint: String
        let sent: @Sendable (Bool) -> Void
    }

    private static let handlers: [String: Handler] = [
        "/Plugin.Activate": fromMemory { _, _, answer in
            answer.member("Implements") { $0.array { $0.string("VolumeDriver") } }
        },
        "/VolumeDriver.Capabilities": fromMemory { _, _, answer in
            answer.member("Capabilities") { $0.object { $0.member("Scope", "local") } }
        },
        "/VolumeDriver.Create": afterWork { volumes, request in
            try await volumes.create(request.name, options: request.options)
            return nil
        },
        "/VolumeDriver.Remove": afterWork { volumes, request in
            try await volumes.remove(request.name)
            return nil
        },
        "/VolumeDriver.Mount": afterWork { volumes, request in
            let (name, id) = try (request.name, request.mountID)
            let mountpoint = try await volumes.mount(name, id: id)
            return Mounted(mountpoint: mountpoint) { isSent in
                volumes.assumeIsolated { $0.noteAnswer(to: id, of: name, isSent: isSent) }
            }
        },
        "/VolumeDriver.Unmount": afterWork { volumes, request in
            try await volumes.unmount(request.name, id: request.mountID)
            return nil
        },
        "/VolumeDriver.Path": fromMemory { volumes, request, answer in
            answer.member("Mountpoint", try volumes.path(request.name) ?? "")
            answer.member("Err", "")
        },
        "/VolumeDriver.Get": fromMemory { volumes, request, answer in
            let volume = try volumes.get(request.name)
            answer.member("Volume") { volume.write(to: &$0) }
            answer.member("Err", "")
        },
        "/VolumeDriver.List": fromMemory { volumes, _, answer in
            let volumes = volumes.list()
            answer.member("Volumes") {
                $0.array { for volume in volumes { volume.write(to: &$0) } }
            }
            answer.member("Err", "")
        },
    ]
}

/// An object of the members that `write` writes; of `Err` alone if that throws.
private func document(of path: String, _ write: (inout JSONWriter) throws -> Void) -> [UInt8] {
    var writer = JSONWriter()
    do { try writer.object(write) } catch {
        writer = JSONWriter()
        writer.object { $0.member("Err", explanation(of: error, to: path)) }
    }
    return writer.bytes
}

/// What the caller is told of an error. One that comes from below, the kernel's or the ring's, does
/// not say by itself what it kept from being done.
private func explanation(of error: any Error, to path: String) -> String {
    switch error {
    case is OperationError, is EC2Failure: "\(error)"
    case is CancellationError:
        OperationError(
            .system, doing: "answer \(path)", found: "\(error)",
            advice: "try again: what was begun continues"
        ).description
    default: OperationError(.system, doing: "answer \(path)", found: "\(error)").description
    }
}

/// The members that calls take. A member that is not there is an error of the call that needs it.
private struct Request: Sendable {
    private let members: JSONObject
    private let path: String
    private let driverName: String
    private let isEmpty: Bool

    /// An empty body is one without members: Docker sends Plugin.Activate so, and may send a
    /// retried call so.
    init(_ body: [UInt8], path: String, to volumes: VolumeManager) throws {
        self.path = path
        driverName = volumes.settings.driverName
        isEmpty = body.isEmpty
        guard !isEmpty else {
            members = [:]
            return
        }
        guard let members = try JSONValue.parse(body).object else {
            throw Self.invalid(path, "the body is not a JSON object")
        }
        self.members = members
    }

    var name: String { get throws { try text("Name") } }
    var mountID: String { get throws { try text("ID") } }

    var options: [String: String] {
        get throws {
            guard let options = members["Opts"], options != .null else { return [:] }
            guard let options = options.object else {
                throw Self.invalid(path, "Opts is not a JSON object")
            }
            return try options.mapValues { value throws(OperationError) in
                guard let text = value.string else {
                    throw Self.invalid(path, "a value in Opts is not a string")
                }
                return text
            }
        }
    }

    private func text(_ member: String) throws -> String {
        guard let text = members[member]?.string else {
            // moby sends a repeated call's body empty, for it was read before:
            // pkg/plugins/client.go.
            guard !isEmpty else {
                throw OperationError(
                    .invalidInput, doing: "answer \(path)",
                    found: "the body is empty, as when Docker repeats a call that took too long",
                    advice: "try again: what was begun continues; docker plugin enable --timeout "
                        + "120 \(driverName) makes Docker wait longer")
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
    fileprivate func write(to writer: inout JSONWriter) {
        writer.object {
            $0.member("Name", name)
            $0.member("Mountpoint", mountpoint ?? "")
            $0.member("CreatedAt", CivilTime(unixSeconds: createdAt).rfc3339)
            $0.member("Status") {
                $0.object {
                    $0.member("volume", volume.description)
                    $0.member("phase", phase)
                    $0.member("mounts", String(mounts))
                    if let device { $0.member("device", device) }
                    if let attachedAs { $0.member("attachedAs", attachedAs) }
                    if let deletionWarning {
                        $0.member("deletedWithInstance", deletionWarning)
                    }
                    if let problem { $0.member("problem", problem) }
                    if mayBeOutdated {
                        $0.member(
                            "contents",
                            "may be older than what was written: the journal was not replayed")
                    }
                }
            }
        }
    }
}
