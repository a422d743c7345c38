import Base

/// The error of a process's wait after the process was killed.
struct ProcessEnded: Error {}

/// A process of a simulated host: an executor whose jobs and waits end with it.
///
/// When it ends, each of its waits fails, including later ones. Its tasks run to their ends at once
/// and without effect, because all ports of the world are closed to them. So a killed daemon does
/// nothing any more, and its memory is freed.
final class SimulatedProcess: SerialExecutor, TaskExecutor, @unchecked Sendable {
    let number: Int
    let scheduler: Scheduler
    /// Whether it belongs to the manager, an actor whose tasks may be cancelled. The tasks of other
    /// processes are neither cancelled nor isolated.
    private let isDaemon: Bool
    private(set) var isAlive = true
    /// Called after each job, with the process alive.
    var afterJob: (() -> Void)?
    /// Whether its machine hibernates: its jobs wait for the machine's next start.
    private(set) var isFrozen = false
    private var heldJobs: [UnownedJob] = []
    /// Called once it has run this many jobs.
    private var alarms: [(job: Int, fire: () -> Void)] = []
    private var jobs = 0
    /// What its end leaves behind of the programs that it runs, which end with it.
    private var programs: [Int: () -> Void] = [:]
    private var nextProgram = 0
    /// The waits that have not ended, and the places that are free among them.
    private var waits: [(any Wait)?] = []
    private var freeWaits: [Int] = []

    init(number: Int, scheduler: Scheduler, isDaemon: Bool) {
        self.number = number
        self.isDaemon = isDaemon
        self.scheduler = scheduler
    }

    func enqueue(_ job: consuming ExecutorJob) {
        scheduler.enqueue(UnownedJob(job), of: self)
    }
    func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        unsafe UnownedSerialExecutor(ordinary: self)
    }
    func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        unsafe UnownedTaskExecutor(ordinary: self)
    }
    func checkIsolated() {}
    func isIsolatingCurrentContext() -> Bool? { true }

    func run(_ job: UnownedJob) {
        if isFrozen {
            heldJobs.append(job)
            return
        }
        if isDaemon {
            unsafe job.runSynchronously(
                isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
        } else {
            unsafe job.runSynchronously(on: asUnownedTaskExecutor())
        }
        if isAlive { afterJob?() }
        jobs += 1
        if !alarms.isEmpty { fireAlarms() }
    }

    /// Calls `fire` after this many more of its jobs, if it lives that long.
    func after(jobs count: Int, _ fire: @escaping () -> Void) {
        alarms.append((jobs + count, fire))
    }

    private func fireAlarms() {
        let due = alarms.filter { $0.job <= jobs }
        alarms.removeAll { $0.job <= jobs }
        for alarm in due where isAlive { alarm.fire() }
    }

    /// Records that a program runs, and what the end of the process would leave behind.
    func programBegins(_ ifCut: @escaping () -> Void) -> Int {
        nextProgram += 1
        programs[nextProgram] = ifCut
        return nextProgram
    }

    func programEnds(_ number: Int) { programs[number] = nil }

    func freeze() { isFrozen = true }

    func thaw() {
        isFrozen = false
        for job in heldJobs { scheduler.enqueue(job, of: self) }
        heldJobs = []
    }

    /// Starts a task of this process.
    func spawn(_ body: @escaping @Sendable () async -> Void) {
        Task(executorPreference: self) { await body() }
    }

    /// Ends the process as SIGKILL does. Must not be called from one of its own jobs.
    func kill() {
        guard isAlive else { return }
        isAlive = false
        afterJob = nil
        alarms = []
        let cut = programs.sorted { $0.key < $1.key }
        programs = [:]
        for program in cut { program.value() }
        thaw()
        for wait in waits { wait?.fail(ProcessEnded()) }
        scheduler.drain(self)
    }

    /// Waits for what `begin` starts; it receives the handle that ends the wait. A cancelled task
    /// does not wait.
    func wait<T: Sendable>(
        isolation: isolated (any Actor)? = #isolation, _ begin: (Reply<T>) -> Void
    ) async throws -> T {
        guard isDaemon else { return try await waitToTheEnd(begin) }
        try Task.checkCancellation()
        let reply = try Reply<T>(of: self)
        return try await withTaskCancellationHandler {
            // Stays on the caller's actor; otherwise each wait would need three more jobs.
            _ = isolation
            return unsafe try await withUnsafeThrowingContinuation {
                unsafe reply.start($0, begin)
            }
        } onCancel: {
            reply.fail(CancellationError())
        }
    }

    /// The same for a wait that cancelling the task does not end, such as a system call.
    @inline(__always)
    func waitToTheEnd<T: Sendable>(_ begin: (Reply<T>) -> Void) async throws -> T {
        let reply = try Reply<T>(of: self)
        return unsafe try await withUnsafeThrowingContinuation { unsafe reply.start($0, begin) }
    }

    func sleep(_ duration: Duration) async throws {
        try await sleep(until: scheduler.now + duration)
    }

    private func begun(_ wait: any Wait) -> Int {
        guard let free = freeWaits.popLast() else {
            waits.append(wait)
            return waits.count - 1
        }
        waits[free] = wait
        return free
    }

    private func ended(_ number: Int) {
        waits[number] = nil
        freeWaits.append(number)
    }

    fileprivate protocol Wait: AnyObject {
        func fail(_ error: any Error)
    }

    /// The end of one wait. Only the first one counts.
    @safe final class Reply<T: Sendable>: Wait, @unchecked Sendable {
        private let process: SimulatedProcess
        private var number = 0
        /// Nil before and after the wait.
        private var continuation: UnsafeContinuation<T, any Error>?

        fileprivate init(of process: SimulatedProcess) throws(ProcessEnded) {
            guard process.isAlive else { throw ProcessEnded() }
            self.process = process
        }

        /// Whether the waiting task still exists.
        var isAwaited: Bool { unsafe continuation != nil }

        func succeed(_ value: T) { end(.success(value)) }
        func fail(_ error: any Error) { end(.failure(error)) }

        func end(_ result: Result<T, any Error>) {
            guard let waiting = unsafe continuation else { return }
            unsafe continuation = nil
            process.ended(number)
            unsafe waiting.resume(with: result)
        }

        fileprivate func start(
            _ waiting: UnsafeContinuation<T, any Error>, _ begin: (Reply) -> Void
        ) {
            unsafe continuation = waiting
            number = process.begun(self)
            begin(self)
        }
    }
}

extension SimulatedProcess: TimeSource {
    var now: Instant { scheduler.now }

    var unixSeconds: Int64 { 1_700_000_000 + Int64(scheduler.now.nanoseconds / 1_000_000_000) }

    func sleep(until instant: Instant) async throws {
        let _: Bool = try await wait { reply in scheduler.at(instant) { reply.succeed(true) } }
    }
}
