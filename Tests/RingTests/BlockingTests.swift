import Base
import Glibc
import Ring
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct BlockingTests {
    private struct Failure: Error, Equatable { var code: Int }

    @Test func `blocking work returns its value or throws its error`() async throws {
        try await onRing {
            let ring = RingActor.ring
            #expect(await ring.blocking { 42 } == 42)
            await #expect(throws: Failure(code: 5)) {
                try await ring.blocking { () throws(Failure) -> Int in throw Failure(code: 5) }
            }
        }
    }

    @Test func `the ring goes on while work blocks`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            var ends: [Int32] = [0, 0]
            try check(pipe(&ends))
            let (readEnd, writeEnd) = (ends[0], ends[1])
            async let blocked = RingActor.ring.blocking { () -> Int in
                var byte: UInt8 = 0
                return read(readEnd, &byte, 1)
            }
            try await a.send(buffer("x"))
            try await expect("x", from: b)
            write(writeEnd, "y", 1)
            #expect(await blocked == 1)
            close(readEnd)
            close(writeEnd)
        }
    }

    @Test func `no more than the limit run at a time, and all threads end`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let counts = Counts()
                await withTaskGroup(of: Void.self) { group in
                    for _ in 0..<50 {
                        group.addTask { await RingActor.ring.blocking { counts.run() } }
                    }
                }
                #expect(counts.total == 50)
                #expect(counts.most > 1 && counts.most <= Limit.blockingThreadsMax)
                let ended = try await eventually { threads(named: "ring-blocking").isEmpty }
                #expect(ended)
            }
        }
    }

    @Test func `one volume's work that hangs leaves workers for the others, and for the state`()
        async
    {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let gate = Gate()
                let sick = hold(gate, count: 2 * Limit.blockingThreadsMax) { _ in volume(1) }
                let areStuck = try await eventually {
                    gate.held == Limit.blockingThreadsPerVolumeMax
                }
                #expect(areStuck)
                for owner in [volume(2), .state, .other] {
                    let served = try await isServed(owner) {
                        #expect(gate.held == Limit.blockingThreadsPerVolumeMax)
                    }
                    #expect(served)
                }
                gate.open()
                for task in sick { await task.value }
                let ended = try await eventually { threads(named: "ring-blocking").isEmpty }
                #expect(ended)
            }
        }
    }

    @Test func `more volumes that hang than there are workers stop neither others nor the state`()
        async
    {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let gate = Gate()
                let count = Limit.blockingThreadsMax + 4
                let sick = hold(gate, count: count) { volume($0) }
                let all = try await eventually { gate.held >= Limit.blockingThreadsMax }
                #expect(all)
                // Work for the state runs at once: it does not wait until the busy workers are
                // known to hang.
                let before = gate.held
                let served = try await isServed(.state) { #expect(gate.held == before) }
                #expect(served)
                // Once they are known to hang, work for another volume runs too.
                #expect(try await isServed(volume(100)))
                let haveTurns = try await eventually { gate.held == count }
                #expect(haveTurns)
                gate.open()
                for task in sick { await task.value }
                let ended = try await eventually { threads(named: "ring-blocking").isEmpty }
                #expect(ended)
            }
        }
    }

    @Test func `what is under way is told with its owner, and no longer when it has ended`()
        async throws
    {
        try await onRing {
            let gate = Gate()
            let ring = RingActor.ring
            let begin = ring.now
            let task = RingActor.spawn {
                await ring.blocking(for: volume(7), doing: "mount it") { gate.pass() }
            }
            let isUnderWay = try await eventually { gate.held == 1 }
            #expect(isUnderWay)
            let work = try #require(ring.workUnderWay(for: volume(7)))
            #expect(work.doing == "mount it" && !work.hangs)
            #expect(work.since >= begin && work.since <= ring.now)
            #expect(ring.workUnderWay(for: volume(8)) == nil)
            gate.open()
            await task.value
            #expect(ring.workUnderWay(for: volume(7)) == nil)
        }
    }

    private final class Counts: Sendable {
        private let state = Mutex((running: 0, most: 0, total: 0))
        var most: Int { state.withLock { $0.most } }
        var total: Int { state.withLock { $0.total } }

        func run() {
            state.withLock {
                $0.running += 1
                $0.total += 1
                $0.most = max($0.most, $0.running)
            }
            usleep(1000)
            state.withLock { $0.running -= 1 }
        }
    }
}

/// Work waits here until the gate is opened, as it would wait for a device that does not respond.
private final class Gate: Sendable {
    private let state = Mutex((isOpen: false, held: 0))
    nonisolated(unsafe) private let opened: UnsafeMutablePointer<sem_t>

    init() {
        opened = .allocate(capacity: 1)
        sem_init(opened, 0, 0)
    }

    deinit {
        sem_destroy(opened)
        opened.deallocate()
    }

    /// How many threads are waiting.
    var held: Int { state.withLock { $0.held } }

    func pass() {
        let waits = state.withLock { state in
            if !state.isOpen { state.held += 1 }
            return !state.isOpen
        }
        if waits { while sem_wait(opened) != 0 {} }
    }

    func open() {
        let held = state.withLock { state in
            state.isOpen = true
            return state.held
        }
        for _ in 0..<held { sem_post(opened) }
    }
}

/// Starts the given number of tasks that wait at the gate.
@RingActor
private func hold(
    _ gate: Gate, count: Int, for owner: @escaping @Sendable (Int) -> BlockingOwner
) -> [Task<Void, Never>] {
    (0..<count).map { number in
        RingActor.spawn {
            await RingActor.ring.blocking(for: owner(number)) { gate.pass() }
        }
    }
}

/// Whether work for that owner completes while other work does not.
@RingActor
private func isServed(
    _ owner: BlockingOwner, _ work: @escaping @Sendable () -> Void = {}
) async throws -> Bool {
    var isDone = false
    RingActor.spawn {
        await RingActor.ring.blocking(for: owner) { work() }
        isDone = true
    }
    return try await eventually { isDone }
}

private func volume(_ number: Int) -> BlockingOwner {
    let digits = String(number, radix: 16)
    let id = VolumeID("vol-" + String(repeating: "0", count: 17 - digits.count) + digits)
    guard let id else { preconditionFailure("\(number) makes no volume id") }
    return .volume(id)
}
