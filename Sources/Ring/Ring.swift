import Base
import CUring
import Glibc
import Synchronization
import SystemPackage

/// The loop: one thread that submits I/O to io_uring, waits for completions, and runs the jobs they
/// make ready. Linux 5.10 or later.
///
/// As a serial executor it runs `RingActor`; as a task executor it keeps the tasks that prefer it
/// off the global thread pool. Without work it sleeps in the kernel, with no timer of its own.
///
/// The stored properties belong to the loop's thread, except `inbox`, `thread` and the constants:
/// hence `@unchecked`.
package final class Ring: SerialExecutor, TaskExecutor, @unchecked Sendable {
    /// What other threads leave for the loop.
    private struct Inbox {
        var jobs: [UnownedJob] = []
        var cancellations: [OperationTag] = []
        var stops = false

        var isEmpty: Bool { jobs.isEmpty && cancellations.isEmpty && !stops }
    }

    private var handle: OpaquePointer?
    let blockingPool = BlockingPool()
    var slots = SlotTable()
    private var setupFlags: UInt32 = 0
    private var jobs = JobQueue()
    private var isStopping = false
    /// Operations to cancel with the next submission.
    private var cancellations: [OperationTag] = []

    private let inbox = Mutex(Inbox())
    private var taken = Inbox()
    /// The loop's `pthread_self()`; 0 while it does not run.
    private let thread = Atomic<UInt>(0)
    private let wakeDescriptor = CUring_eventfd()
    private let wakeCount = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    private var needsWakeRead = true

    private static let completionsPerDrain = 256
    private let completions = UnsafeMutablePointer<CUring_completion>.allocate(
        capacity: Ring.completionsPerDrain)

    /// There is one loop in a process: `RingActor.ring`.
    init() {
        wakeCount.initialize(to: 0)
    }

    /// Sets io_uring up. Call it once, on any thread, before `run`.
    ///
    /// SIGPIPE is ignored from then on, in the whole process: a write to a closed pipe or socket is
    /// an error.
    package func start() throws(RingUnavailable) {
        guard wakeDescriptor >= 0 else { throw RingUnavailable(errno: .current) }
        precondition(handle == nil, "the ring is set up once")
        (handle, setupFlags) = try setUpRing(
            entries: Limit.ringEntries, entriesMin: Limit.ringEntriesMin)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Runs the loop on the calling thread until `stop`. Operations that are in flight then are
    /// abandoned, their tasks never resumed: the process is meant to end.
    package func run() {
        thread.store(pthread_self(), ordering: .relaxed)
        // A SINGLE_ISSUER ring belongs to the thread that enables it.
        if setupFlags & CUring_SETUP_R_DISABLED != 0 {
            let result = CUring_enable(uring)
            precondition(result == 0, "io_uring_register: \(-result)")
        }
        takeInbox()
        while !isStopping {
            runReadyJobs()
            submit()
            reap()
        }
        thread.store(0, ordering: .relaxed)
    }

    /// Ends `run`, from any thread. Jobs that are ready may still run.
    package func stop() { leave { $0.stops = true } }

    // MARK: Executor

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            jobs.push(job)
        } else {
            leave { $0.jobs.append(job) }
        }
    }

    package func checkIsolated() { precondition(isCurrent, "not on the ring's thread") }

    package func isIsolatingCurrentContext() -> Bool? { isCurrent }

    private var uring: OpaquePointer {
        guard let handle else { preconditionFailure("start comes before run") }
        return handle
    }

    private var isCurrent: Bool { thread.load(ordering: .relaxed) == pthread_self() }

    // MARK: The loop's turn

    /// Runs the jobs that are ready and those that they make ready: entering the kernel between
    /// them costs as much as a job. After so many the kernel is entered, so that I/O is not starved.
    private func runReadyJobs() {
        var left = Limit.jobsPerTurnMax
        while left > 0, !jobs.isEmpty {
            run(jobs.pop())
            left -= 1
        }
    }

    private func run(_ job: UnownedJob) {
        // A resumed continuation arrives on the generic executor. Claiming the serial one as well
        // makes its hop to RingActor a no-op instead of another job.
        job.runSynchronously(
            isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
    }

    /// Runs the job that was made ready last, within the one that runs now.
    @RingActor
    func runNewestJob() { run(jobs.popNewest()) }

    /// Hands the queued SQEs to the kernel, and waits for a completion when no job is ready.
    private func submit() {
        prepareControl()
        let result =
            jobs.isEmpty && !isStopping
            ? CUring_submit_and_wait(uring) : CUring_submit_and_get_events(uring)
        switch -result {
        case EINTR: break
        // Memory is short, or completions have to be taken first: the next turn tries again.
        case EAGAIN, EBUSY: break
        default: precondition(result >= 0, "io_uring_enter: \(-result)")
        }
    }

    /// Queues the loop's own SQEs: the wake-up read, and cancellations.
    private func prepareControl() {
        if needsWakeRead {
            needsWakeRead = !queue {
                CUring_read(
                    $0, OperationTag.wake.rawValue, wakeDescriptor, wakeCount, 8, .max)
            }
        }
        while let target = cancellations.popLast() {
            guard slots.slot(of: target) != nil else { continue }
            let isQueued = queue {
                CUring_cancel($0, OperationTag.cancellation.rawValue, target.rawValue)
            }
            guard isQueued else { return cancellations.append(target) }
        }
    }

    /// Queues one SQE by a function that returns false as long as the queue is full; false when the
    /// kernel takes nothing for now.
    func queue(_ prepare: (OpaquePointer) -> Bool) -> Bool {
        if prepare(uring) { return true }
        // A kernel before 5.19 takes more only once the completion queue has room.
        for _ in 0..<3 {
            CUring_submit(uring)
            if prepare(uring) { return true }
            reap()
        }
        return false
    }

    /// Takes the completions that have arrived. Their tasks become ready; none runs here.
    private func reap() {
        var count = 0
        repeat {
            count = Int(CUring_drain(uring, completions, UInt32(Self.completionsPerDrain)))
            for index in 0..<count {
                let tag = OperationTag(rawValue: completions[index].tag)
                switch tag {
                case .cancellation: break
                case .wake:
                    needsWakeRead = true
                    takeInbox()
                default: complete(tag, with: completions[index].result)
                }
            }
        } while count == Self.completionsPerDrain
    }

    private func complete(_ tag: OperationTag, with result: Int32) {
        let slot = slots.slot(of: tag)
        guard let continuation = slot?.pointee.continuation else {
            preconditionFailure("completion of an operation that is not in flight")
        }
        slot?.pointee.continuation = nil
        slots.release(tag)
        continuation.resume(returning: result)
    }

    // MARK: Cancellation and other threads

    /// Cancels an operation, from any thread; does nothing once it has ended.
    func cancel(_ tag: OperationTag) {
        if isCurrent {
            cancelHere(tag)
        } else {
            leave { $0.cancellations.append(tag) }
        }
    }

    private func cancelHere(_ tag: OperationTag) {
        guard let slot = slots.slot(of: tag), !slot.pointee.isCancelled else { return }
        slot.pointee.isCancelled = true
        if slot.pointee.continuation != nil { cancellations.append(tag) }
    }

    /// Puts something into the inbox, and wakes the loop if it is the first thing there.
    private func leave(_ change: (inout sending Inbox) -> Void) {
        let isFirst = inbox.withLock { inbox in
            let wasEmpty = inbox.isEmpty
            change(&inbox)
            return wasEmpty
        }
        guard isFirst, wakeDescriptor >= 0 else { return }
        var one: UInt64 = 1
        _ = Glibc.write(wakeDescriptor, &one, 8)
    }

    private func takeInbox() {
        inbox.withLock { swap(&$0, &taken) }
        for job in taken.jobs { jobs.push(job) }
        for tag in taken.cancellations { cancelHere(tag) }
        if taken.stops { isStopping = true }
        taken.jobs.removeAll(keepingCapacity: true)
        taken.cancellations.removeAll(keepingCapacity: true)
        taken.stops = false
    }
}
