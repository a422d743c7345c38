package import Base
import CLinux
import Glibc
import Synchronization

/// On whose behalf a worker thread is kept. Each owner has so many of them and no more, so that
/// those whose device hangs leave some for the others.
package enum BlockingOwner: Hashable, Sendable {
    /// The daemon's own files. Its workers are beside all others.
    case state
    case volume(VolumeID)
    /// A device of which it is not known which volume it is.
    case device(DeviceNumber)
    case other
}

/// Threads that exist while there is blocking work, and a moment longer.
///
/// Work is done in the order in which it came, but that of an owner who has as many workers as he
/// may have waits for one of these. `Limit.blockingThreadsMax` workers are busy at a time; one that
/// is kept for longer than `Limit.blockingPatience` is taken to hang and is not among them, up to
/// `Limit.blockingThreadsHangingMax`: else a few devices that hang would stop the others.
///
/// The queue needs no bound of its own: each entry is a suspended caller.
final class BlockingPool: Sendable {
    /// Does the work, and returns what tells its caller. That is done when its turn has ended: a
    /// caller may have more work at once, for which the owner's worker is free then.
    typealias Body = @Sendable () -> (@Sendable () -> Void)

    private struct Work {
        let owner: BlockingOwner
        let doing: String
        let body: Body
    }

    /// Work whose turn has come.
    private struct Turn {
        let number: Int
        let work: Work
    }

    private struct Running {
        let owner: BlockingOwner
        let doing: String
        let since: Instant

        func isKept(at now: Instant) -> Bool { now - since >= Limit.blockingPatience }
    }

    /// What is to be done outside the lock, which is the first thing that a woken thread takes.
    private struct Calls {
        var tokens = 0
        var starts = 0
    }

    private struct State {
        /// What waits for its turn.
        var queue: [Work] = []
        /// What a thread is on its way for.
        var ready: [Turn] = []
        /// By the turn's number, also while no thread has taken it yet.
        var running: [Int: Running] = [:]
        var turns = 0
        var threads = 0
        /// How many threads wait for work for which no token was given yet.
        var idle = 0

        /// Takes the first that may run now out of the queue.
        mutating func takeTurn(at now: Instant) -> Turn? {
            guard !queue.isEmpty else { return nil }
            var counts: [BlockingOwner: Int] = [:]
            var (busy, hanging) = (0, 0)
            for running in running.values {
                counts[running.owner, default: 0] += 1
                if running.owner == .state { continue }
                if running.isKept(at: now) { hanging += 1 } else { busy += 1 }
            }
            busy += max(0, hanging - Limit.blockingThreadsHangingMax)
            let index = queue.firstIndex {
                counts[$0.owner, default: 0] < $0.owner.threadsMax
                    && ($0.owner == .state || busy < Limit.blockingThreadsMax)
            }
            guard let index else { return nil }
            let work = queue.remove(at: index)
            turns += 1
            running[turns] = Running(owner: work.owner, doing: work.doing, since: now)
            return Turn(number: turns, work: work)
        }

        /// Finds a thread for each that may run now.
        mutating func dispatch(at now: Instant) -> Calls {
            var calls = Calls()
            while let turn = takeTurn(at: now) {
                ready.append(turn)
                if idle > 0 {
                    idle -= 1
                    calls.tokens += 1
                } else {
                    threads += 1
                    calls.starts += 1
                }
            }
            return calls
        }
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

    /// False where the work, or some before it, waits for its turn: `relieve` is then to be called
    /// when `nextRelief` says.
    func run(
        for owner: BlockingOwner, _ doing: String, _ body: @escaping Body
    ) -> Bool {
        let (calls, isWaiting) = state.withLock { state in
            state.queue.append(Work(owner: owner, doing: doing, body: body))
            return (state.dispatch(at: RingActor.ring.now), !state.queue.isEmpty)
        }
        return carryOut(calls) && !isWaiting
    }

    /// Lets those run whose turn has come because a worker turned out to hang.
    func relieve() {
        let calls = state.withLock { $0.dispatch(at: RingActor.ring.now) }
        _ = carryOut(calls)
    }

    /// When work that waits may come to its turn though none ends; nil while none waits.
    func nextRelief() -> Instant? {
        let now = RingActor.ring.now
        return state.withLock { state in
            guard !state.queue.isEmpty else { return nil }
            let ends = state.running.values.map { $0.since + Limit.blockingPatience }
            return ends.filter { $0 > now }.min() ?? now + Limit.blockingPatience
        }
    }

    /// What has its turn, and for whom.
    func underWay() -> [(owner: BlockingOwner, work: WorkUnderWay)] {
        let now = RingActor.ring.now
        return state.withLock { state in
            state.running.values.map {
                let hangs = now - $0.since >= Limit.hangTimeMin
                return ($0.owner, WorkUnderWay(doing: $0.doing, since: $0.since, hangs: hangs))
            }
        }
    }

    // MARK: Threads

    /// False where a thread could not be had.
    private func carryOut(_ calls: Calls) -> Bool {
        for _ in 0..<calls.tokens { sem_post(tokens) }
        for _ in 0..<calls.starts {
            guard startThread() else { return false }
        }
        return true
    }

    private func startThread() -> Bool {
        let pool = Unmanaged.passRetained(self)
        let error = CLinux_start_thread(
            "ring-blocking",
            { context in
                guard let context else { return nil }
                Unmanaged<BlockingPool>.fromOpaque(context).takeRetainedValue().serve()
                return nil
            }, pool.toOpaque())
        guard error != 0 else { return true }
        pool.release()
        putBack()
        return false
    }

    /// Leaves the work to the threads there are, and to the next relief.
    private func putBack() {
        state.withLock { state in
            state.threads -= 1
            guard let turn = state.ready.popLast() else { return }
            state.running[turn.number] = nil
            state.queue.insert(turn.work, at: 0)
        }
    }

    private func serve() {
        repeat {
            var turn = next(after: nil)
            while let current = turn {
                let tell = current.work.body()
                turn = next(after: current)
                tell()
            }
        } while waitForWork()
    }

    private func next(after done: Turn?) -> Turn? {
        state.withLock { state in
            if let done { state.running[done.number] = nil }
            if !state.ready.isEmpty { return state.ready.removeFirst() }
            return state.takeTurn(at: RingActor.ring.now)
        }
    }

    /// Waits a moment for more work; false when there is none, and the caller is no longer counted
    /// as a thread.
    private func waitForWork() -> Bool {
        let hasWork = state.withLock { state in
            if state.ready.isEmpty { state.idle += 1 }
            return !state.ready.isEmpty
        }
        let linger = UInt32(Limit.blockingThreadLinger.milliseconds)
        if hasWork || CLinux_take_token(tokens, linger) { return true }
        let ends = state.withLock { state in
            guard state.idle > 0 else { return false }
            state.idle -= 1
            state.threads -= 1
            return true
        }
        // If all that wait are given a token, one of them is this thread's.
        if !ends { while !CLinux_take_token(tokens, linger) {} }
        return !ends
    }
}

extension BlockingOwner {
    fileprivate var threadsMax: Int {
        switch self {
        case .state: Limit.blockingThreadsOfStateMax
        case .volume, .device: Limit.blockingThreadsPerVolumeMax
        case .other: Limit.blockingThreadsMax
        }
    }
}
