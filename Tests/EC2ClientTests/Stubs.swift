import AWSWire
import Base
import EC2Client
import HTTPWire
import Ring
import Synchronization

/// A clock that moves when something sleeps on it, or when a test says so.
final class StubTime: TimeSource {
    private let state = Mutex((now: UInt64(1_000_000_000), unix: Int64(1_800_000_000)))

    var now: Instant { Instant(nanoseconds: state.withLock { $0.now }) }
    var unixSeconds: Int64 { state.withLock { $0.unix } }

    func sleep(until instant: Instant) async throws {
        try Task.checkCancellation()
        if instant > now { advance(by: instant - now) }
    }

    /// Whole seconds pass on the wall clock, too.
    func advance(by duration: Duration) {
        state.withLock {
            $0.now += UInt64(duration.nanoseconds)
            $0.unix += duration.components.seconds
        }
    }
}

/// Plays the other side: answers each request as the test says.
@RingActor final class StubTransport: HTTPTransport {
    typealias Answer =
        @RingActor @Sendable (_ request: HTTPRequest, _ endpoint: Endpoint)
        async throws(TransportFailure) -> HTTPResponse

    private(set) var requests: [HTTPRequest] = []
    /// Until when each request was to be sent.
    private(set) var latest: [Instant?] = []
    var answer: Answer

    nonisolated init(answer: @escaping Answer) { self.answer = answer }

    func send(
        _ request: HTTPRequest, to endpoint: Endpoint, by deadline: Instant, bodyMax: Int,
        isRepeatable: Bool, sentBy latest: Instant?
    ) async throws(TransportFailure) -> HTTPResponse {
        requests.append(request)
        self.latest.append(latest)
        return try await answer(request, endpoint)
    }

    func count(_ text: String) -> Int {
        requests.count { "\($0.method) \($0.target) \($0.form)".contains(text) }
    }
}

extension HTTPRequest {
    var form: String { String(decoding: body, as: UTF8.self) }
}

extension HTTPResponse {
    static func xml(_ text: String, status: Int = 200, date: Int64? = nil) -> HTTPResponse {
        var response = HTTPResponse(status: status, contentType: "text/xml", text: text)
        if let date { response.headers["Date"] = CivilTime(unixSeconds: date).httpDate }
        return response
    }

    static func error(_ code: String, status: Int, date: Int64? = nil) -> HTTPResponse {
        xml(
            """
            <Response><Errors><Error><Code>\(code)</Code><Message>m</Message></Error></Errors>
            <RequestID>r-1</RequestID></Response>
            """, status: status, date: date)
    }

    static func credentials(_ id: String, expiring: Int64) -> HTTPResponse {
        HTTPResponse(
            status: 200, contentType: "application/json",
            text: """
                {"Code":"Success","AccessKeyId":"\(id)","SecretAccessKey":"verysecret",
                "Token":"sessiontoken","Expiration":"\(CivilTime(unixSeconds: expiring).rfc3339)"}
                """)
    }
}

/// An instance with a role whose credentials the test sets.
@RingActor final class StubMetadata {
    private(set) var tokens = 0
    var validToken = ""
    var role: String? = "ecsInstanceRole"
    var credentials: @RingActor @Sendable () async -> HTTPResponse
    var identity = """
        {"instanceId":"i-0123456789abcdef0","region":"eu-west-1","availabilityZone":"eu-west-1a"}
        """

    nonisolated init(credentials: @escaping @RingActor @Sendable () async -> HTTPResponse) {
        self.credentials = credentials
    }

    func answer(_ request: HTTPRequest) async -> HTTPResponse {
        if request.method == "PUT" {
            guard request.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600" else {
                return HTTPResponse(status: 400)
            }
            tokens += 1
            validToken = "token-\(tokens)"
            return HTTPResponse(status: 200, text: validToken)
        }
        guard request.headers["X-aws-ec2-metadata-token"] == validToken else {
            return HTTPResponse(status: 401)
        }
        let roles = "/latest/meta-data/iam/security-credentials/"
        switch (request.target, role) {
        case ("/latest/dynamic/instance-identity/document", _):
            return HTTPResponse(status: 200, text: identity)
        case (roles, let role?): return HTTPResponse(status: 200, text: role)
        case (let path, let role?) where path == roles + role: return await credentials()
        default: return HTTPResponse(status: 404)
        }
    }
}

/// A clock that moves only when a test says so.
final class ManualTime: TimeSource {
    private struct Sleeper {
        var until: Instant
        var continuation: CheckedContinuation<Bool, Never>
    }
    private struct State {
        var now = Instant(nanoseconds: 1_000_000_000)
        var sleepers: [UInt64: Sleeper] = [:]
        var lastID: UInt64 = 0
    }
    private let state = Mutex(State())

    var now: Instant { state.withLock { $0.now } }
    var unixSeconds: Int64 { 1_800_000_000 }

    func sleep(until instant: Instant) async throws {
        let id = state.withLock {
            $0.lastID += 1
            return $0.lastID
        }
        let isOver = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver: Bool? = state.withLock {
                    if Task.isCancelled { return false }
                    if $0.now >= instant { return true }
                    $0.sleepers[id] = Sleeper(until: instant, continuation: continuation)
                    return nil
                }
                if let isOver { continuation.resume(returning: isOver) }
            }
        } onCancel: {
            let sleeper = state.withLock { $0.sleepers.removeValue(forKey: id) }
            sleeper?.continuation.resume(returning: false)
        }
        if !isOver { throw CancellationError() }
    }

    func advance(by duration: Duration) {
        let due = state.withLock { state in
            state.now = state.now + duration
            let due = state.sleepers.filter { $0.value.until <= state.now }
            for id in due.keys { state.sleepers[id] = nil }
            return due.sorted { $0.value.until < $1.value.until }.map(\.value.continuation)
        }
        for continuation in due { continuation.resume(returning: true) }
    }
}
