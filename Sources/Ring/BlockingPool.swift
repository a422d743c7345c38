package import Base
import CLinux
import Glibc
import Synchronization

/// For whom a worker thread works. Each owner has a limited number of workers, so that owners whose
/// device hangs leave some for the others.
package enum BlockingOwner: Hashable, Sendable {
    /// The daemon's own files, which have separate workers.
    case state
    case volume(VolumeID)
    /// A device whose volume is unknown.
    case device(DeviceNumber)
    case other
}

/// Threads for blocking work, which exist while there is some, and a moment longer.
///
/// Work is done in the order of arrival, but work of an owner that has reached its number of
/// workers waits for one of these. `Limit.blockingThreadsMax` workers are busy at a time; one that
/// is occupied for longer than `Limit.blockingPatience` counts as hanging and not as busy, up to
/// `Limit.blockingThreadsHangingMax`: otherwise a few hanging devices would stop the others.
///
/// The queue needs no separate limit: each entry is a suspended caller.
final class BlockingPool: Sendable {
    /// Does the work, and returns a function that informs the caller. It is called when the turn
    /// has ended: the caller may have more work at once, and then the owner's worker is free for
    /// it.
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

    /// What must be done outside the lock, which a woken thread takes first.
    private struct Calls {
        var tokens = 0
        var starts = 0
    }

    private struct State {
        /// The work that waits for its turn.
        var queue: [Work] = []
        /// The work for which a thread has been woken or started.
        var ready: [Turn] = []
        /// By the number of the turn, even before a thread has taken it.
        var running: [Int: Running] = [:]
        var turns = 0
        var threads = 0
        /// How many threads wait for work and have not been given a token.
        var idle = 0

        /// Removes from the queue the first work that may run now.
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

        /// Finds a thread for all work that may run now.
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
    /// A token wakes a thread that waits for work. Unsafe only because of its type: all threads may
    /// use a semaphore.
    nonisolated(unsafe) private let tokens: UnsafeMutablePointer<sem_t>

    init() {
        tokens = .allocate(capacity: 1)
        sem_init(tokens, 0, 0)
    }

    deinit {
        sem_destroy(tokens)
        tokens.deallocate()
    }

    /// False if this work, or earlier work, waits for its turn: then call `relieve` at
    /// `nextRelief`.
    func run(
        for owner: BlockingOwner, _ doing: String, _ body: @escaping Body
    ) -> Bool {
        let (calls, isWaiting) = state.withLock { state in
            state.queue.append(Work(owner: owner, doing: doing, body: body))
            return (state.dispatch(at: RingActor.ring.now), !state.queue.isEmpty)
        }
        return carryOut(calls) && !isWaiting
    }

    /// Runs the work that can run because a worker turned out to hang.
    func relieve() {
        let calls = state.withLock { $0.dispatch(at: RingActor.ring.now) }
        _ = carryOut(calls)
    }

    /// When waiting work may get its turn although none ends; nil while none waits.
    func nextRelief() -> Instant? {
        let now = RingActor.ring.now
        return state.withLock { state in
            guard !state.queue.isEmpty else { return nil }
            let ends = state.running.values.map { $0.since + Limit.blockingPatience }
            return ends.filter { $0 > now }.min() ?? now + Limit.blockingPatience
        }
    }

    /// The work in progress, and its owner.
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

    /// False if no thread could be started.
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

    /// Leaves the work to the existing threads, and to the next relief.
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

    /// Waits a moment for more work; false if there is none, in which case the caller no longer
    /// counts as a thread.
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
        // If all waiting threads have been given a token, one of them belongs to this thread.
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
