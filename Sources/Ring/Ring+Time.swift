package import Base
import Glibc
import SystemPackage

extension Ring: TimeSource {
    package var now: Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    package var unixSeconds: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec)
    }

    /// Throws `Errno.noBufferSpace` if `Limit.operationsInFlightMax` operations are in flight.
    package func sleep(until instant: Instant) async throws {
        let result = await perform(.timeout(instant))
        switch -result {
        case ETIME: return
        case ECANCELED: throw CancellationError()
        default: throw Errno(rawValue: -result)
        }
    }

    /// Runs `body` in a child task, which is cancelled at `deadline`.
    ///
    /// Returns only when `body` has ended. Throws `DeadlineExceeded` if `body` throws after the
    /// deadline; if it returns, its result counts even if it is late.
    @RingActor
    package func withDeadline<T: Sendable>(
        _ deadline: Instant, _ body: @escaping @RingActor @Sendable () async throws -> T
    ) async throws -> T {
        try await withThrowingTaskGroup(of: T?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                try await self.sleep(until: deadline)
                return nil
            }
            defer { group.cancelAll() }
            if case .some(.some(let value)) = try await group.next() { return value }
            group.cancelAll()
            do {
                if case .some(.some(let value)) = try await group.next() { return value }
            } catch {}
            throw DeadlineExceeded()
        }
    }
}

/// A deadline passed before the work was done.
package struct DeadlineExceeded: Error, Sendable, CustomStringConvertible {
    package init() {}

    package var description: String { "the deadline has passed" }
}
