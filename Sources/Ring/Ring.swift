import Base
import CLinux
import Glibc
import Synchronization
import SystemPackage

/// The loop: one thread that passes I/O to io_uring, or to epoll if io_uring is blocked, waits for
/// results, and runs the jobs that become ready.
///
/// As a serial executor it runs `RingActor`; as a task executor it keeps the tasks that prefer it
/// off the global thread pool. Without work it sleeps in the kernel, without a timer.
///
/// Only the loop's thread uses the stored properties, except `inbox`, `thread` and the constants:
/// hence `@unchecked`.
package final class Ring: SerialExecutor, TaskExecutor, @unchecked Sendable {
    /// What other threads post for the loop.
    private struct Inbox {
        var jobs: [UnownedJob] = []
        var cancellations: [OperationTag] = []
        var stops = false

        var isEmpty: Bool { jobs.isEmpty && cancellations.isEmpty && !stops }
    }

    /// The backend that performs the operations.
    private enum Backend {
        case uring(Uring)
        case epoll(Epoll)
    }

    private var chosenBackend: Backend?
    /// Why `start` could not use io_uring; nil if it could.
    package private(set) var uringRefusal: UringRefusal?
    /// Called when the kernel had no memory for what was handed to it, with how often that has
    /// happened since the last call: at once for the first time, then at most once in
    /// `Limit.shortageReportInterval`. The ring itself tries again, at its next turn.
    package var whenMemoryIsShort: (@RingActor @Sendable (Int) -> Void)?
    private var shortages = Shortages()
    let blockingPool = BlockingPool()
    /// Whether a task is replacing workers that hang.
    var isRelieving = false
    /// The child processes that are not reaped yet.
    var children: [pid_t: (owner: BlockingOwner, work: WorkUnderWay)] = [:]
    var slots = SlotTable()
    private var jobs = JobQueue()
    private var isStopping = false
    /// Operations to cancel with the next submission.
    private var cancellations: [OperationTag] = []

    private let inbox = Mutex(Inbox())
    private var taken = Inbox()
    /// The loop's `pthread_self()`; 0 while it does not run.
    private let thread = Atomic<UInt>(0)
    private let wakeDescriptor = CLinux_eventfd()
    private var needsWakeRead = true

    /// There is one loop in a process: `RingActor.ring`.
    init() {}

    /// Sets io_uring up, or epoll where that fails: `uringRefusal` then says why. Call it once, on
    /// any thread, before `run`.
    ///
    /// From then on the whole process ignores SIGPIPE: a write to a closed pipe or socket is an
    /// error.
    package func start() throws(RingUnavailable) {
        guard wakeDescriptor >= 0 else { throw RingUnavailable(errno: .current) }
        precondition(chosenBackend == nil, "the ring is set up once")
        do throws(UringRefusal) {
            chosenBackend = .uring(try Uring())
        } catch {
            uringRefusal = error
            do throws(Errno) {
                chosenBackend = .epoll(try Epoll(wakeDescriptor: wakeDescriptor))
            } catch {
                throw RingUnavailable(errno: error)
            }
        }
        signal(SIGPIPE, SIG_IGN)
    }

    /// Runs the loop on the calling thread until `stop`. Operations in flight are then abandoned
    /// and their tasks never resumed: the process is expected to end.
    package func run() {
        thread.store(pthread_self(), ordering: .relaxed)
        if case .uring(let uring) = backend { uring.enable() }
        takeInbox()
        while !isStopping {
            runReadyJobs()
            prepareControl()
            submit()
            reap()
        }
        thread.store(0, ordering: .relaxed)
    }

    /// Ends `run`, from any thread. Jobs that are ready may still run.
    package func stop() { post { $0.stops = true } }

    // MARK: Executor

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            jobs.push(job)
        } else {
            post { $0.jobs.append(job) }
        }
    }

    package func checkIsolated() { precondition(isCurrent, "not on the ring's thread") }

    package func isIsolatingCurrentContext() -> Bool? { isCurrent }

    private var backend: Backend {
        guard let chosenBackend else { preconditionFailure("start comes before run") }
        return chosenBackend
    }

    private var isCurrent: Bool { thread.load(ordering: .relaxed) == pthread_self() }

    // MARK: The loop's turn

    /// Runs the jobs that are ready, and those that become ready, without entering the kernel in
    /// between, which costs as much as a job. After a number of jobs it enters the kernel, so that
    /// I/O is not starved.
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

    /// Submits what is queued to the kernel, and waits for a completion if no job is ready.
    private func submit() {
        let waits = jobs.isEmpty && !isStopping
        switch backend {
        case .uring(let uring): if !uring.submit(waiting: waits) { noteShortage() }
        case .epoll(let epoll): epoll.wait(waits)
        }
    }

    private func noteShortage() {
        guard let report = whenMemoryIsShort, let count = shortages.note(at: now) else { return }
        RingActor.spawn { report(count) }
    }

    /// Queues what the loop needs for itself: the wake-up read, and cancellations.
    private func prepareControl() {
        if needsWakeRead, case .uring(let uring) = backend {
            needsWakeRead = !queue(on: uring) { uring.queueWake(wakeDescriptor) }
        }
        while let target = cancellations.popLast() {
            guard slots.slot(of: target) != nil else { continue }
            switch backend {
            case .uring(let uring):
                let isQueued = queue(on: uring) { uring.queueCancellation(of: target) }
                guard isQueued else { return cancellations.append(target) }
            case .epoll(let epoll):
                epoll.cancel(target)
                complete(target, with: -ECANCELED)
            }
        }
    }

    /// Begins an operation, whose end resumes its slot's continuation. If the result is available
    /// at once, for example because the kernel accepts nothing for now, returns it instead.
    func begin(
        _ operation: Operation, _ tag: OperationTag, _ slot: UnsafeMutablePointer<Slot>
    ) -> Int32? {
        switch backend {
        case .uring(let uring):
            queue(on: uring) { uring.queue(operation, tag, slot) } ? nil : -ENOBUFS
        case .epoll(let epoll): epoll.begin(operation, tag)
        }
    }

    /// Queues one SQE with a function that returns false while the queue is full; false if the
    /// kernel accepts nothing for now.
    private func queue(on uring: Uring, _ prepare: () -> Bool) -> Bool {
        if prepare() { return true }
        // A kernel before 5.19 accepts more only once the completion queue has room.
        for _ in 0..<3 {
            uring.flush()
            if prepare() { return true }
            reap()
        }
        return false
    }

    /// Reads the completions that have arrived. Their tasks become ready, but do not run here.
    private func reap() {
        switch backend {
        case .uring(let uring): uring.reap(take)
        case .epoll(let epoll): epoll.reap(take)
        }
    }

    private func take(_ tag: OperationTag, _ result: Int32) {
        switch tag {
        case .cancellation: break
        case .wake:
            needsWakeRead = true
            takeInbox()
        default: complete(tag, with: result)
        }
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
            post { $0.cancellations.append(tag) }
        }
    }

    private func cancelHere(_ tag: OperationTag) {
        guard let slot = slots.slot(of: tag), !slot.pointee.isCancelled else { return }
        slot.pointee.isCancelled = true
        if slot.pointee.continuation != nil { cancellations.append(tag) }
    }

    /// Posts to the inbox, and wakes the loop if it was empty.
    private func post(_ change: (inout sending Inbox) -> Void) {
        let isFirst = inbox.withLock { inbox in
            let wasEmpty = inbox.isEmpty
            change(&inbox)
            return wasEmpty
        }
        guard isFirst, wakeDescriptor >= 0 else { return }
        var one: UInt64 = 1
        _ = Glibc.write(wakeDescriptor, &one, 8)
    }

    /// Whether sockets that connect or listen must be non-blocking. io_uring waits for blocking
    /// sockets, and would return EAGAIN for non-blocking ones.
    var wantsNonBlockingSockets: Bool {
        if case .epoll = backend { true } else { false }
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

/// How often the kernel had no memory for the ring, and when that was told.
struct Shortages {
    private var count = 0
    private var reported: Instant?

    /// Counts one; returns how many to report when it is time for that.
    mutating func note(at now: Instant) -> Int? {
        count += 1
        if let reported, now - reported < Limit.shortageReportInterval { return nil }
        reported = now
        defer { count = 0 }
        return count
    }
}
