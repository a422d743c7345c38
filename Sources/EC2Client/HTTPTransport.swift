package import AWSWire
package import Base
package import HTTPClient
package import HTTPWire
package import Ring

/// Sends one request and returns the response, whatever its status. The HTTP client implements it;
/// tests have their own.
@RingActor package protocol HTTPTransport: AnyObject, Sendable {
    /// The request's target already includes the endpoint's path. Throws at `deadline` at the
    /// latest.
    ///
    /// - Parameters:
    ///   - bodyMax: The maximum size of the body, in bytes.
    ///   - isRepeatable: Whether the request may be sent twice if a reused connection broke.
    ///   - latest: After this instant nothing is sent any more.
    func send(
        _ request: HTTPRequest, to endpoint: Endpoint, by deadline: Instant, bodyMax: Int,
        isRepeatable: Bool, sentBy latest: Instant?
    ) async throws(TransportFailure) -> HTTPResponse
}

extension HTTPClient: HTTPTransport {
    package func send(
        _ request: HTTPRequest, to endpoint: Endpoint, by deadline: Instant, bodyMax: Int,
        isRepeatable: Bool, sentBy latest: Instant?
    ) async throws(TransportFailure) -> HTTPResponse {
        let scheme = endpoint.isTLS ? Origin.Scheme.https : .http
        guard let origin = Origin(scheme, host: endpoint.host, port: endpoint.port) else {
            throw TransportFailure(
                reason: "'\(endpoint.host)' is not a host name", mayHaveReached: false)
        }
        do {
            return try await send(
                request, to: origin, by: deadline, bodyMax: bodyMax, isIdempotent: isRepeatable,
                sentBy: latest)
        } catch {
            throw TransportFailure(
                reason: error.description, mayHaveReached: error.mayHaveReachedServer)
        }
    }
}

/// Why there was no response.
package struct TransportFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package var reason: String
    /// Whether the server may have received the request, in whole or in part.
    package var mayHaveReached: Bool

    package init(reason: String, mayHaveReached: Bool) {
        self.reason = reason
        self.mayHaveReached = mayHaveReached
    }

    package var description: String { reason }
}
