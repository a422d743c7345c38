import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct SignalTests {
    @Test func `SIGTERM and SIGINT are taken as events, in turn`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let signals = try TerminationSignals()
                let waiting = RingActor.spawn { try await signals.next() }
                await Task.yield()
                // Sent to this thread, because other threads of a test process do not block
                // signals.
                pthread_kill(pthread_self(), SIGTERM)
                #expect(try await waiting.value == .terminate)
                pthread_kill(pthread_self(), SIGINT)
                #expect(try await signals.next() == .interrupt)
            }
        }
    }

    @Test func `waiting for a signal can be cancelled`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let signals = try TerminationSignals()
                let waiting = RingActor.spawn { try await signals.next() }
                await Task.yield()
                waiting.cancel()
                await #expect(throws: Errno.canceled) { try await waiting.value }
            }
        }
    }

    @Test func `writing to a closed pipe is an error, not a signal`() async throws {
        try await onRing {
            var ends: [Int32] = [0, 0]
            try check(pipe(&ends))
            close(ends[0])
            let writeEnd = Descriptor(owning: ends[1])
            #expect(write(writeEnd.rawValue, "x", 1) == -1 && errno == EPIPE)
        }
    }
}
