import HTTPWire
import Ring
import Streams
import SystemPackage
import TLS

/// Why a request had no response.
package struct HTTPClientError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// The request cannot be serialised.
        case invalidRequest
        /// The host name has no address, or no name server answered.
        case unknownHost
        /// No connection: refused, unreachable, or too slow.
        case unreachable
        /// The proxy did not create the tunnel.
        case proxy
        /// The certificate, the protocol, or this machine's CA file.
        case tls
        /// The connection broke before the response was complete.
        case broken
        /// The response is not valid HTTP, or not accepted here.
        case malformedResponse
        /// The response exceeds a size limit.
        case tooLarge
        /// A time limit or the caller's deadline passed.
        case timedOut
        case cancelled
    }

    package var reason: Reason
    /// What was being done and what was found: one line for a human, without credentials.
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

extension HTTPClientError {
    /// The reason why `call` ended, in the caller's terms.
    @RingActor
    init(_ error: any Error, _ call: Call, _ origin: Origin) {
        let (reason, found) = explanation(of: error, in: call.phase)
        self.init(reason, "\(origin): \(found)", mayHaveReachedServer: call.hasSent)
    }
}

/// Whether the connection broke or ended, which says nothing about the request itself.
func isBreakage(_ error: any Error) -> Bool {
    switch error {
    case StreamError.socket(let errno): errno != .canceled
    case StreamError.tls(let error): error.reason == .truncated
    case let error as HTTPWireError: error.kind == .truncated
    default: false
    }
}

private func explanation(
    of error: any Error, in phase: Call.Phase
) -> (HTTPClientError.Reason, String) {
    switch error {
    case let error as HTTPClientError:
        return (error.reason, error.found)
    case is DeadlineExceeded:
        return (.timedOut, "the deadline passed while \(phase.words)")
    case is CancellationError, StreamError.socket(.canceled):
        return (.cancelled, "cancelled while \(phase.words)")
    case let error as Resolver.Failure:
        return (.unknownHost, error.description)
    case let error as TLSError:
        return (.tls, error.description)
    case StreamError.tls(let error) where error.reason != .truncated:
        return (.tls, error.description)
    case let error as HTTPWireError where error.kind != .truncated:
        let isTooLarge = error.kind == .bodyTooLarge || error.kind == .headTooLarge
        return (isTooLarge ? .tooLarge : .malformedResponse, error.description)
    default:
        let isLocal = if case .loadingTrust = phase { true } else { false }
        return (isLocal ? .tls : .broken, "\(phase.words): \(error)")
    }
}
