package import Base

/// A point in time as both clocks tell it: the monotonic one for waits, the wall clock for stamps.
package struct Moment: Sendable, Equatable {
    package var instant: Instant
    /// Seconds since 1970-01-01T00:00:00Z.
    package var unixSeconds: Int64

    package init(instant: Instant, unixSeconds: Int64) {
        self.instant = instant
        self.unixSeconds = unixSeconds
    }
}

/// As EC2 writes a time, `2026-01-31T12:00:00.000Z`.
func timestamp(_ unixSeconds: Int64) -> String {
    CivilTime(unixSeconds: unixSeconds).rfc3339.dropLast() + ".000Z"
}
