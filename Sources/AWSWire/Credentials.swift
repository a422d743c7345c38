/// A key pair for signing. Wherever it is printed, it shows the id of its key, and no secret.
package struct Credentials: Sendable, Equatable {
    package var accessKeyID: String
    package var secretAccessKey: String
    package var sessionToken: String?
    /// Seconds since 1970-01-01T00:00:00Z; nil for keys that do not expire.
    package var expiration: Int64?

    package init(
        accessKeyID: String, secretAccessKey: String, sessionToken: String? = nil,
        expiration: Int64? = nil
    ) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.expiration = expiration
    }
}

extension Credentials: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package var description: String { "credentials \(accessKeyID)" }

    package var debugDescription: String { description }

    /// Without children, so that neither `dump` nor an enclosing value's description shows them.
    package var customMirror: Mirror { Mirror(self, children: []) }
}
