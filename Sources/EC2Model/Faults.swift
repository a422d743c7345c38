/// Something that goes wrong on purpose.
package struct Fault: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// An EC2 error, or at IMDS a bare status, instead of the call.
        case error(APIError)
        /// The connection ends without an answer; the call was not applied.
        case lostBefore
        /// The connection ends without an answer; the call was applied.
        case lostAfter
        /// The connection is reset (RST) without an answer; the call was not applied.
        case reset
        /// The answer of an applied call ends in the middle of its body.
        case truncated
        /// The answer of an applied call takes this much longer, and its body comes in pieces.
        case slow(milliseconds: Int)
        /// The call takes this much longer on its way to EC2, before it is applied.
        case late(milliseconds: Int)
        /// The call is applied only once the faults are removed.
        case held
        /// No answer comes and the connection stays; the call was not applied.
        case hang
        /// The device never appears; the attachment stays `attaching` where `stuck`.
        case deviceNever(stuck: Bool)
        /// EC2 takes the attachment back this much later, and no device appears: so ends that of an
        /// encrypted volume whose key EC2 may not use.
        case attachmentEnds(milliseconds: Int)
        /// The device's node and sysfs entry stay, dead, after a detachment, as long as something has
        /// it mounted.
        case deviceStays
        /// The device appears this much later.
        case deviceLate(milliseconds: Int)
        /// The device is nvme<number>n1, whatever is free below it.
        case deviceNumber(Int)
        /// The controller reports this serial number.
        case deviceSerial(String)

        package var isDevice: Bool {
            switch self {
            case .deviceNever, .deviceLate, .deviceNumber, .deviceSerial, .deviceStays,
                .attachmentEnds:
                true
            default: false
            }
        }
    }

    package enum Frequency: Sendable, Equatable {
        /// The next so many times.
        case count(Int)
        /// This share of all times, evenly spread: 0.25 is each fourth time. No randomness.
        case share(Double)
    }

    /// An EC2 action, `IMDS`, `Device`, or `*` for every EC2 action.
    package var action: String
    package var kind: Kind
    package var frequency: Frequency
    /// IMDS: only paths that begin so. Device: only this volume.
    package var subject: String?

    package init(action: String, kind: Kind, frequency: Frequency, subject: String? = nil) {
        self.action = action
        self.kind = kind
        self.frequency = frequency
        self.subject = subject
    }
}

/// The faults in force.
package struct Faults: Sendable {
    private var faults: [(fault: Fault, due: Double)] = []

    package init() {}

    package mutating func add(_ fault: Fault) { faults.append((fault, 0)) }
    package mutating func removeAll() { faults = [] }

    /// The fault for this occasion, if there is one; the first that was added wins.
    package mutating func take(_ action: String, subject: String = "") -> Fault.Kind? {
        for index in faults.indices where applies(faults[index].fault, action, subject) {
            switch faults[index].fault.frequency {
            case .count(let count) where count > 0:
                let kind = faults[index].fault.kind
                faults[index].fault.frequency = .count(count - 1)
                if count == 1 { faults.remove(at: index) }
                return kind
            case .count: continue
            case .share(let share):
                // A hair's breadth makes ten tenths one.
                faults[index].due += share + 1e-9
                guard faults[index].due >= 1 else { continue }
                faults[index].due -= 1
                return faults[index].fault.kind
            }
        }
        return nil
    }

    private func applies(_ fault: Fault, _ action: String, _ subject: String) -> Bool {
        let isEC2 = action != "IMDS" && action != "Device"
        guard fault.action == action || fault.action == "*" && isEC2 else { return false }
        return fault.subject.map { subject.hasPrefix($0) } ?? true
    }
}
