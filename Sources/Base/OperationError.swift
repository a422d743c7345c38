/// An operating error as an operator reads it: what was being done, to what, what AWS or the
/// kernel answered, and what to do next.
package struct OperationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The kind of failure, for code that depends on it.
    package enum Reason: Sendable, Equatable {
        /// The caller's input: a name, an option, a body.
        case invalidInput
        case noSuchVolume
        /// The volume cannot be used from here: wrong zone, wrong state, attached elsewhere.
        case unusableVolume
        case limitReached
        /// EC2 or the metadata service rejected a call, or could not be reached.
        case cloud
        /// The device did not appear, or is not the volume.
        case device
        /// What is on the device may be neither formatted nor mounted.
        case content
        /// The kernel or a helper program failed.
        case system
        case deadline
    }

    package var reason: Reason
    /// What was being done, to what: `attach vol-… to i-… as /dev/sdf`.
    package var doing: String
    /// What was found or answered.
    package var found: String
    /// What the operator can do.
    package var advice: String?

    package init(_ reason: Reason, doing: String, found: String, advice: String? = nil) {
        self.reason = reason
        self.doing = doing
        self.found = found
        self.advice = advice
    }

    package var description: String {
        var text = "cannot \(doing): \(found)"
        if let advice { text += "; \(advice)" }
        return text
    }
}

/// The standard library describes this error by the name of its type only. An operator should read
/// what happened, wherever the error becomes part of a text.
extension CancellationError: @retroactive CustomStringConvertible {
    public var description: String {
        "it was cancelled: the client has disconnected, or the plugin is stopping"
    }
}
