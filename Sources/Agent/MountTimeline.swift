import Base
import Logging

/// How long each step of a Mount took, for its log line.
struct MountTimeline {
    enum Step: String {
        /// Until EC2 accepted the attachment, detaching elsewhere included.
        case attach
        /// From there until the device was seen.
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

    /// Ends a step; the next one begins.
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
