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
    limits: HTTPClient.TimeLimits = .init()
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
    /// The body of the answer to a GET, with plenty of time.
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

var soon: Instant { RingActor.ring.now + .seconds(20) }

func origin(_ scheme: Origin.Scheme, _ host: String, _ port: UInt16) throws -> Origin {
    try #require(Origin(scheme, host: host, port: port))
}
