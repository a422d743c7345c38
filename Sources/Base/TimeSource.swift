/// A point on the monotonic clock (CLOCK_MONOTONIC), in nanoseconds. Deadlines are such points.
package struct Instant: Comparable, Hashable, Sendable {
    package var nanoseconds: UInt64

    package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    package static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates at both ends of the range.
    package static func + (instant: Instant, duration: Duration) -> Instant {
        let delta = duration.nanoseconds
        let (sum, overflow) =
            delta >= 0
            ? instant.nanoseconds.addingReportingOverflow(UInt64(delta))
            : instant.nanoseconds.subtractingReportingOverflow(delta.magnitude)
        if overflow { return Instant(nanoseconds: delta >= 0 ? .max : 0) }
        return Instant(nanoseconds: sum)
    }

    /// The time from `b` to `a`, negative when `a` is the earlier one.
    package static func - (a: Instant, b: Instant) -> Duration {
        a >= b
            ? .nanoseconds(Int64(clamping: a.nanoseconds - b.nanoseconds))
            : .zero - .nanoseconds(Int64(clamping: b.nanoseconds - a.nanoseconds))
    }
}

extension Duration {
    /// Whole nanoseconds, clamped to what an `Int64` holds (292 years).
    package var nanoseconds: Int64 { Int64(clamping: attoseconds / 1_000_000_000) }

    /// Milliseconds with a fraction, for log lines.
    package var milliseconds: Double { Double(nanoseconds) / 1e6 }
}

/// The clocks, so that a simulation can bring its own.
package protocol TimeSource: Sendable {
    /// The monotonic clock.
    var now: Instant { get }

    /// Seconds since 1970-01-01T00:00:00Z by this machine's wall clock.
    var unixSeconds: Int64 { get }

    /// Returns at `instant` or later; throws `CancellationError` when the task is cancelled first.
    func sleep(until instant: Instant) async throws
}
