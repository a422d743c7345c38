import Base
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct ExecutorTests {
    @Test func `everything a ring task starts stays on the ring's thread`() async throws {
        try await onRing {
            let thread = pthread_self()
            async let child = { @concurrent () async in pthread_self() }()
            #expect(await child == thread)
            await Task.yield()
            #expect(pthread_self() == thread)
            await withTaskGroup(of: pthread_t.self) { group in
                for _ in 0..<8 { group.addTask { pthread_self() } }
                for await other in group { #expect(other == thread) }
            }
            _ = await RingActor.ring.blocking { 1 }
            #expect(pthread_self() == thread)
        }
    }

    @Test func `no wake-up from other threads is lost`() async throws {
        let count = try await onRing {
            await withTaskGroup(of: Int.self) { group in
                for _ in 0..<1000 {
                    group.addTask { await RingActor.ring.blocking { 1 } }
                }
                var sum = 0
                for await one in group { sum += one }
                return sum
            }
        }
        #expect(count == 1000)
    }

    @Test func `an idle ring is not woken`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {}
            let id = try #require(threads(named: "ring").first)
            let status = { contents("/proc/self/task/\(id)/schedstat") }
            try await onRing {}
            // The thread must be asleep before its wake-ups are counted.
            while contents("/proc/self/task/\(id)/stat")?.contains(") S ") != true {
                sched_yield()
            }
            let before = try #require(status())
            usleep(300_000)
            #expect(status() == before)
        }
    }

    @Test func `stop ends run`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {}
            #expect(threads(named: "ring").count == 1)
            RingActor.ring.stop()
            while !threads(named: "ring").isEmpty { sched_yield() }
        }
    }

    @Test func `a ring that cannot be set up names the likely cause`() async {
        await #expect(processExitsWith: .success) {
            var none = rlimit(rlim_cur: 0, rlim_max: 0)
            _ = setrlimit(__rlimit_resource_t(7), &none)
            let error = #expect(throws: RingUnavailable.self) { try RingActor.ring.start() }
            #expect(error?.description.contains("ulimit -n") == true)
        }
    }
}
