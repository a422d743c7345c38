import Ring

/// The ring's start, on a thread of its own: a test's main thread is taken.
private let start: Result<Void, any Error> = Result {
    try RingActor.ring.start()
    let hasThread = runOnThread(named: "ring") { RingActor.ring.run() }
    precondition(hasThread, "no thread for the ring")
}

/// Runs `body` on the process's ring, which is started by the first call.
package func onRing<T: Sendable>(
    _ body: @escaping @RingActor @Sendable () async throws -> T
) async throws -> T {
    try start.get()
    let task = RingActor.spawn(body)
    return try await withTaskCancellationHandler {
        try await task.value
    } onCancel: {
        task.cancel()
    }
}
