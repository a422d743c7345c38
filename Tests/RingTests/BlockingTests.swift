import Base
import Glibc
import Ring
import Synchronization
import Testing

@Suite struct BlockingTests {
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
