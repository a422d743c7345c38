package import AWSWire
package import Base
import HTTPWire
package import Logging
package import Ring

/// The instance metadata service; only IMDSv2 is used.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html. Errors are
/// `OperationError` with the reason `.cloud`, and say what can be done about them.
@RingActor package final class InstanceMetadata {
    private static let tokenLifetime = 21_600

    private struct Token {
        var text: String
        var expiry: Instant
    }

    private let service: LocalService
    private let time: any TimeSource
    private var token: Token?
    private let tokenFetch = SingleFlight<String>()
    private var knownIdentity: InstanceIdentity?

    /// The transport must not use a proxy: the service would answer for the proxy's host.
    package nonisolated init(
        endpoint: Endpoint, transport: any HTTPTransport, time: any TimeSource, log: Logger,
        random: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) }
    ) {
        service = LocalService(
            endpoint: endpoint, transport: transport, time: time, log: log, random: random)
        self.time = time
    }

    /// This instance's identity. Fetched once: it does not change while the instance runs.
    package func identity(by deadline: Instant) async throws -> InstanceIdentity {
        if let knownIdentity { return knownIdentity }
        let doing = "read this instance's identity"
        let response = try await get("/latest/dynamic/instance-identity/document", doing, deadline)
        guard response.status == 200 else { throw unexpected(response, doing) }
        do {
            let identity = try InstanceIdentity(document: response.body)
            knownIdentity = identity
            return identity
        } catch {
            throw OperationError(.cloud, doing: doing, found: "\(error)")
        }
    }

    /// The current credentials of the instance profile's role.
    package func credentials(by deadline: Instant) async throws -> Credentials {
        let doing = "get credentials of the instance's role"
        let path = "/latest/meta-data/iam/security-credentials/"
        let list = try await get(path, doing, deadline)
        if list.status == 404 { throw noInstanceProfile(doing) }
        guard list.status == 200 else { throw unexpected(list, doing) }
        guard let role = instanceProfileRole(list: list.body) else {
            throw noInstanceProfile(doing)
        }
        let response = try await get(path + role, doing, deadline)
        guard response.status == 200 else { throw unexpected(response, doing) }
        do {
            return try Credentials(document: response.body)
        } catch {
            throw OperationError(
                .cloud, doing: doing, found: "\(error)",
                advice: "check the role of the instance profile and its trust policy")
        }
    }

    /// A token that the service no longer accepts is replaced once.
    private func get(_ path: String, _ doing: String, _ deadline: Instant) async throws
        -> HTTPResponse
    {
        for isFirst in [true, false] {
            let token = try await currentToken(doing)
            let request = HTTPRequest(
                method: "GET", target: path, headers: ["X-aws-ec2-metadata-token": token])
            let response = try await send(request, doing, deadline)
            guard response.status == 401, isFirst else { return response }
            if self.token?.text == token { self.token = nil }
        }
        preconditionFailure("the second answer is returned whatever it is")
    }

    private func currentToken(_ doing: String) async throws -> String {
        if let token, time.now < token.expiry { return token.text }
        return try await tokenFetch.run { [self] in
            let request = HTTPRequest(
                method: "PUT", target: "/latest/api/token",
                headers: ["X-aws-ec2-metadata-token-ttl-seconds": "\(Self.tokenLifetime)"])
            let deadline = time.now + Limit.credentialsTimeMax
            let asked = time.now
            let response = try await send(request, doing, deadline)
            let text = String(decoding: response.body, as: UTF8.self)
            guard response.status == 200, isToken(text) else { throw unexpected(response, doing) }
            let lifetime = response.headers["X-aws-ec2-metadata-token-ttl-seconds"].flatMap(
                Int.init)
            // A minute early, so that a request in transit still has a valid token.
            let seconds = min(max(lifetime ?? Self.tokenLifetime, 60), Self.tokenLifetime) - 60
            token = Token(text: text, expiry: asked + .seconds(seconds))
            return text
        }
    }

    private func send(_ request: HTTPRequest, _ doing: String, _ deadline: Instant) async throws
        -> HTTPResponse
    {
        do {
            return try await service.send(request, by: deadline)
        } catch let failure as TransportFailure {
            throw unreachable(failure, doing)
        }
    }

    private func unexpected(_ response: HTTPResponse, _ doing: String) -> OperationError {
        let isRefused = response.status == 403
        return OperationError(
            .cloud, doing: doing,
            found: "the metadata service at \(service.endpoint) answered \(response.status)"
                + (isRefused ? " (access to it is disabled)" : ""),
            advice: isRefused
                ? "enable it: aws ec2 modify-instance-metadata-options --http-endpoint enabled"
                : nil)
    }

    private func unreachable(_ failure: TransportFailure, _ doing: String) -> OperationError {
        OperationError(
            .cloud, doing: doing,
            found: "the metadata service at \(service.endpoint) did not answer: \(failure)",
            advice:
                "check that it is enabled (--http-endpoint enabled), that the plugin uses the "
                + "host's network or the hop limit is 2 or more (--http-put-response-hop-limit 2), "
                + "and that no firewall rule blocks it; or set REGION, AVAILABILITY_ZONE and "
                + "INSTANCE_ID, which replace it"
        )
    }

    private func noInstanceProfile(_ doing: String) -> OperationError {
        OperationError(
            .cloud, doing: doing, found: "the instance has no instance profile",
            advice: "attach an IAM role with the plugin's policy to the instance, or set "
                + "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    }
}

/// Whether the text can be sent in a header. A web page that something other than the service
/// returned cannot.
private func isToken(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.count <= 1024 && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
}
