/// The answer to a call: known at once, or found by work that waits.
package enum Reply<Answer: Sendable>: Sendable {
    case now(Answer)
    /// The work runs wherever it is awaited, and is cancelled with that task.
    case later(@Sendable () async -> Answer)
}
