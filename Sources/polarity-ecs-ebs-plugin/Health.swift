import Base
import JSON
import Ring

/// What /health tells: `ok`, or `degraded` with the reason, what was built, and which loop runs.
@RingActor
final class Health {
    private let version: String
    private let commit: String
    /// Why EC2 cannot be asked; nil while it answers.
    var problem: String?

    init(version: String, commit: String) {
        self.version = version
        self.commit = commit
    }

    var body: [UInt8] {
        var members: JSONObject = [
            "status": problem == nil ? "ok" : "degraded",
            "timestamp": .string(CivilTime(unixSeconds: RingActor.ring.unixSeconds).rfc3339),
            "version": .string(version),
            "commit": .string(commit),
        ]
        members["reason"] = problem.map { .string($0) }
        let barrier = RingActor.ring.uringBarrier
        members["loop"] = barrier == nil ? "io_uring" : "epoll"
        members["loop_reason"] = barrier.map { .string("\($0)") }
        return JSONValue.object(members).serialised()
    }
}
