import Base

/// One thing that happened in a life.
struct LifeEvent {
    enum Kind: Int {
        case create, remove, mount, unmount, mounted, unmounted, refused, cut, lost
        case attachVolume, detachVolume, createTags, deleteTags, describe, fault
        case attaching, attached, detaching, busy, free, device, deviceGone
        case kernelMount, kernelUnmount, format, write, writeFailed, busyUnmount
        case save, pluginUp, pluginDown, dockerUp, dockerDown, reboot, stopped, terminated, booted
        case containerUp, containerDown, settle, log, deleted, stateLost
        case tagsByHand, multiAttach, byHand, shutDown, hang
    }

    let at: Instant
    let kind: Kind
    let host: Int
    let volume: Int
    let detail: Int
    /// Text for the reader, generated only in a replayed life.
    let text: String
}

/// A broken invariant ends a life with this.
package struct LifeFailure: Sendable, CustomStringConvertible {
    package let seed: UInt64
    /// The invariant, in words that stay the same from seed to seed.
    package let invariant: String
    package let detail: String
    /// The last events, oldest first.
    package let events: [String]

    package var description: String {
        "seed \(seed): broken: \(invariant): \(detail)\n  "
            + events.joined(separator: "\n  ")
    }
}

/// The events of one life, as a digest and, on demand, as text.
final class LifeTrace: @unchecked Sendable {
    let scheduler: Scheduler
    private let isTold: Bool
    private(set) var events: [LifeEvent] = []
    private(set) var broken: (invariant: String, detail: String)?

    init(scheduler: Scheduler, isTold: Bool) {
        self.scheduler = scheduler
        self.isTold = isTold
    }

    func note(
        _ kind: LifeEvent.Kind, host: Int = -1, volume: Int = -1, _ detail: Int = 0,
        _ text: @autoclosure () -> String = ""
    ) {
        scheduler.note(
            UInt64(
                truncatingIfNeeded: kind.rawValue &* 1_000_003 &+ host &* 131 &+ volume &* 31
                    &+ detail))
        guard isTold else { return }
        events.append(
            LifeEvent(
                at: scheduler.now, kind: kind, host: host, volume: volume, detail: detail,
                text: text()))
    }

    /// A line of a daemon's log.
    func tell(host: Int, _ text: String) {
        events.append(
            LifeEvent(
                at: scheduler.now, kind: .log, host: host, volume: -1, detail: 0, text: text))
    }

    /// Reports a broken invariant. The first one is kept.
    func broke(_ invariant: String, _ detail: @autoclosure () -> String) {
        if broken == nil { broken = (invariant, detail()) }
    }

    func lines(last count: Int) -> [String] {
        events.suffix(count).map { event in
            let milliseconds = event.at.nanoseconds / 1_000_000
            var line = "\(milliseconds / 1000).\(String(1000 + milliseconds % 1000).dropFirst()) s"
            if event.host >= 0 { line += " host \(event.host)" }
            if event.volume >= 0 { line += " volume \(event.volume)" }
            line += " \(event.kind)"
            if event.detail != 0 { line += " \(event.detail)" }
            return event.text.isEmpty ? line : line + ": " + event.text
        }
    }
}
