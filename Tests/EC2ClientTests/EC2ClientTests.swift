import AWSWire
import Base
import EC2Client
import HTTPWire
import Logging
import Ring
import TestSupport
import Testing

private let volume = VolumeID(literal: "vol-0123456789abcdef0")
private let instance = InstanceID(literal: "i-0123456789abcdef0")
private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
private let fixed = Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "verysecret")

private let volumesAnswer = HTTPResponse.xml(
    """
    <DescribeVolumesResponse><volumeSet><item><volumeId>\(volume)</volumeId><size>1</size>
    <availabilityZone>eu-west-1a</availabilityZone><status>available</status></item></volumeSet>
    </DescribeVolumesResponse>
    """)
private let attachAnswer = HTTPResponse.xml(
    """
    <AttachVolumeResponse><volumeId>\(volume)</volumeId><instanceId>\(instance)</instanceId>
    <device>/dev/sdf</device><status>attaching</status></AttachVolumeResponse>
    """)

/// A client with fixed keys whose requests are answered one after the other.
@RingActor private struct Scene {
    let time = StubTime()
    let transport: StubTransport
    let client: EC2Client

    var deadline: Instant { time.now + .seconds(60) }

    init(
        _ answers: [Result<HTTPResponse, TransportFailure>],
        settings: EC2Settings = EC2Settings(region: "eu-west-1")
    ) {
        var rest = answers[...]
        transport = StubTransport { _, _ throws(TransportFailure) in
            guard let next = rest.popFirst() else {
                throw TransportFailure(reason: "the script has ended", mayHaveReached: false)
            }
            return try next.get()
        }
        client = EC2Client(
            settings: settings, credentials: .fixed(fixed), metadata: nil, transport: transport,
            time: time, log: quiet, random: { 0.5 })
    }

    func attach() async throws -> VolumeAttachment {
        try await client.attach(volume, to: instance, as: "/dev/sdf", by: deadline)
    }
}

private let lost = Result<HTTPResponse, TransportFailure>.failure(
    TransportFailure(reason: "connection reset", mayHaveReached: true))
private let unreached = Result<HTTPResponse, TransportFailure>.failure(
    TransportFailure(reason: "connection refused", mayHaveReached: false))
private let throttled = Result<HTTPResponse, TransportFailure>.success(
    .error("RequestLimitExceeded", status: 503))

@Suite(.timeLimit(.minutes(5))) struct EC2ClientTests {
    @Test func `a call is one signed request to the region's endpoint`() async throws {
        try await onRing {
            let scene = Scene([.success(volumesAnswer)])
            let found = try await scene.client.describeVolume(volume, by: scene.deadline)
            #expect(found?.state == .available)
            let request = try #require(scene.transport.requests.first)
            #expect(scene.transport.requests.count == 1)
            #expect(request.method == "POST" && request.target == "/")
            #expect(request.headers["Host"] == "ec2.eu-west-1.amazonaws.com")
            let header = try #require(request.headers["Authorization"])
            let authorization = try #require(SigV4.Authorization(header))
            #expect(authorization.accessKeyID == "AKIDEXAMPLE")
            #expect(authorization.scope.service == "ec2")
            #expect(authorization.signedHeaders == ["content-type", "host", "x-amz-date"])
        }
    }

    @Test func `a volume that does not exist is nil`() async throws {
        try await onRing {
            let empty = "<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>"
            let scene = Scene([.success(.xml(empty))])
            let found = try await scene.client.describeVolume(volume, by: scene.deadline)
            #expect(found == nil)
        }
    }

    @Test func `an attach is retried while EC2 throttles it`() async throws {
        try await onRing {
            let scene = Scene(
                Array(repeating: throttled, count: 5) + [.success(attachAnswer)])
            let attachment = try await scene.attach()
            #expect(attachment.state == .attaching)
            #expect(scene.transport.count("AttachVolume") == 6)
        }
    }

    @Test func `throttling ends at the deadline with EC2's own error`() async throws {
        try await onRing {
            let scene = Scene(Array(repeating: throttled, count: 1000))
            let deadline = scene.deadline
            await #expect {
                try await scene.client.attach(volume, to: instance, as: "/dev/sdf", by: deadline)
            } throws: { ($0 as? EC2Failure)?.code == "RequestLimitExceeded" }
            #expect(scene.time.now <= deadline)
        }
    }

    @Test func `28 attachments at once do not wait for each other`() async throws {
        try await onRing {
            let scene = Scene(Array(repeating: .success(attachAnswer), count: 28))
            let begin = scene.time.now
            for _ in 0..<28 { _ = try await scene.attach() }
            #expect(scene.time.now == begin)
        }
    }

    @Test func `a call whose turn comes after the deadline fails at once, and says why`()
        async throws
    {
        try await onRing {
            let scene = Scene(Array(repeating: .success(attachAnswer), count: 51))
            for _ in 0..<50 { _ = try await scene.attach() }
            let (begin, deadline) = (scene.time.now, scene.time.now + .milliseconds(100))
            let error = await #expect(throws: EC2Failure.self) {
                try await scene.client.attach(volume, to: instance, as: "/dev/sdf", by: deadline)
            }
            #expect("\(try #require(error))".contains("throttling"))
            guard case .unanswered(_, mayHaveApplied: false)? = error else {
                Issue.record("it was not sent: \(String(describing: error))")
                return
            }
            #expect(scene.time.now == begin)
            #expect(scene.transport.requests.count == 50)
            _ = try await scene.attach()
            #expect(scene.time.now > begin)
        }
    }

    @Test func `after throttling, calls of that action are sent more slowly, others are not`()
        async throws
    {
        try await onRing {
            let scene = Scene(
                [
                    throttled, .success(attachAnswer), .success(attachAnswer),
                    .success(volumesAnswer),
                ]
            )
            _ = try await scene.attach()
            let begin = scene.time.now
            _ = try await scene.attach()
            #expect(scene.time.now - begin >= .milliseconds(300))
            let (then, deadline) = (scene.time.now, scene.deadline)
            _ = try await scene.client.describeVolume(volume, by: deadline)
            #expect(scene.time.now == then)
        }
    }

    @Test(arguments: [
        lost, .success(.error("InternalError", status: 500)), .success(.xml("<Atta")),
    ])
    func `an attach whose response is lost is sent once, and may have been applied`(
        _ answer: Result<HTTPResponse, TransportFailure>
    ) async throws {
        try await onRing {
            let scene = Scene([answer, .success(attachAnswer)])
            await #expect {
                try await scene.attach()
            } throws: { error in
                if case .unanswered(_, mayHaveApplied: true)? = error as? EC2Failure {
                    true
                } else {
                    false
                }
            }
            #expect(scene.transport.requests.count == 1)
        }
    }

    @Test func `an attach that was never sent is sent again`() async throws {
        try await onRing {
            let scene = Scene([unreached, .success(attachAnswer)])
            let attachment = try await scene.attach()
            #expect(attachment.device == "/dev/sdf")
        }
    }

    @Test(arguments: [
        lost, unreached, throttled, .success(.error("Unavailable", status: 503)),
        .success(.xml("<DescribeVolumesResponse>")),
        .success(HTTPResponse(status: 502, text: "Bad Gateway")),
    ])
    func `a read is retried`(_ answer: Result<HTTPResponse, TransportFailure>) async throws {
        try await onRing {
            let scene = Scene([answer, .success(volumesAnswer)])
            let found = try await scene.client.describeVolume(volume, by: scene.deadline)
            #expect(found != nil)
            #expect(scene.transport.requests.count == 2)
        }
    }

    @Test func `a malformed response is reported with what is wrong with it`()
        async throws
    {
        try await onRing {
            let scene = Scene(Array(repeating: .success(.xml("<html/>")), count: 3))
            await #expect(
                throws: EC2Failure.malformed(
                    reason: "expected <DescribeVolumesResponse>, found <html>")
            ) { try await scene.client.describeVolume(volume, by: scene.deadline) }
        }
    }

    @Test func `every attempt is signed for its own time`() async throws {
        try await onRing {
            let scene = Scene(Array(repeating: throttled, count: 8) + [.success(volumesAnswer)])
            _ = try await scene.client.describeVolume(volume, by: scene.deadline)
            let dates = scene.transport.requests.compactMap { $0.headers["X-Amz-Date"] }
            #expect(Set(dates).count > 3)
        }
    }

    @Test func `a refusal reaches the caller with its code at once`() async throws {
        try await onRing {
            let scene = Scene([.success(.error("VolumeInUse", status: 400))])
            await #expect(
                throws: EC2Failure.refused(code: "VolumeInUse", message: "m", requestID: "r-1")
            ) { try await scene.attach() }
        }
    }

    @Test func `nothing is sent after the deadline`() async throws {
        try await onRing {
            let scene = Scene([.success(volumesAnswer)])
            await #expect(throws: EC2Failure.self) {
                try await scene.client.describeVolume(volume, by: scene.time.now)
            }
            #expect(scene.transport.requests.isEmpty)
        }
    }

    @Test func `a wrong clock is corrected by EC2's, once, for all later calls`() async throws {
        try await onRing {
            let real = StubTime().unixSeconds - 7200
            let scene = Scene([
                .success(.error("AuthFailure", status: 401, date: real)), .success(volumesAnswer),
                .success(volumesAnswer),
            ])
            _ = try await scene.client.describeVolume(volume, by: scene.deadline)
            _ = try await scene.client.describeVolume(volume, by: scene.deadline)
            let dates = scene.transport.requests.map { $0.headers["X-Amz-Date"] }
            let expected = CivilTime(unixSeconds: real).basic
            #expect(dates.dropFirst() == [expected, expected])
        }
    }

    @Test func `a clock that is right is not blamed for a wrong key`() async throws {
        try await onRing {
            let now = StubTime().unixSeconds
            let scene = Scene([.success(.error("AuthFailure", status: 401, date: now))])
            await #expect {
                try await scene.attach()
            } throws: { ($0 as? EC2Failure)?.code == "AuthFailure" }
        }
    }

    @Test func `tags are written and removed`() async throws {
        try await onRing {
            let scene = Scene([
                .success(.xml("<CreateTagsResponse><return>true</return></CreateTagsResponse>")),
                .success(.xml("<DeleteTagsResponse><return>true</return></DeleteTagsResponse>")),
            ])
            try await scene.client.setTags(
                ["k": "v"], on: volume, sentBy: scene.deadline, by: scene.deadline)
            try await scene.client.removeTag(
                "k", value: "v", from: volume, sentBy: scene.deadline, by: scene.deadline)
            #expect(scene.transport.count("CreateTags") == 1)
            #expect(scene.transport.count("DeleteTags") == 1)
        }
    }

    @Test func `an endpoint's path and port are used and signed`() async throws {
        try await onRing {
            var settings = EC2Settings(region: "eu-west-1")
            settings.endpoint = try Endpoint(url: "https://127.0.0.1:8443/ec2/")
            let scene = Scene([.success(volumesAnswer)], settings: settings)
            _ = try await scene.client.describeVolume(volume, by: scene.deadline)
            #expect(scene.transport.requests.first?.target == "/ec2/")
            #expect(scene.transport.requests.first?.headers["Host"] == "127.0.0.1:8443")
        }
    }
}
