import Ring

/// Admits a limited number of callers at a time; the others wait in order.
@RingActor
final class Gate {
    private var places: Int
    private var waiting: [(id: UInt64, continuation: UnsafeContinuation<Bool, Never>)] = []
    private var lastID: UInt64 = 0

    init(places: Int) { self.places = places }

    /// Takes a slot, which `leave` returns. Throws `CancellationError` if the task is cancelled
    /// while it waits.
    func enter() async throws(CancellationError) {
        if places > 0 {
            places -= 1
            return
        }
        lastID += 1
        let id = lastID
        let isIn = await withTaskCancellationHandler {
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
        if !isIn { throw CancellationError() }
    }

    func leave() {
        if waiting.isEmpty {
            places += 1
        } else {
            waiting.removeFirst().continuation.resume(returning: true)
        }
    }

    private func giveUp(_ id: UInt64) {
        guard let index = waiting.firstIndex(where: { $0.id == id }) else { return }
        waiting.remove(at: index).continuation.resume(returning: false)
    }
}
