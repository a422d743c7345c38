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

/// Threads that exist while there is blocking work, and a moment longer.
///
/// The queue needs no bound of its own: each entry is a suspended caller.
final class BlockingPool: Sendable {
    private struct State {
        var queue: [@Sendable () -> Void] = []
        var threads = 0
        /// How many threads wait for work for which no token was given yet.
        var idle = 0
    }

    private let state = Mutex(State())
    /// A token wakes a thread that waits for work. Unsafe only by its type: a semaphore is for all.
    nonisolated(unsafe) private let tokens: UnsafeMutablePointer<sem_t>

    init() {
        tokens = .allocate(capacity: 1)
        sem_init(tokens, 0, 0)
    }

    deinit {
        sem_destroy(tokens)
        tokens.deallocate()
    }

    func run(_ work: @escaping @Sendable () -> Void) {
        let (wakesThread, startsThread) = state.withLock { state in
            state.queue.append(work)
            if state.idle > 0 {
                state.idle -= 1
                return (true, false)
            }
            guard state.threads < Limit.blockingThreadsMax else { return (false, false) }
            state.threads += 1
            return (false, true)
        }
        // Outside the lock, which is the first thing that a woken thread takes.
        if wakesThread { sem_post(tokens) }
        if startsThread { startThread() }
    }

    private func startThread() {
        let pool = Unmanaged.passRetained(self)
        let error = CUring_start_thread(
            "ring-blocking",
            { context in
                guard let context else { return nil }
                Unmanaged<BlockingPool>.fromOpaque(context).takeRetainedValue().serve()
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
            state.threads -= 1
            return state.threads == 0
        }
        guard isAlone else { return }
        while let work = next() { work() }
    }

    private func serve() {
        repeat { while let work = next() { work() } } while waitForWork()
    }

    private func next() -> (@Sendable () -> Void)? {
        state.withLock { $0.queue.isEmpty ? nil : $0.queue.removeFirst() }
    }

    /// Waits a moment for more work; false when there is none, and the caller is no longer counted
    /// as a thread.
    private func waitForWork() -> Bool {
        let hasWork = state.withLock { state in
            if state.queue.isEmpty { state.idle += 1 }
            return !state.queue.isEmpty
        }
        let linger = UInt32(Limit.blockingThreadLinger.milliseconds)
        if hasWork || CUring_take_token(tokens, linger) { return true }
        let ends = state.withLock { state in
            guard state.idle > 0 else { return false }
            state.idle -= 1
            state.threads -= 1
            return true
        }
        // If all that wait are given a token, one of them is this thread's.
        if !ends { while !CUring_take_token(tokens, linger) {} }
        return !ends
    }
}
