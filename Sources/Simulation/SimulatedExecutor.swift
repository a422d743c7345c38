package import Base

/// Runs jobs one after another on the thread that calls `run`, under a clock that jumps: when no
/// job is left, time advances to the next sleeper. So waiting for a day takes no time, and the same
/// program always takes the same steps.
package final class SimulatedExecutor: SerialExecutor, TaskExecutor, @unchecked Sendable {
    // Everything is touched by the one thread that runs the simulation.
    private var jobs: [UnownedJob] = []
    private var sleepers: [Sleeper] = []
    private var nextSleeper = 0
    private var clock = Instant(nanoseconds: 1)
    /// How often a task was run for a while.
    package private(set) var taskSwitches = 0

    private struct Sleeper {
        let id: Int
        let until: Instant
        let continuation: CheckedContinuation<Void, any Error>
    }

    package init() {}

    package func enqueue(_ job: consuming ExecutorJob) { jobs.append(UnownedJob(job)) }
    package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        unsafe UnownedSerialExecutor(ordinary: self)
    }
    package func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        unsafe UnownedTaskExecutor(ordinary: self)
    }
    package func checkIsolated() {}
    package func isIsolatingCurrentContext() -> Bool? { true }

    /// Runs until `body` has returned. Traps if it can never return because nothing is left to run.
    package func run<T: Sendable>(
        _ body: @escaping @Sendable () async throws -> T
    ) throws -> T {
        let outcome = Outcome<T>()
        Task(executorPreference: self) {
            do { outcome.result = .success(try await body()) } catch {
                outcome.result = .failure(error)
            }
        }
        while true {
            runJobs()
            if let result = outcome.result { return try result.get() }
            precondition(!sleepers.isEmpty, "the simulated program waits for what never comes")
            wakeNext()
        }
    }

    private final class Outcome<T>: @unchecked Sendable {
        var result: Result<T, any Error>?
    }

    private func runJobs() {
        while !jobs.isEmpty {
            let batch = jobs
            jobs.removeAll(keepingCapacity: true)
            taskSwitches += batch.count
            for job in batch {
                unsafe job.runSynchronously(
                    isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
            }
        }
    }

    private func wakeNext() {
        guard let next = sleepers.min(by: { ($0.until, $0.id) < ($1.until, $1.id) }) else { return }
        clock = max(clock, next.until)
        wake(next.id, .success(()))
    }

    private func wake(_ id: Int, _ result: Result<Void, any Error>) {
        guard let index = sleepers.firstIndex(where: { $0.id == id }) else { return }
        sleepers.remove(at: index).continuation.resume(with: result)
    }
}

extension SimulatedExecutor: TimeSource {
    package var now: Instant { clock }

    package var unixSeconds: Int64 { 1_700_000_000 + Int64(clock.nanoseconds / 1_000_000_000) }

    package func sleep(until instant: Instant) async throws {
        nextSleeper += 1
        let id = nextSleeper
        try await withTaskCancellationHandler {
            try Task.checkCancellation()
            try await withCheckedThrowingContinuation { continuation in
                sleepers.append(Sleeper(id: id, until: instant, continuation: continuation))
            }
        } onCancel: {
            wake(id, .failure(CancellationError()))
        }
    }
}
