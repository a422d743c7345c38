package import Base
import Glibc

extension Ring {
    /// Runs `work` on a worker thread, for calls that can block: mount(2), an ioctl, fsync.
    ///
    /// It cannot be cancelled: once queued, it runs to its end, which may never come if a device
    /// hangs. `owner` says whose workers it uses (see `BlockingPool`); `doing` is what it does to
    /// what, as in an `OperationError`.
    package func blocking<T: Sendable, E: Error>(
        for owner: BlockingOwner = .other, doing: String = "",
        _ work: @escaping @Sendable () throws(E) -> T
    ) async throws(E) -> T {
        try await outcome(for: owner, doing: doing) {
            Result { () throws(E) -> T in try work() }
        }.get()
    }

    /// Separate from `blocking`, because Swift 6.2 cannot specialise a function that both awaits a
    /// continuation on a global actor and throws an error of its caller's type.
    @RingActor
    private func outcome<R: Sendable>(
        for owner: BlockingOwner, doing: String, of work: @escaping @Sendable () -> R
    ) async -> R {
        await withUnsafeContinuation { continuation in
            let hasTurn = blockingPool.run(for: owner, doing) {
                let outcome = work()
                return { continuation.resume(returning: outcome) }
            }
            if !hasTurn { relieveWorkers() }
        }
    }

    /// While work waits for its turn, checks regularly whether the work in progress hangs.
    @RingActor
    private func relieveWorkers() {
        guard !isRelieving else { return }
        isRelieving = true
        RingActor.spawn {
            while let next = self.blockingPool.nextRelief() {
                // The limit of operations may be waiting for whoever waits for a worker.
                _ = await self.perform(.timeout(next), beyondLimit: true)
                self.blockingPool.relieve()
            }
            self.isRelieving = false
        }
    }

    /// The call or program of that owner that has been in progress for longest; nil if there is
    /// none.
    @RingActor
    package func workUnderWay(for owner: BlockingOwner) -> WorkUnderWay? {
        allWork.filter { $0.owner == owner }.map(\.work).min { $0.since < $1.since }
    }

    /// The work that hangs, and its owner; the longest-hanging first.
    @RingActor
    package var hangingWork: [(owner: BlockingOwner, work: WorkUnderWay)] {
        allWork.filter(\.work.hangs).sorted { $0.work.since < $1.work.since }
    }

    @RingActor
    private var allWork: [(owner: BlockingOwner, work: WorkUnderWay)] {
        blockingPool.underWay() + children.values
    }
}
