import Base
import Logging

/// The duration of each step of a Mount, for its log line.
struct MountTimeline {
    enum Step: String {
        /// Until EC2 accepted the attachment, including a detachment from another instance.
        case attach
        /// From then until the device was found.
        case device
        case probe, format, mount
    }

    private let start: Instant
    private var last: Instant
    private var steps: [(Step, Duration)] = []

    init(since start: Instant) {
        self.start = start
        last = start
    }

    /// Ends a step and begins the next one.
    mutating func mark(_ step: Step, at now: Instant) {
        steps.append((step, now - last))
        last = now
    }

    var metadata: Logger.Metadata {
        var metadata: Logger.Metadata = ["total_ms": "\(tenths(last - start))"]
        for (step, duration) in steps { metadata["\(step.rawValue)_ms"] = "\(tenths(duration))" }
        return metadata
    }
}

/// Milliseconds with one decimal.
func tenths(_ duration: Duration) -> String {
    let tenths = (duration.nanoseconds + 50_000) / 100_000
    return "\(tenths / 10).\(abs(tenths % 10))"
}
