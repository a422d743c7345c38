import Ring

/// Runs one piece of work at a time: a caller that asks while it runs joins it.
///
/// The work is a separate task, so that cancelling one caller does not cancel it for the others; it
/// must limit its own time.
@RingActor final class SingleFlight<Value: Sendable> {
    private var running: Task<Value, any Error>?

    func run(_ work: @escaping @RingActor @Sendable () async throws -> Value) async throws -> Value
    {
        try await start(work).value
    }

    /// Starts the work without waiting for it.
    @discardableResult
    func start(_ work: @escaping @RingActor @Sendable () async throws -> Value)
        -> Task<Value, any Error>
    {
        if let running { return running }
        let task: Task<Value, any Error> = RingActor.spawn {
            defer { self.running = nil }
            return try await work()
        }
        running = task
        return task
    }
}
