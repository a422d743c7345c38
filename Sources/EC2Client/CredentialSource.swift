package import AWSWire
package import Base
import HTTPWire
package import Logging
import Ring

/// Where credentials come from.
package enum CredentialSource: Sendable {
    /// Keys from the environment.
    case fixed(Credentials)
    case container(ContainerCredentials)
    case instanceRole(InstanceMetadata)
    /// Nowhere; `reason` says where they were looked for.
    case none(reason: String)

    /// Uses the same order as the SDKs: keys in the environment, then a container's endpoint, then
    /// the instance's role. `metadata` is nil if the metadata service is disabled.
    package init(
        environment: [String: String], metadata: InstanceMetadata?, transport: any HTTPTransport,
        time: any TimeSource, log: Logger
    ) throws(OperationError) {
        func value(_ name: String) -> String? {
            guard let text = environment[name], !text.isEmpty else { return nil }
            return text
        }
        let (id, secret) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"))
        if let id, let secret {
            self = .fixed(
                Credentials(
                    accessKeyID: id, secretAccessKey: secret,
                    sessionToken: value("AWS_SESSION_TOKEN")))
        } else if id != nil || secret != nil {
            throw OperationError(
                .invalidInput, doing: "choose AWS credentials",
                found: "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set",
                advice: "set both, or neither to use the instance's role")
        } else if let (endpoint, target) = try ContainerCredentials.location(
            relativeURI: value("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            fullURI: value("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        {
            let service = LocalService(
                endpoint: endpoint, transport: transport, time: time, log: log,
                random: { Double.random(in: 0..<1) })
            self = .container(
                ContainerCredentials(
                    service: service, target: target,
                    authorization: value("AWS_CONTAINER_AUTHORIZATION_TOKEN")))
        } else if let metadata {
            self = .instanceRole(metadata)
        } else {
            self = .none(
                reason: "AWS_EC2_METADATA_DISABLED is set, and AWS_ACCESS_KEY_ID is not")
        }
    }
}

/// The credentials endpoint that ECS and EKS provide for a container.
///
/// Source: docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html.
package struct ContainerCredentials: Sendable {
    let service: LocalService
    let target: String
    let authorization: String?

    @RingActor func fetch(by deadline: Instant) async throws -> Credentials {
        var headers: HTTPHeaders = ["Accept": "application/json"]
        if let authorization { headers.append("Authorization", authorization) }
        let doing = "get credentials from \(service.endpoint)"
        let response: HTTPResponse
        do {
            let request = HTTPRequest(method: "GET", target: target, headers: headers)
            response = try await service.send(request, by: deadline)
        } catch let failure as TransportFailure {
            throw OperationError(.cloud, doing: doing, found: "\(failure)")
        }
        guard response.status == 200 else {
            throw OperationError(.cloud, doing: doing, found: "it answered \(response.status)")
        }
        do {
            return try Credentials(document: response.body)
        } catch {
            throw OperationError(.cloud, doing: doing, found: "\(error)")
        }
    }

    /// Nil if neither URI is set; the relative one has precedence.
    static func location(relativeURI: String?, fullURI: String?) throws(OperationError) -> (
        Endpoint, target: String
    )? {
        let location: (Endpoint, target: String)
        if let relativeURI {
            location = (Endpoint(isTLS: false, host: "169.254.170.2", port: 80), relativeURI)
        } else if let fullURI {
            location = try split(fullURI)
        } else {
            return nil
        }
        let target = location.target
        guard target.hasPrefix("/"), target.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw wrong("the URI's path is '\(target)'")
        }
        return location
    }

    /// Without TLS, only hosts that nobody can impersonate are allowed: loopback and the link-local
    /// endpoints.
    private static func split(_ uri: String) throws(OperationError) -> (Endpoint, target: String) {
        let afterScheme = uri.utf8.firstIndex(of: UInt8(ascii: ":")).map { uri[$0...].dropFirst(3) }
        let path = (afterScheme ?? "").drop { $0 != "/" }
        let endpoint: Endpoint
        do {
            endpoint = try Endpoint(url: String(uri[..<path.startIndex]))
        } catch {
            throw wrong("\(error)")
        }
        let local = ["localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"]
        let octets = endpoint.host.split(separator: ".", omittingEmptySubsequences: false)
        let isLoopback =
            octets.count == 4 && octets[0] == "127" && octets.allSatisfy { UInt8($0) != nil }
        guard endpoint.isTLS || isLoopback || local.contains(endpoint.host) else {
            throw wrong("'\(endpoint.host)' is neither local nor reached by https")
        }
        return (endpoint, path.isEmpty ? "/" : String(path))
    }

    private static func wrong(_ found: String) -> OperationError {
        OperationError(
            .invalidInput, doing: "use AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI",
            found: found)
    }
}

/// Shows where credentials come from, not the token that opens them.
extension ContainerCredentials: CustomStringConvertible, CustomReflectable {
    package var description: String { "container credentials at \(service.endpoint)" }

    package var customMirror: Mirror { Mirror(self, children: []) }
}
