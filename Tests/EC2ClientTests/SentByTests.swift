import AWSWire
import Base
import EC2Client
import HTTPWire
import Logging
import Ring
import TestSupport
import Testing

private let volume = VolumeID(literal: "vol-0123456789abcdef0")
private let owner = InstanceID(literal: "i-0bbbbbbbbbbbbbbb2")
private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
private let keys = Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "verysecret")

private let detachAnswer = HTTPResponse.xml(
    """
    <DetachVolumeResponse><volumeId>\(volume)</volumeId><instanceId>\(owner)</instanceId>
    <device>/dev/sdf</device><status>detaching</status></DetachVolumeResponse>
    """)
private let tagAnswer = HTTPResponse.xml(
    "<CreateTagsResponse><return>true</return></CreateTagsResponse>")

@RingActor private final class Record {
    var ended: [EC2Failure?] = []
}

private typealias Answer = Result<HTTPResponse, TransportFailure>

/// EC2, and how long each of its responses takes.
@RingActor private final class Scene {
    let time = StubTime()
    let transport: StubTransport
    let client: EC2Client
    private let record: Record
    var ended: [EC2Failure?] { record.ended }

    /// If there are no more responses, the last one is repeated.
    init(_ answers: [Answer], each delay: Duration = .zero, credentials: CredentialSource? = nil) {
        var rest = answers[...]
        let (time, record) = (time, Record())
        self.record = record
        transport = StubTransport { _, _ throws(TransportFailure) in
            time.advance(by: delay)
            let answer = rest.first ?? answers[answers.count - 1]
            rest = rest.dropFirst()
            return try answer.get()
        }
        client = EC2Client(
            settings: EC2Settings(region: "eu-west-1"), credentials: credentials ?? .fixed(keys),
            metadata: nil, transport: transport, time: time, log: quiet, random: { 0.5 })
        client.whenEnded = { record.ended.append($0) }
    }

    /// `patience` is the time within which the request must be sent.
    func detach(within patience: Duration) async throws {
        _ = try await client.detach(
            volume, from: owner, force: false, sentBy: time.now + patience,
            by: time.now + .seconds(60))
    }

    func tag(within patience: Duration) async throws {
        try await client.setTags(
            ["k": "v"], on: volume, sentBy: time.now + patience, by: time.now + .seconds(60))
    }

    func failure(_ call: (Scene) async throws -> Void) async throws -> EC2Failure {
        let error = await #expect(throws: EC2Failure.self) { try await call(self) }
        return try #require(error)
    }
}

private func failing(_ reason: String, reached: Bool) -> Answer {
    .failure(TransportFailure(reason: reason, mayHaveReached: reached))
}

extension EC2Failure {
    fileprivate var isOutdated: Bool { if case .outdated = self { true } else { false } }
    fileprivate var mayHaveApplied: Bool {
        if case .unanswered(_, mayHaveApplied: true) = self { true } else { false }
    }
}

@Suite(.timeLimit(.minutes(5))) struct SentByTests {
    @Test(arguments: [
        .success(.error("RequestLimitExceeded", status: 503)),
        .success(.error("InternalError", status: 500)),
        .success(.error("Unavailable", status: 503)), .success(HTTPResponse(status: 502)),
        .success(.xml("<Detach")), failing("connection reset", reached: true),
        failing("connection refused", reached: false),
    ])
    func `a detachment is sent once, whatever the outcome`(
        _ answer: Result<HTTPResponse, TransportFailure>
    ) async throws {
        try await onRing {
            let scene = Scene([answer, .success(detachAnswer)])
            _ = try await scene.failure { try await $0.detach(within: .seconds(50)) }
            #expect(scene.transport.count("DetachVolume") == 1)
        }
    }

    @Test func `throttling of a detachment is reported with EC2's code`() async throws {
        try await onRing {
            let scene = Scene([.success(.error("RequestLimitExceeded", status: 503))])
            let failure = try await scene.failure { try await $0.detach(within: .seconds(50)) }
            #expect(failure.code == "RequestLimitExceeded")
        }
    }

    @Test(arguments: [
        .success(.error("InternalError", status: 500)), .success(.xml("<Detach")),
        failing("connection reset", reached: true),
    ])
    func `a detachment whose answer is lost may have been applied`(
        _ answer: Result<HTTPResponse, TransportFailure>
    ) async throws {
        try await onRing {
            let scene = Scene([answer])
            let failure = try await scene.failure { try await $0.detach(within: .seconds(50)) }
            #expect(failure.mayHaveApplied)
        }
    }

    @Test func `a detachment whose turn comes too late for its facts is not sent`() async throws {
        try await onRing {
            let scene = Scene([.success(detachAnswer)])
            for _ in 0..<50 { try await scene.detach(within: .seconds(50)) }
            let begin = scene.time.now
            let failure = try await scene.failure {
                try await $0.detach(within: .milliseconds(100))
            }
            #expect(failure.isOutdated)
            #expect(scene.transport.requests.count == 50)
            #expect(scene.time.now == begin)
        }
    }

    @Test func `a detachment that waited long for credentials is not sent`() async throws {
        try await onRing {
            let time = StubTime()
            let role = StubMetadata(credentials: {
                time.advance(by: .seconds(1))
                return .credentials("ASIA1", expiring: time.unixSeconds + 3600)
            })
            let transport = StubTransport { request, endpoint throws(TransportFailure) in
                endpoint.isTLS ? detachAnswer : await role.answer(request)
            }
            let metadata = InstanceMetadata(
                endpoint: Endpoint(isTLS: false, host: "169.254.169.254", port: 80),
                transport: transport, time: time, log: quiet, random: { 0.5 })
            let client = EC2Client(
                settings: EC2Settings(region: "eu-west-1"), credentials: .instanceRole(metadata),
                metadata: metadata, transport: transport, time: time, log: quiet)
            func detach() async throws {
                _ = try await client.detach(
                    volume, from: owner, force: false, sentBy: time.now + .milliseconds(200),
                    by: time.now + .seconds(60))
            }
            let error = await #expect(throws: EC2Failure.self) { try await detach() }
            #expect(try #require(error).isOutdated)
            #expect(transport.count("DetachVolume") == 0)
            // The credentials are available now.
            try await detach()
            #expect(transport.count("DetachVolume") == 1)
        }
    }

    @Test func `a call whose connection takes too long counts as not sent`() async throws {
        try await onRing {
            let scene = Scene(
                [failing("it could not be sent", reached: false)], each: .milliseconds(300))
            let (latest, failure) = (
                scene.time.now + .milliseconds(200),
                try await scene.failure { try await $0.detach(within: .milliseconds(200)) }
            )
            #expect(failure.isOutdated)
            #expect(scene.transport.latest == [latest])
        }
    }

    @Test func `a detachment that is signed anew for a wrong clock is still bound to its facts`()
        async throws
    {
        try await onRing {
            let real = StubTime().unixSeconds - 7200
            let refused = Answer.success(.error("AuthFailure", status: 401, date: real))
            for (delay, count) in [(Duration.milliseconds(50), 2), (.milliseconds(300), 1)] {
                let scene = Scene([refused, .success(detachAnswer)], each: delay)
                do {
                    try await scene.detach(within: .milliseconds(200))
                    #expect(count == 2)
                } catch let failure as EC2Failure {
                    #expect(failure.isOutdated && count == 1)
                }
                #expect(scene.transport.count("DetachVolume") == count)
            }
        }
    }

    @Test func `tags are written again while their facts are new, and no longer`() async throws {
        try await onRing {
            let throttled = Answer.success(.error("RequestLimitExceeded", status: 503))
            let scene = Scene([throttled, throttled, .success(tagAnswer)])
            try await scene.tag(within: .seconds(5))
            #expect(scene.transport.count("CreateTags") == 3)

            let late = Scene([throttled])
            let latest = late.time.now + .seconds(2)
            let failure = try await late.failure { try await $0.tag(within: .seconds(2)) }
            #expect(failure.code == "RequestLimitExceeded")
            #expect(late.transport.count("CreateTags") > 1)
            #expect(late.time.now <= latest)
        }
    }

    @Test func `tags whose answer was lost late are not written again`() async throws {
        try await onRing {
            let lost = failing("connection reset", reached: true)
            let scene = Scene([lost, .success(tagAnswer)], each: .milliseconds(300))
            let failure = try await scene.failure { try await $0.tag(within: .milliseconds(200)) }
            #expect(failure.mayHaveApplied)
            #expect(scene.transport.count("CreateTags") == 1)
        }
    }

    @Test func `a call that was not sent says nothing about EC2's health`() async throws {
        try await onRing {
            let scene = Scene([failing("it could not be sent", reached: false)], each: .seconds(1))
            _ = try await scene.failure { try await $0.detach(within: .milliseconds(200)) }
            #expect(scene.ended.isEmpty)
            _ = try await scene.failure { try await $0.detach(within: .seconds(50)) }
            #expect(scene.ended.count == 1)
        }
    }
}
