/// Why a request brought no response.
package struct HTTPClientError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// The request cannot be put on the wire.
        case invalidRequest
        /// The host's name has no address, or nobody could be asked.
        case unknownHost
        /// No connection: refused, unreachable, or too slow.
        case unreachable
        /// The proxy did not make the tunnel.
        case proxy
        /// The certificate or the protocol, or the CA file here.
        case tls
        /// The connection broke before the response was complete.
        case broken
        /// The answer is no HTTP response, or one that is not taken here.
        case malformedResponse
        /// The answer passes a limit of size.
        case tooLarge
        /// A limit of time passed, or the caller's deadline.
        case timedOut
        case cancelled
    }

    package var reason: Reason
    /// What was being done and what was found: one line for a person, without credentials.
    package var found: String
    /// Whether some of the request was sent, so that the server may have acted on it.
    package var mayHaveReachedServer: Bool

    package init(_ reason: Reason, _ found: String, mayHaveReachedServer: Bool = false) {
        self.reason = reason
        self.found = found
        self.mayHaveReachedServer = mayHaveReachedServer
    }

    package var description: String { found }
}
