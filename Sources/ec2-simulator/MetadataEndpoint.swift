import AWSWire
import Base
import EC2Model
import HTTPWire
import JSON
import Ring

/// One instance's metadata service, version 2 only.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html.
@RingActor
final class MetadataEndpoint {
    private let simulator: Simulator
    private let instance: InstanceID
    /// When a session token expires.
    private var tokens: [String: Instant] = [:]

    private static let tokenPath = "/latest/api/token"
    private static let timeToLive = "X-aws-ec2-metadata-token-ttl-seconds"
    private static let timeToLiveMax = 21600

    init(_ simulator: Simulator, _ instance: InstanceID) {
        self.simulator = simulator
        self.instance = instance
    }

    func handle(_ request: HTTPRequest) async -> Outcome {
        let path = String(request.path)
        simulator.counters.imds[path, default: 0] += 1
        let fault = simulator.region.faults.take("IMDS", subject: path)
        if fault != nil { simulator.counters.faults += 1 }
        switch fault {
        case .lostBefore: return .drop
        case .reset: return .reset
        case .hang: return .hang
        case .error(let error): return .answer(Self.failure(error.status))
        case .lostAfter:
            _ = answer(request, path)
            return .drop
        case .truncated: return .truncated(answer(request, path))
        case .slow(let milliseconds):
            return .trickled(answer(request, path), .milliseconds(milliseconds))
        default: return .answer(answer(request, path))
        }
    }

    private func answer(_ request: HTTPRequest, _ path: String) -> HTTPResponse {
        guard simulator.region.instances[instance]?.state == .running else {
            return Self.failure(503)
        }
        if path == Self.tokenPath { return makeToken(request) }
        guard request.method == "GET" || request.method == "HEAD" else { return Self.failure(405) }
        guard let token = request.headers["X-aws-ec2-metadata-token"],
            let expiry = tokens[token], expiry > RingActor.ring.now
        else { return Self.failure(401) }
        guard let text = document(path) else { return Self.failure(404) }
        return HTTPResponse(status: 200, contentType: "text/plain", text: text)
    }

    private func makeToken(_ request: HTTPRequest) -> HTTPResponse {
        guard request.method == "PUT" else { return Self.failure(405) }
        // A request through a proxy gets no token.
        if request.headers.contains("X-Forwarded-For") { return Self.failure(403) }
        guard let seconds = request.headers[Self.timeToLive].flatMap({ Int($0) }),
            (1...Self.timeToLiveMax).contains(seconds)
        else { return Self.failure(400) }
        let now = RingActor.ring.now
        tokens = tokens.filter { $0.value > now }
        let token = randomText(54) + "=="
        tokens[token] = now + .seconds(seconds)
        var response = HTTPResponse(status: 200, contentType: "text/plain", text: token)
        response.headers[Self.timeToLive] = String(seconds)
        return response
    }

    /// The service's errors are short HTML pages.
    private static func failure(_ status: Int) -> HTTPResponse {
        HTTPResponse(
            status: status, contentType: "text/html",
            text: "<html><head><title>\(status)</title></head><body>\(status)</body></html>")
    }

    /// A path may or may not end with a slash.
    private func document(_ path: String) -> String? {
        let path = path.hasSuffix("/") ? String(path.dropLast()) : path
        guard let described = simulator.region.instances[instance] else { return nil }
        let role = simulator.credentials.role
        switch path {
        case "/latest/dynamic/instance-identity/document": return identity(described)
        case "/latest/meta-data/iam/security-credentials": return role
        case "/latest/meta-data/iam/security-credentials/\(role)": return credentials()
        case "/latest/meta-data/instance-id": return instance.description
        case "/latest/meta-data/instance-type": return described.type
        case "/latest/meta-data/placement/availability-zone": return described.zone
        case "/latest/meta-data/placement/region": return simulator.region.name
        case "/latest/meta-data/services/domain": return "amazonaws.com"
        default: return nil
        }
    }

    private func identity(_ described: Instance) -> String {
        let document: JSONValue = [
            "accountId": .string(simulator.region.accountID), "architecture": "x86_64",
            "availabilityZone": .string(described.zone), "billingProducts": .null,
            "devpayProductCodes": .null, "imageId": "ami-00000000000000001",
            "instanceId": .string(instance.description), "instanceType": .string(described.type),
            "kernelId": .null, "marketplaceProductCodes": .null,
            "pendingTime": .string(rfc3339(described.launchedAt)), "privateIp": "127.0.0.1",
            "ramdiskId": .null, "region": .string(simulator.region.name), "version": "2017-09-30",
        ]
        return String(decoding: document.serialised(), as: UTF8.self)
    }

    private func credentials() -> String {
        let issued = simulator.credentials.issue(to: instance, at: simulator.now.unixSeconds)
        let document: JSONValue = [
            "Code": "Success", "LastUpdated": .string(rfc3339(issued.issuedAt)),
            "Type": "AWS-HMAC", "AccessKeyId": .string(issued.credentials.accessKeyID),
            "SecretAccessKey": .string(issued.credentials.secretAccessKey),
            "Token": .string(issued.credentials.sessionToken ?? ""),
            "Expiration": .string(rfc3339(issued.credentials.expiration ?? 0)),
        ]
        return String(decoding: document.serialised(), as: UTF8.self)
    }
}

private func rfc3339(_ unixSeconds: Int64) -> String { CivilTime(unixSeconds: unixSeconds).rfc3339 }
