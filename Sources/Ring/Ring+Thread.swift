import CLinux
import Synchronization

extension Ring {
    private static let hasThread = Mutex(false)

    /// Starts the process's loop on a thread of its own; does nothing when it has one already. It
    /// is for programs whose main thread is taken, such as tests. A daemon calls `start` and `run`
    /// on its main thread.
    package static func startThread() throws(RingUnavailable) {
        try hasThread.withLock { hasThread throws(RingUnavailable) in
            if hasThread { return }
            try RingActor.ring.start()
            let error = CLinux_start_thread(
                "ring",
                { _ in
                    RingActor.ring.run()
                    return nil
                }, nil)
            precondition(error == 0, "no thread for the ring: \(error)")
            hasThread = true
        }
    }
}

/// Runs `body` on the ring, which gets a thread of its own if it does not run yet. For tests.
package func onRing<T: Sendable>(
    _ body: @escaping @RingActor @Sendable () async throws -> T
) async throws -> T {
    try Ring.startThread()
    let task = RingActor.spawn(body)
    return try await withTaskCancellationHandler {
        try await task.value
    } onCancel: {
        task.cancel()
    }
}

/// Runs `body` on a thread of its own, which ends with it, with all signals blocked; false where no
/// thread can be started. For what may block for ever and must not take a worker's place.
///
/// - Parameter name: 15 bytes at most.
package func runOnThread(named name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
    let work = Unmanaged.passRetained(Work(body: body))
    let error = CLinux_start_thread(
        name,
        { context in
            guard let context else { return nil }
            Unmanaged<Work>.fromOpaque(context).takeRetainedValue().body()
            return nil
        }, work.toOpaque())
    if error != 0 { work.release() }
    return error == 0
}

private final class Work: Sendable {
    let body: @Sendable () -> Void

    init(body: @escaping @Sendable () -> Void) { self.body = body }
}
