import Base

/// One thread, virtual time and randomness: decides what runs next in a simulated life.
///
/// Jobs that are ready at one instant run in an order that the seed decides; when none is left, the
/// clock advances to the next timer. Everything is touched by the thread that calls `step`.
final class Scheduler: @unchecked Sendable {
    var random: SeededRandom
    private(set) var now = Instant(nanoseconds: 1)
    /// A digest of the executed steps: two runs of one seed have the same digest.
    private(set) var digest: UInt64 = 0xcbf2_9ce4_8422_2325

    /// How often a task was run for a while, that is, the task switches of all processes.
    private(set) var taskSwitches = 0

    /// Steps since the clock last advanced.
    private(set) var stepsOfInstant = 0

    /// Whether the seed decides which of the jobs that are ready runs next; otherwise they run in
    /// the order in which they became ready, as on the ring.
    var isShuffled = true

    private var ready: [(process: SimulatedProcess, job: UnownedJob)] = []
    private var timers: [Timer] = []
    private var nextTimer: UInt64 = 0

    /// What the timers call, and the places that are free there: the heap moves plain numbers.
    private var calls: [Call?] = []
    private var freeCalls: [Int] = []

    /// A bare closure in an optional would be wrapped in another one.
    private struct Call {
        let fire: () -> Void
    }

    private struct Timer {
        let nanoseconds: UInt64
        let number: UInt64
        let call: Int

        static func < (a: Timer, b: Timer) -> Bool {
            a.nanoseconds == b.nanoseconds ? a.number < b.number : a.nanoseconds < b.nanoseconds
        }
    }

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    func note(_ value: UInt64) { digest = (digest ^ value) &* 0x0000_0100_0000_01b3 }

    /// Calls `fire` at that time. Timers of one instant fire in the order they were set.
    func at(_ instant: Instant, _ fire: @escaping () -> Void) {
        nextTimer += 1
        if freeCalls.isEmpty {
            freeCalls.append(calls.count)
            calls.append(nil)
        }
        let call = freeCalls.removeLast()
        calls[call] = Call(fire: fire)
        rise(
            Timer(
                nanoseconds: max(instant.nanoseconds, now.nanoseconds), number: nextTimer,
                call: call))
    }

    func after(_ delay: Duration, _ fire: @escaping () -> Void) { at(now + delay, fire) }

    func enqueue(_ job: UnownedJob, of process: SimulatedProcess) { ready.append((process, job)) }

    /// Runs one job, or advances to the next timer. False if there is neither.
    func step() -> Bool {
        stepsOfInstant += 1
        if !ready.isEmpty {
            run(at: isShuffled ? random.below(ready.count) : 0)
        } else if let timer = popTimer() {
            if timer.nanoseconds > now.nanoseconds {
                now = Instant(nanoseconds: timer.nanoseconds)
                stepsOfInstant = 0
                note(now.nanoseconds)
            }
            let call = calls[timer.call]
            calls[timer.call] = nil
            freeCalls.append(timer.call)
            call?.fire()
        } else {
            return false
        }
        return true
    }

    /// Whether a job is ready to run at this instant.
    var isBusy: Bool { !ready.isEmpty }

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
        if isShuffled { ready.swapAt(index, ready.count - 1) }
        let (process, job) = isShuffled ? ready.removeLast() : ready.remove(at: index)
        note(UInt64(truncatingIfNeeded: process.number) &+ 1)
        taskSwitches += 1
        process.run(job)
    }

    func dropTimers() {
        timers = []
        calls = []
        freeCalls = []
    }

    // MARK: The heap of timers

    private func rise(_ timer: Timer) {
        timers.append(timer)
        var place = timers.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard timer < timers[parent] else { break }
            timers[place] = timers[parent]
            place = parent
        }
        timers[place] = timer
    }

    private func popTimer() -> Timer? {
        guard let first = timers.first, let last = timers.popLast() else { return nil }
        if !timers.isEmpty { sink(last) }
        return first
    }

    /// Puts a timer in the place of the first one, or below.
    private func sink(_ timer: Timer) {
        var place = 0
        while true {
            var child = 2 * place + 1
            guard child < timers.count else { break }
            if child + 1 < timers.count, timers[child + 1] < timers[child] { child += 1 }
            guard timers[child] < timer else { break }
            timers[place] = timers[child]
            place = child
        }
        timers[place] = timer
    }
}
