package import Base
import Glibc

extension Ring {
    /// Runs `work` on a worker thread, for calls that can block: mount(2), an ioctl, fsync.
    ///
    /// It is not cancellable: once queued it runs to its end, which for a device that hangs may
    /// never come. `owner` is whose workers it takes (see `BlockingPool`), `doing` what it does, to
    /// what, as an `OperationError` has it.
    package func blocking<T: Sendable, E: Error>(
        for owner: BlockingOwner = .other, doing: String = "",
        _ work: @escaping @Sendable () throws(E) -> T
    ) async throws(E) -> T {
        try await outcome(for: owner, doing: doing) {
            Result { () throws(E) -> T in try work() }
        }.get()
    }

    /// Apart from `blocking`, for Swift 6.2 cannot specialise a function that both awaits a
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

    /// While work waits for its turn, looks now and then whether those that have theirs hang.
    @RingActor
    private func relieveWorkers() {
        guard !isRelieving else { return }
        isRelieving = true
        RingActor.spawn {
            while let next = self.blockingPool.nextRelief() {
                // Who waits for a worker may be whom the limit of operations waits for.
                _ = await self.perform(.timeout(next), beyondLimit: true)
                self.blockingPool.relieve()
            }
            self.isRelieving = false
        }
    }

    /// What has been under way for that owner for longest, calls and programs; nil where nothing
    /// is.
    @RingActor
    package func workUnderWay(for owner: BlockingOwner) -> WorkUnderWay? {
        allWork.filter { $0.owner == owner }.map(\.work).min { $0.since < $1.since }
    }

    /// What hangs, and for whom; what has hung for longest comes first.
    @RingActor
    package var hangingWork: [(owner: BlockingOwner, work: WorkUnderWay)] {
        allWork.filter(\.work.hangs).sorted { $0.work.since < $1.work.since }
    }

    @RingActor
    private var allWork: [(owner: BlockingOwner, work: WorkUnderWay)] {
        blockingPool.underWay() + children.values
    }
}
