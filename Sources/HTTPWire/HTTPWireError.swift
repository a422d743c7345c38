/// Why bytes are not an acceptable HTTP message, or why a message cannot be serialised.
///
/// After such an error the framing of further bytes is unknown, so the connection is not used
/// again.
package struct HTTPWireError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        case malformed
        /// The start line alone exceeds the limit of the head.
        case targetTooLong
        case headTooLarge
        case bodyTooLarge
        case unsupportedVersion
        /// A transfer coding other than chunked.
        case unsupportedCoding
        case unmetExpectation
        /// The connection ended within the message.
        case truncated
    }

    package var kind: Kind
    package var reason: String

    package init(_ kind: Kind, _ reason: String) {
        self.kind = kind
        self.reason = reason
    }

    /// The status of a server's response to such a request.
    package var status: Int {
        switch kind {
        case .malformed, .truncated: 400
        case .bodyTooLarge: 413
        case .targetTooLong: 414
        case .unmetExpectation: 417
        case .headTooLarge: 431
        case .unsupportedCoding: 501
        case .unsupportedVersion: 505
        }
    }

    package var description: String { reason }
}
