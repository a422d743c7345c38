import Base
import CUring
import Glibc
import Synchronization

extension Ring {
    /// Runs `work` on a worker thread, for calls that can block: mount(2), an ioctl, fsync.
    ///
    /// It is not cancellable: once queued it runs to its end. At most `Limit.blockingThreadsMax`
    /// run at a time, the others wait in order; a worker ends when there is no more to do.
    @RingActor
    package func blocking<T: Sendable, E: Error>(
        _ work: @escaping @Sendable () throws(E) -> T
    ) async throws(E) -> T {
        let result: Result<T, E> = await withUnsafeContinuation { continuation in
            blockingPool.run {
                continuation.resume(returning: Result { () throws(E) -> T in try work() })
            }
        }
        return try result.get()
    }
}

/// Threads that exist only while there is blocking work.
///
/// The queue needs no bound of its own: each entry is a suspended caller.
final class BlockingPool: Sendable {
    private struct State {
        var queue: [@Sendable () -> Void] = []
        var threads = 0
    }

    private let state = Mutex(State())

    func run(_ work: @escaping @Sendable () -> Void) {
        let startsThread = state.withLock { state in
            state.queue.append(work)
            guard state.threads < Limit.blockingThreadsMax else { return false }
            state.threads += 1
            return true
        }
        guard startsThread else { return }
        let pool = Unmanaged.passRetained(self)
        let error = CUring_start_thread(
            "ring-blocking",
            { context in
                guard let context else { return nil }
                Unmanaged<BlockingPool>.fromOpaque(context).takeRetainedValue().drain()
                return nil
            }, pool.toOpaque())
        if error != 0 {
            pool.release()
            runWithoutThread()
        }
    }

    /// Leaves the work to the threads there are. If there is none it is done here: the loop stalls,
    /// but nothing is lost.
    private func runWithoutThread() {
        let isAlone = state.withLock { state in
            if state.threads == 1 { return true }
            state.threads -= 1
            return false
        }
        if isAlone { drain() }
    }

    private func drain() {
        while let work = next() { work() }
    }

    /// The next piece of work; nil when there is none, and then the caller is no longer counted as
    /// a thread.
    private func next() -> (@Sendable () -> Void)? {
        state.withLock { state in
            if state.queue.isEmpty {
                state.threads -= 1
                return nil
            }
            return state.queue.removeFirst()
        }
    }
}
