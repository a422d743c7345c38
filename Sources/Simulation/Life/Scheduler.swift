import Base

/// One thread, virtual time, and chance: what runs next in a simulated life.
///
/// Jobs that are ready at one instant run in an order that the seed decides; when none is left the
/// clock goes on to the next timer. Everything is touched by the thread that calls `step`.
final class Scheduler: @unchecked Sendable {
    var random: SeededRandom
    private(set) var now = Instant(nanoseconds: 1)
    /// A digest of the steps that were taken: two runs of one seed have the same.
    private(set) var digest: UInt64 = 0xcbf2_9ce4_8422_2325

    /// Steps since the clock went on last.
    private(set) var stepsOfInstant = 0

    private var ready: [(process: SimulatedProcess, job: UnownedJob)] = []
    private var timers: [Timer] = []
    private var nextTimer: UInt64 = 0

    /// What the timers call, and the places that are free there: the heap moves plain numbers.
    private var calls: [(() -> Void)?] = []
    private var freeCalls: [Int] = []

    private struct Timer {
        let at: Instant
        let number: UInt64
        let call: Int

        static func < (a: Timer, b: Timer) -> Bool {
            a.at == b.at ? a.number < b.number : a.at < b.at
        }
    }

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    func note(_ value: UInt64) { digest = (digest ^ value) &* 0x0000_0100_0000_01b3 }

    /// Calls `fire` once the clock is there. Timers of one instant fire in the order they were set.
    func at(_ instant: Instant, _ fire: @escaping () -> Void) {
        nextTimer += 1
        if freeCalls.isEmpty {
            freeCalls.append(calls.count)
            calls.append(nil)
        }
        let call = freeCalls.removeLast()
        calls[call] = fire
        timers.append(Timer(at: max(instant, now), number: nextTimer, call: call))
        siftUp()
    }

    func after(_ delay: Duration, _ fire: @escaping () -> Void) { at(now + delay, fire) }

    func enqueue(_ job: UnownedJob, of process: SimulatedProcess) { ready.append((process, job)) }

    /// Runs one job, or goes on to the next timer. False when there is neither.
    func step() -> Bool {
        stepsOfInstant += 1
        if !ready.isEmpty {
            run(at: random.below(ready.count))
        } else if let timer = popTimer() {
            if timer.at > now {
                now = timer.at
                stepsOfInstant = 0
                note(now.nanoseconds)
            }
            let call = calls[timer.call]
            calls[timer.call] = nil
            freeCalls.append(timer.call)
            call?()
        } else {
            return false
        }
        return true
    }

    /// Runs the jobs of a process that has ended, which find every port closed, until none is left.
    func drain(_ process: SimulatedProcess) {
        var left = 10_000
        while left > 0, let index = ready.lastIndex(where: { $0.process === process }) {
            run(at: index)
            left -= 1
        }
        ready.removeAll { $0.process === process }
    }

    private func run(at index: Int) {
        ready.swapAt(index, ready.count - 1)
        let (process, job) = ready.removeLast()
        note(UInt64(truncatingIfNeeded: process.number) &+ 1)
        unsafe job.runSynchronously(
            isolatedTo: process.asUnownedSerialExecutor(),
            taskExecutor: process.asUnownedTaskExecutor())
        process.jobDone()
    }

    // MARK: The heap of timers

    private func siftUp() {
        var child = timers.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard timers[child] < timers[parent] else { return }
            timers.swapAt(child, parent)
            child = parent
        }
    }

    private func popTimer() -> Timer? {
        guard !timers.isEmpty else { return nil }
        timers.swapAt(0, timers.count - 1)
        let first = timers.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < timers.count && timers[child] < timers[least] { least = child }
            guard least != parent else { return first }
            timers.swapAt(parent, least)
            parent = least
        }
    }
}
