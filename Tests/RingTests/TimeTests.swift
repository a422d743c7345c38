import Base
import Ring
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct TimeTests {
    private struct Failure: Error {}

    @Test func `a sleep ends at its instant, not before`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let end = ring.now + .milliseconds(20)
            try await ring.sleep(until: end)
            #expect(ring.now >= end)
        }
    }

    @Test func `a sleep until a past instant ends at once`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let start = ring.now
            try await ring.sleep(until: Instant(nanoseconds: 0))
            try await ring.sleep(until: start)
            // It does not pause at all; only a heavily loaded machine takes this long.
            #expect(ring.now - start < .seconds(10))
        }
    }

    @Test func `a cancelled sleep throws without waiting`() async throws {
        try await onRing {
            let task = RingActor.spawn {
                try await RingActor.ring.sleep(until: Instant(nanoseconds: .max))
            }
            await Task.yield()
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func `a sleep in a task that is cancelled already throws`() async throws {
        try await onRing {
            let task = RingActor.spawn {
                withUnsafeCurrentTask { $0?.cancel() }
                try await RingActor.ring.sleep(until: Instant(nanoseconds: .max))
            }
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func `a sleep can be cancelled by another thread`() async throws {
        try await onRing {
            let task = RingActor.spawn {
                try await RingActor.ring.sleep(until: Instant(nanoseconds: .max))
            }
            await RingActor.ring.blocking { task.cancel() }
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func `sleeps end in the order of their instants`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let start = ring.now
            // Starting all of them takes less than the intervals between them, even on a loaded
            // machine.
            let steps: [Duration] = [
                .seconds(3), .milliseconds(1), .seconds(60), .milliseconds(300),
            ]
            let order = try await withThrowingTaskGroup(of: Int.self) { group in
                for index in steps.indices {
                    group.addTask {
                        try await ring.sleep(until: start + steps[index])
                        return index
                    }
                }
                defer { group.cancelAll() }
                return [try await group.next(), try await group.next()]
            }
            #expect(order == [1, 3])
        }
    }

    @Test func `work within its deadline returns its value`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let value = try await ring.withDeadline(ring.now + .seconds(60)) { 7 }
            #expect(value == 7)
        }
    }

    @Test func `work past its deadline is cancelled`() async throws {
        try await onRing {
            let ring = RingActor.ring
            await #expect(throws: DeadlineExceeded.self) {
                try await ring.withDeadline(ring.now + .milliseconds(5)) {
                    try await ring.sleep(until: Instant(nanoseconds: .max))
                }
            }
        }
    }

    @Test func `an error before the deadline is thrown as it is`() async throws {
        try await onRing {
            let ring = RingActor.ring
            await #expect(throws: Failure.self) {
                try await ring.withDeadline(ring.now + .seconds(60)) { throw Failure() }
            }
        }
    }

    @Test func `cancelling the caller cancels the work`() async throws {
        try await onRing {
            let ring = RingActor.ring
            let task = RingActor.spawn {
                try await ring.withDeadline(ring.now + .seconds(60)) {
                    try await ring.sleep(until: Instant(nanoseconds: .max))
                }
            }
            await Task.yield()
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }
}
