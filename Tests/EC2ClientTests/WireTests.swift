import AWSWire
import Base
import EC2Client
import HTTPClient
import HTTPServer
import HTTPWire
import Logging
import Ring
import TLS
import TestSupport
import Testing

private let volume = VolumeID(literal: "vol-0123456789abcdef0")
private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
private let keys = Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "verysecret")

/// EC2 over TLS on loopback, which accepts only requests that are signed with `keys`.
@RingActor private final class Server {
    let endpoint: Endpoint
    let client: HTTPClient
    private let server: HTTPServer
    private let signer = SigV4(sha256: Digest.sha256) { HMAC.sha256(key: $0, data: $1) }

    init() throws {
        let certificates = try TestCertificates.shared.get()
        let listener = try Listener(address: .ipv4(.loopback, port: 0))
        endpoint = try Endpoint(url: "https://127.0.0.1:\(listener.port)")
        client = HTTPClient(trust: { try TLSContext.client(caFile: certificates.ca) })
        let good = certificates.good
        let signer = signer
        server = HTTPServer(
            listener: listener,
            tls: try TLSContext.server(certificate: good.certificate, key: good.key)
        ) { Self.answer($0, signer) }
    }

    func serve(_ body: @RingActor () async throws -> Void) async throws {
        let server = server
        RingActor.spawn { try? await server.run() }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        await server.stop(by: RingActor.ring.now)
        try result.get()
    }

    private static func answer(_ request: HTTPRequest, _ signer: SigV4) -> HTTPResponse {
        guard let header = request.headers["Authorization"],
            let authorization = SigV4.Authorization(header),
            let timestamp = request.headers["X-Amz-Date"]
        else { return .error("MissingAuthenticationToken", status: 403) }
        let received = SigV4.Request(
            method: request.method, path: String(request.path), query: "",
            headers: request.headers.map { $0 }, body: request.body)
        let signature = signer.signature(
            of: received, signedHeaders: Set(authorization.signedHeaders), timestamp: timestamp,
            scope: authorization.scope, secretAccessKey: keys.secretAccessKey)
        guard signature == authorization.signature else {
            return .error("SignatureDoesNotMatch", status: 403)
        }
        return .xml("<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>")
    }
}

@Suite(.timeLimit(.minutes(5))) struct WireTests {
    @Test func `a server that checks signatures accepts the calls on one connection`()
        async throws
    {
        try await onRing {
            let server = try Server()
            let client = EC2Client(
                settings: EC2Settings(region: "eu-west-1", endpoint: server.endpoint),
                credentials: .fixed(keys), metadata: nil, transport: server.client,
                time: RingActor.ring, log: quiet)
            try await server.serve {
                for _ in 0..<20 {
                    let deadline = RingActor.ring.now + .seconds(120)
                    let found = try await client.describeVolume(volume, by: deadline)
                    #expect(found == nil)
                }
            }
            #expect(server.client.statistics.connections == 1)
        }
    }

    @Test func `another secret is refused with EC2's code`() async throws {
        try await onRing {
            let server = try Server()
            var wrong = keys
            wrong.secretAccessKey = "another"
            let client = EC2Client(
                settings: EC2Settings(region: "eu-west-1", endpoint: server.endpoint),
                credentials: .fixed(wrong), metadata: nil, transport: server.client,
                time: RingActor.ring, log: quiet)
            try await server.serve {
                await #expect {
                    try await client.describeVolume(volume, by: RingActor.ring.now + .seconds(120))
                } throws: { ($0 as? EC2Failure)?.code == "SignatureDoesNotMatch" }
            }
        }
    }

    @Test func `without a listener a call counts as not sent`() async throws {
        try await onRing {
            let listener = try Listener(address: .ipv4(.loopback, port: 0))
            let endpoint = try Endpoint(url: "http://127.0.0.1:\(listener.port)")
            listener.close()
            let http = HTTPClient(trust: { throw CancellationError() })
            let client = EC2Client(
                settings: EC2Settings(region: "eu-west-1", endpoint: endpoint),
                credentials: .fixed(keys), metadata: nil, transport: http, time: RingActor.ring,
                log: quiet)
            let instance = InstanceID(literal: "i-0123456789abcdef0")
            await #expect {
                try await client.attach(
                    volume, to: instance, as: "/dev/sdf", by: RingActor.ring.now + .seconds(120))
            } throws: { error in
                if case .unanswered(_, mayHaveApplied: false)? = error as? EC2Failure {
                    true
                } else {
                    false
                }
            }
        }
    }
}
