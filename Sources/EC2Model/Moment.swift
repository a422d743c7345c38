package import Base

/// A point in time on both clocks: the monotonic clock for waits, the wall clock for timestamps.
package struct Moment: Sendable, Equatable {
    package var instant: Instant
    /// Seconds since 1970-01-01T00:00:00Z.
    package var unixSeconds: Int64

    package init(instant: Instant, unixSeconds: Int64) {
        self.instant = instant
        self.unixSeconds = unixSeconds
    }
}

/// EC2's format of a time, `2026-01-31T12:00:00.000Z`.
func timestamp(_ unixSeconds: Int64) -> String {
    CivilTime(unixSeconds: unixSeconds).rfc3339.dropLast() + ".000Z"
}
