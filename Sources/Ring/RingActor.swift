/// The isolation of everything that does I/O. Its executor is the process's ring, so that all of it
/// runs on the ring's thread.
@globalActor package actor RingActor {
    package static let shared = RingActor()

    /// The process's loop.
    package nonisolated static let ring = Ring()

    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        Self.ring.asUnownedSerialExecutor()
    }

    /// Starts a task on the ring.
    ///
    /// This is the way to start concurrent work: the task prefers the ring as its executor, and so
    /// do its children. A plain `Task { }` has no such preference; each of its resumptions would go
    /// through the global thread pool.
    @discardableResult
    package nonisolated static func spawn<T: Sendable>(
        _ body: @escaping @RingActor @Sendable () async -> T
    ) -> Task<T, Never> {
        Task(executorPreference: ring, operation: body)
    }

    /// Starts a task that may throw on the ring.
    @discardableResult
    package nonisolated static func spawn<T: Sendable>(
        _ body: @escaping @RingActor @Sendable () async throws -> T
    ) -> Task<T, any Error> {
        Task(executorPreference: ring, operation: body)
    }
}
