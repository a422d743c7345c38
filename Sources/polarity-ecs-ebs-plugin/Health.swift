import Base
import HTTPClient
import JSON
import Linux
import Ring
import TLS
import XML

/// The response of /health: `ok`, or `degraded` with the reason; what hangs; what was built, and
/// from what; and which loop runs.
@RingActor
final class Health {
    private let version: String
    private let commit: String
    private let packages: JSONObject
    /// Why EC2 is not available; nil while it answers.
    var problem: String?

    /// - Parameter packages: What the plugin was built from: versions by the names of the source
    ///   packages.
    init(version: String, commit: String, packages: [String: String]) {
        self.version = version
        self.commit = commit
        self.packages = JSONObject(packages.mapValues { .string($0) })
    }

    var body: [UInt8] {
        let hanging = RingActor.ring.hangingWork.prefix(Limit.volumesNamedMax).map(Hanging.init)
        let reasons = (problem.map { [$0] } ?? []) + hanging.map(\.text)
        var members: JSONObject = [
            "status": reasons.isEmpty ? "ok" : "degraded",
            "timestamp": .string(CivilTime(unixSeconds: RingActor.ring.unixSeconds).rfc3339),
            "version": .string(version),
            "commit": .string(commit),
        ]
        if !reasons.isEmpty { members["reason"] = .string(reasons.joined(separator: "; ")) }
        if !hanging.isEmpty { members["hanging"] = .array(hanging.map { .object($0.members) }) }
        let refusal = RingActor.ring.uringRefusal
        members["loop"] = refusal == nil ? "io_uring" : "epoll"
        members["loop_reason"] = refusal.map { .string("\($0)") }
        members["libraries"] = .object(Self.libraries)
        if !packages.members.isEmpty { members["packages"] = .object(packages) }
        return JSONValue.object(members).serialised()
    }

    /// As the libraries themselves report them. `packages` has those that do not, and the
    /// distribution's patches.
    private static var libraries: JSONObject {
        [
            "c-ares": .string(caresVersion), "expat": .string(expatVersion),
            "jansson": .string(janssonVersion), "libblkid": .string(libblkidVersion),
            "openssl": .string(openSSLVersion),
        ]
    }
}

/// Work that waits for a device that does not respond, for /health.
@RingActor
private struct Hanging {
    private let owner: BlockingOwner
    private let doing: String
    private let since: String

    init(_ owner: BlockingOwner, _ work: WorkUnderWay) {
        let ring = RingActor.ring
        self.owner = owner
        doing = work.doing
        let age = (ring.now - work.since).components.seconds
        since = CivilTime(unixSeconds: ring.unixSeconds - age).rfc3339
    }

    var text: String {
        let subject =
            switch owner {
            case .volume(let id): "\(id) does not answer"
            case .device(let number): "the device \(number) does not answer"
            case .state: "the state folder's disk does not answer"
            case .other: "a system call does not return"
            }
        return "\(subject): '\(doing)' has not ended since \(since)"
    }

    var members: JSONObject {
        var members: JSONObject = ["doing": .string(doing), "since": .string(since)]
        if case .volume(let id) = owner { members["volume"] = .string("\(id)") }
        return members
    }
}
