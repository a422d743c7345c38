import Base
import HTTPClient
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

/// A client that trusts the tests' CA.
@RingActor
func makeClient(
    proxies: ProxySettings = .none, resolver: Resolver = Resolver(),
    limits: HTTPClient.TimeLimits = .patient()
) throws -> HTTPClient {
    let ca = try TestCertificates.shared.get().ca
    return HTTPClient(
        trust: {
            try await RingActor.ring.blocking { () throws(TLSError) in try .client(caFile: ca) }
        },
        proxies: proxies, resolver: resolver, limits: limits)
}

@RingActor
func serverContext() throws -> TLSContext {
    let (certificate, key) = try TestCertificates.shared.get().good
    return try .server(certificate: certificate, key: key)
}

extension HTTPClient {
    /// The body of the response to a GET, with plenty of time.
    func get(
        _ origin: Origin, _ target: String = "/", bodyMax: Int = 1 << 20
    ) async throws -> String {
        let response = try await send(
            HTTPRequest(method: "GET", target: target), to: origin, by: soon, bodyMax: bodyMax)
        #expect(response.status == 200)
        return String(decoding: response.body, as: UTF8.self)
    }

    /// How a request fails.
    func failure(
        _ origin: Origin, method: String = "GET", by deadline: Instant? = nil,
        bodyMax: Int = 1 << 20, isIdempotent: Bool? = nil
    ) async throws -> HTTPClientError {
        let response: HTTPResponse
        do {
            response = try await send(
                HTTPRequest(method: method, target: "/"), to: origin, by: deadline ?? soon,
                bodyMax: bodyMax, isIdempotent: isIdempotent)
        } catch {
            return error
        }
        throw Unexpected(description: "an answer: \(response.status)")
    }
}

struct Unexpected: Error { var description: String }

/// How long a test waits for something that must happen. It only distinguishes a hang from a slow
/// machine.
let patience: Duration = .seconds(120)

var soon: Instant { RingActor.ring.now + patience }

extension HTTPClient.TimeLimits {
    /// Limits that even a slow machine does not reach, except for the one that is set.
    static func patient(
        _ limit: WritableKeyPath<Self, Duration>? = nil, _ duration: Duration = patience
    ) -> Self {
        var limits = Self()
        for each in [\Self.connect, \.handshake, \.head, \.response] {
            limits[keyPath: each] = patience
        }
        if let limit { limits[keyPath: limit] = duration }
        return limits
    }
}

func origin(_ scheme: Origin.Scheme, _ host: String, _ port: UInt16) throws -> Origin {
    try #require(Origin(scheme, host: host, port: port))
}
