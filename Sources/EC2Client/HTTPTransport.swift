package import AWSWire
package import Base
package import HTTPWire
package import Ring

/// Sends one request and brings its answer, whatever its status. The HTTP client is one; tests
/// bring their own.
@RingActor package protocol HTTPTransport: AnyObject, Sendable {
    /// The request's target has the endpoint's path in it already. Throws at `deadline` at the latest.
    func send(_ request: HTTPRequest, to endpoint: Endpoint, by deadline: Instant)
        async throws(TransportFailure) -> HTTPResponse
}

/// Why no answer came.
package struct TransportFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package var reason: String
    /// Whether the server may have got the request, in whole or in part.
    package var mayHaveReached: Bool

    package init(reason: String, mayHaveReached: Bool) {
        self.reason = reason
        self.mayHaveReached = mayHaveReached
    }

    package var description: String { reason }
}
