import Ring

/// Permits that tasks take and return; a task that finds none waits, in order.
@RingActor
final class Semaphore {
    private var permits: Int
    private var waiting: [(id: UInt64, continuation: UnsafeContinuation<Bool, Never>)] = []
    private var lastID: UInt64 = 0

    init(permits: Int) { self.permits = permits }

    /// Takes a permit, which `signal` returns. Throws `CancellationError` if the task is
    /// cancelled while it waits.
    func wait() async throws(CancellationError) {
        if permits > 0 {
            permits -= 1
            return
        }
        lastID += 1
        let id = lastID
        let hasPermit = await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                if Task.isCancelled {
                    continuation.resume(returning: false)
                } else {
                    waiting.append((id, continuation))
                }
            }
        } onCancel: {
            RingActor.spawn { self.giveUp(id) }
        }
        if !hasPermit { throw CancellationError() }
    }

    func signal() {
        if waiting.isEmpty {
            permits += 1
        } else {
            waiting.removeFirst().continuation.resume(returning: true)
        }
    }

    private func giveUp(_ id: UInt64) {
        guard let index = waiting.firstIndex(where: { $0.id == id }) else { return }
        waiting.remove(at: index).continuation.resume(returning: false)
    }
}
