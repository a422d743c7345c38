import AWSWire
import Base
import EC2Client
import HTTPWire
import Logging
import Ring
import Synchronization
import TestSupport
import Testing

private let somebody = InstanceID(literal: "i-0123456789abcdef0")
private let emptyAnswer = HTTPResponse.xml(
    "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>")
private let start = StubTime().unixSeconds

/// Keeps every line that is logged, with its metadata.
private struct LogRecord: LogHandler {
    final class Lines: Sendable {
        let texts = Mutex<[String]>([])
    }

    let lines: Lines
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        lines.texts.withLock { $0.append("\(event.message) \(metadata) \(event.metadata ?? [:])") }
    }
}

/// An instance with a role, and EC2.
@RingActor private struct Scene {
    let time = StubTime()
    let instance: StubMetadata
    let transport: StubTransport
    let metadata: InstanceMetadata
    let client: EC2Client
    let lines = LogRecord.Lines()

    init(
        region: String? = "eu-west-1",
        credentials: @escaping @RingActor @Sendable () async -> HTTPResponse = {
            .credentials("ASIA1", expiring: start + 6 * 3600)
        },
        ec2: @escaping @RingActor @Sendable (HTTPRequest) -> HTTPResponse = { _ in emptyAnswer }
    ) {
        let instance = StubMetadata(credentials: credentials)
        self.instance = instance
        transport = StubTransport { request, endpoint throws(TransportFailure) in
            endpoint.isTLS ? ec2(request) : await instance.answer(request)
        }
        let lines = lines
        let log = Logger(label: "test") { _ in LogRecord(lines: lines) }
        metadata = InstanceMetadata(
            endpoint: Endpoint(isTLS: false, host: "169.254.169.254", port: 80),
            transport: transport, time: time, log: log, random: { 0.5 })
        client = EC2Client(
            settings: EC2Settings(region: region), credentials: .instanceRole(metadata),
            metadata: metadata, transport: transport, time: time, log: log, random: { 0.5 })
    }

    func call() async throws {
        _ = try await client.describeInstance(somebody, by: time.now + .seconds(60))
    }

    /// The ids of the keys that EC2's requests were signed with, in order.
    var keys: [String] {
        transport.requests.compactMap {
            $0.headers["Authorization"].flatMap { SigV4.Authorization($0)?.accessKeyID }
        }
    }

    var fetches: Int { transport.count("security-credentials/ecsInstanceRole") }
    var logged: [String] { lines.texts.withLock { $0 } }
}

/// Responses of the metadata service that a test sets while it runs.
@RingActor private final class Role {
    var answer: HTTPResponse

    init(_ answer: HTTPResponse) { self.answer = answer }
}

@Suite(.timeLimit(.minutes(5))) struct CredentialRefreshTests {
    @Test func `credentials are fetched once and their token signed`() async throws {
        try await onRing {
            let scene = Scene()
            for _ in 0..<3 { try await scene.call() }
            #expect(scene.fetches == 1)
            #expect(scene.instance.tokens == 1)
            #expect(scene.keys == ["ASIA1", "ASIA1", "ASIA1"])
            #expect(
                scene.transport.requests.last?.headers["X-Amz-Security-Token"] == "sessiontoken")
        }
    }

    @Test func `concurrent first calls share one fetch`() async throws {
        try await onRing {
            let scene = Scene()
            let calls = (0..<8).map { _ in RingActor.spawn { try await scene.call() } }
            for call in calls { try await call.value }
            #expect(scene.fetches == 1)
            #expect(scene.keys.count == 8)
        }
    }

    @Test func `credentials are replaced before they expire, and no call waits for it`()
        async throws
    {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 3600))
            let scene = Scene(credentials: { role.answer })
            try await scene.call()
            role.answer = .credentials("ASIA2", expiring: start + 7200)
            scene.time.advance(by: .seconds(3600 - 300))
            try await scene.call()
            while scene.fetches < 2 { await Task.yield() }
            try await scene.call()
            #expect(scene.keys == ["ASIA1", "ASIA1", "ASIA2"])
        }
    }

    @Test func `expired credentials are replaced before the call`() async throws {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 3600))
            let scene = Scene(credentials: { role.answer })
            try await scene.call()
            role.answer = .credentials("ASIA2", expiring: start + 9999)
            scene.time.advance(by: .seconds(4000))
            try await scene.call()
            #expect(scene.keys == ["ASIA1", "ASIA2"])
        }
    }

    @Test
    func `a failing refresh leaves the old credentials in use, and is not tried at every call`()
        async throws
    {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 3600))
            let scene = Scene(credentials: { role.answer })
            try await scene.call()
            role.answer = HTTPResponse(status: 404)
            scene.time.advance(by: .seconds(3600 - 300))
            for _ in 0..<5 { try await scene.call() }
            while !scene.logged.contains(where: { $0.contains("could not be fetched") }) {
                await Task.yield()
            }
            #expect(scene.keys.count == 6)
            #expect(scene.fetches == 2)
            role.answer = .credentials("ASIA2", expiring: start + 7200)
            scene.time.advance(by: Limit.credentialsRefreshInterval)
            try await scene.call()
            while scene.fetches < 3 { await Task.yield() }
            try await scene.call()
            #expect(scene.keys.last == "ASIA2")
        }
    }

    @Test func `credentials that EC2 calls expired are replaced, and the call sent again`()
        async throws
    {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 9999))
            let scene = Scene(
                credentials: { role.answer },
                ec2: { request in
                    let isOld = request.headers["Authorization"]?.contains("ASIA1") ?? true
                    role.answer = .credentials("ASIA2", expiring: start + 9999)
                    return isOld ? .error("ExpiredToken", status: 400) : emptyAnswer
                })
            try await scene.call()
            #expect(scene.keys == ["ASIA1", "ASIA2"])
        }
    }

    @Test func `credentials of a recreated role replace the old ones at once`()
        async throws
    {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 9999))
            let scene = Scene(
                credentials: { role.answer },
                ec2: { request in
                    let isOld = request.headers["Authorization"]?.contains("ASIA1") ?? true
                    return isOld ? .error("AuthFailure", status: 401, date: start) : emptyAnswer
                })
            await #expect {
                try await scene.call()
            } throws: { ($0 as? EC2Failure)?.code == "AuthFailure" }
            role.answer = .credentials("ASIA2", expiring: start + 9999)
            try await scene.call()
            #expect(scene.keys == ["ASIA1", "ASIA1", "ASIA2"])
        }
    }

    @Test func `no secret is ever logged`() async throws {
        try await onRing {
            let role = Role(.credentials("ASIA1", expiring: start + 3600))
            var answers = 0
            let scene = Scene(
                credentials: { role.answer },
                ec2: { _ in
                    answers += 1
                    return answers == 1 ? .error("Unavailable", status: 503) : emptyAnswer
                })
            try await scene.call()
            role.answer = HTTPResponse(status: 200, text: "{\"SecretAccessKey\":\"verysecret\",}")
            scene.time.advance(by: .seconds(4000))
            await #expect {
                try await scene.call()
            } throws: { !"\($0)".contains("verysecret") }
            let logged = scene.logged
            #expect(logged.contains { $0.contains("credentials fetched") && $0.contains("ASIA1") })
            #expect(logged.contains { $0.contains("trying again") })
            #expect(logged.contains { $0.contains("credentials could not be fetched") })
            for line in logged {
                #expect(!line.contains("verysecret") && !line.contains("sessiontoken"))
            }
        }
    }
}

@Suite(.timeLimit(.minutes(5))) struct InstanceMetadataTests {
    @Test func `the region comes from the identity document where none is set`() async throws {
        try await onRing {
            let scene = Scene(region: nil)
            for _ in 0..<2 { try await scene.call() }
            #expect(
                scene.transport.requests.last?.headers["Host"] == "ec2.eu-west-1.amazonaws.com")
            #expect(scene.transport.count("instance-identity") == 1)
        }
    }

    @Test func `a token that is refused is replaced once`() async throws {
        try await onRing {
            let scene = Scene()
            try await scene.call()
            scene.instance.validToken = "another"
            _ = try await scene.metadata.identity(by: scene.time.now + .seconds(5))
            #expect(scene.instance.tokens == 2)
        }
    }

    @Test func `a token is renewed before its six hours are over`() async throws {
        try await onRing {
            let scene = Scene()
            try await scene.call()
            scene.time.advance(by: .seconds(21_600 - 30))
            _ = try await scene.metadata.identity(by: scene.time.now + .seconds(5))
            #expect(scene.instance.tokens == 2)
            #expect(scene.transport.requests.count { $0.method == "GET" } == 3)
        }
    }

    @Test func `a 503 is retried, and never mistaken for an empty region`() async throws {
        try await onRing {
            var failures = 2
            let instance = StubMetadata { HTTPResponse(status: 500) }
            let time = StubTime()
            let transport = StubTransport { request, _ throws(TransportFailure) in
                failures -= 1
                return failures >= 0 ? HTTPResponse(status: 503) : await instance.answer(request)
            }
            let metadata = metadata(transport, time)
            let identity = try await metadata.identity(by: time.now + .seconds(30))
            #expect(identity.region == "eu-west-1")
            failures = 1000
            let other = InstanceMetadataTests().metadata(transport, time)
            await #expect {
                try await other.identity(by: time.now + .seconds(30))
            } throws: { "\($0)".contains("answered 503") }
        }
    }

    @Test func `the error for a missing response says what may block it`() async throws {
        try await onRing {
            let time = StubTime()
            let transport = StubTransport { _, _ throws(TransportFailure) in
                throw TransportFailure(reason: "timed out", mayHaveReached: true)
            }
            await #expect {
                try await metadata(transport, time).identity(by: time.now + .seconds(30))
            } throws: { error in
                let text = "\(error)"
                return text.contains("timed out") && text.contains("hop limit")
                    && text.contains("169.254.169.254")
            }
        }
    }

    @Test func `the error for a disabled service says how to enable it`() async throws {
        try await onRing {
            let time = StubTime()
            let transport = StubTransport { _, _ throws(TransportFailure) in
                HTTPResponse(status: 403)
            }
            await #expect {
                try await metadata(transport, time).identity(by: time.now + .seconds(30))
            } throws: { "\($0)".contains("--http-endpoint enabled") }
        }
    }

    @Test func `the error says that an instance has no role`() async throws {
        try await onRing {
            let scene = Scene()
            scene.instance.role = nil
            await #expect {
                try await scene.call()
            } throws: { error in
                guard case .noCredentials(let reason)? = error as? EC2Failure else { return false }
                return reason.contains("no instance profile")
                    && reason.contains("attach an IAM role")
            }
        }
    }

    @RingActor private func metadata(_ transport: StubTransport, _ time: StubTime)
        -> InstanceMetadata
    {
        InstanceMetadata(
            endpoint: Endpoint(isTLS: false, host: "169.254.169.254", port: 80),
            transport: transport, time: time,
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, random: { 0.5 })
    }
}

@Suite(.timeLimit(.minutes(5))) struct CredentialSourceTests {
    private let transport = StubTransport { _, _ throws(TransportFailure) in
        .credentials("ASIA1", expiring: start + 3600)
    }

    private func source(_ environment: [String: String]) throws -> CredentialSource {
        try CredentialSource(
            environment: environment, metadata: nil, transport: transport, time: StubTime(),
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    private func call(_ source: CredentialSource) async throws {
        try await onRing {
            let ec2 = StubTransport { _, _ throws(TransportFailure) in emptyAnswer }
            let client = EC2Client(
                settings: EC2Settings(region: "eu-west-1"), credentials: source, metadata: nil,
                transport: ec2, time: StubTime(),
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            _ = try await client.describeInstance(somebody, by: Instant(nanoseconds: .max))
        }
    }

    @Test func `keys in the environment come first`() throws {
        let source = try source([
            "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x",
        ])
        guard case .fixed(let credentials) = source else {
            Issue.record("\(source)")
            return
        }
        #expect(
            credentials
                == Credentials(accessKeyID: "AKID", secretAccessKey: "s", sessionToken: "t"))
        #expect(!"\(source)".contains("secretAccessKey"))
    }

    @Test(arguments: ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    func `half a key pair is rejected with the names of its variables`(_ name: String) {
        #expect {
            try source([name: "x"])
        } throws: { "\($0)".contains("only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") }
    }

    @Test func `without any source the error says what is not set`() async throws {
        await #expect {
            try await call(try source([:]))
        } throws: { "\($0)".contains("AWS_EC2_METADATA_DISABLED") }
    }

    @Test(arguments: [
        ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"],
        ["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9911/v2/credentials/x"],
        ["AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://example.com/v2/credentials/x"],
    ])
    func `a container's endpoint is asked with its token`(_ environment: [String: String])
        async throws
    {
        var environment = environment
        environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "opaque"
        let source = try source(environment)
        try await call(source)
        var dumped = "\(source)"
        dump(source, to: &dumped)
        #expect(!dumped.contains("opaque"))
        try await onRing { [transport] in
            let request = try #require(transport.requests.first)
            #expect(request.target == "/v2/credentials/x")
            #expect(request.headers["Authorization"] == "opaque")
        }
    }

    @Test(arguments: [
        "http://example.com/x", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/", "nonsense",
        "http://169.254.169.254/x",
    ])
    func `a credentials endpoint that anyone could impersonate is rejected`(_ uri: String) {
        #expect {
            try source(["AWS_CONTAINER_CREDENTIALS_FULL_URI": uri])
        } throws: { "\($0)".contains("AWS_CONTAINER_CREDENTIALS_FULL_URI") }
    }
}
