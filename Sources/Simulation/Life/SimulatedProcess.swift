import Base

/// What a wait of a process ends with when the process has been killed.
struct ProcessEnded: Error {}

/// A process of a simulated host: an executor whose jobs and waits end with it.
///
/// When it ends, each of its waits fails and so does each wait that is begun later: its tasks run
/// to their ends at once and in vain, because every port of the world is closed to them. So nothing
/// of a killed daemon happens any more, and its memory is freed.
final class SimulatedProcess: SerialExecutor, TaskExecutor, @unchecked Sendable {
    let number: Int
    let scheduler: Scheduler
    private(set) var isAlive = true
    /// Called after each job, with the process alive.
    var afterJob: (() -> Void)?
    /// The waits that have not ended, and the places that are free among them.
    private var waits: [(any Wait)?] = []
    private var freeWaits: [Int] = []

    init(number: Int, scheduler: Scheduler) {
        self.number = number
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

    func jobDone() { if isAlive { afterJob?() } }

    /// Starts a task of this process.
    func spawn(_ body: @escaping @Sendable () async -> Void) {
        Task(executorPreference: self) { await body() }
    }

    /// Ends the process as SIGKILL does. Not to be called from one of its own jobs.
    func kill() {
        guard isAlive else { return }
        isAlive = false
        afterJob = nil
        for wait in waits { wait?.fail(ProcessEnded()) }
        scheduler.drain(self)
    }

    /// Waits for what `begin` sets going: it is given the handle by which the wait is ended. A
    /// cancelled task does not wait.
    func wait<T: Sendable>(_ begin: (Reply<T>) -> Void) async throws -> T {
        try Task.checkCancellation()
        let reply: Reply<T> = try begun(begin)
        return try await withTaskCancellationHandler {
            try await reply.value()
        } onCancel: {
            reply.fail(CancellationError())
        }
    }

    /// The same, for what does not end early when the task is cancelled: a system call.
    func waitToTheEnd<T: Sendable>(_ begin: (Reply<T>) -> Void) async throws -> T {
        let reply: Reply<T> = try begun(begin)
        return try await reply.value()
    }

    private func begun<T>(_ begin: (Reply<T>) -> Void) throws -> Reply<T> {
        guard isAlive else { throw ProcessEnded() }
        if freeWaits.isEmpty {
            freeWaits.append(waits.count)
            waits.append(nil)
        }
        let number = freeWaits.removeLast()
        let reply = Reply<T>(process: self, number: number)
        waits[number] = reply
        begin(reply)
        return reply
    }

    func sleep(_ duration: Duration) async throws {
        try await sleep(until: scheduler.now + duration)
    }

    fileprivate func ended(_ number: Int) {
        waits[number] = nil
        freeWaits.append(number)
    }

    fileprivate protocol Wait: AnyObject {
        func fail(_ error: any Error)
    }

    /// The end of one wait, which comes once; what comes later is dropped.
    @safe final class Reply<T: Sendable>: Wait, @unchecked Sendable {
        private let process: SimulatedProcess
        private let number: Int
        private var result: Result<T, any Error>?
        private var continuation: UnsafeContinuation<T, any Error>?

        fileprivate init(process: SimulatedProcess, number: Int) {
            self.process = process
            self.number = number
        }

        /// Whether the one who waits is still there to hear of it.
        var isAwaited: Bool { result == nil }

        func succeed(_ value: T) { end(.success(value)) }
        func fail(_ error: any Error) { end(.failure(error)) }

        func end(_ result: Result<T, any Error>) {
            guard self.result == nil else { return }
            self.result = result
            process.ended(number)
            if let waiting = unsafe continuation {
                unsafe continuation = nil
                unsafe waiting.resume(with: result)
            }
        }

        fileprivate func value() async throws -> T {
            unsafe try await withUnsafeThrowingContinuation { waiting in
                // Other jobs may have run since the wait began.
                if let result {
                    unsafe waiting.resume(with: result)
                } else {
                    unsafe continuation = waiting
                }
            }
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
