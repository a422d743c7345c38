/// An injected fault.
package struct Fault: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// An EC2 error instead of the call; for IMDS, a bare status.
        case error(APIError)
        /// The connection ends without a response; the call was not applied.
        case lostBefore
        /// The connection ends without a response; the call was applied.
        case lostAfter
        /// The connection is reset (RST) without a response; the call was not applied.
        case reset
        /// The response to an applied call ends in the middle of its body.
        case truncated
        /// The response to an applied call takes this much longer, and its body arrives in pieces.
        case slow(milliseconds: Int)
        /// The call takes this much longer on its way to EC2, before it is applied.
        case late(milliseconds: Int)
        /// The call is applied only once the faults are removed.
        case held
        /// There is no response and the connection stays open; the call was not applied.
        case hang
        /// The device never appears; if `stuck`, the attachment stays `attaching`.
        case deviceNever(stuck: Bool)
        /// EC2 ends the attachment this much later, and no device appears. This happens with an
        /// encrypted volume whose key EC2 may not use.
        case attachmentEnds(milliseconds: Int)
        /// After a detachment, the device's node and sysfs entry stay, but dead, as long as
        /// something has it mounted.
        case deviceStays
        /// The device appears this much later.
        case deviceLate(milliseconds: Int)
        /// The device is nvme<number>n1, even if a lower number is free.
        case deviceNumber(Int)
        /// The controller reports this serial number.
        case deviceSerial(String)
        /// A new volume is gone when its creation is over. This happens with an encrypted volume
        /// whose key EC2 may not use.
        case vanishes
        /// A snapshot or a modification ends in its failed state.
        case fails

        /// Whether it can happen to this action.
        package func suits(_ action: String) -> Bool {
            switch self {
            case .deviceNever, .deviceLate, .deviceNumber, .deviceSerial, .deviceStays,
                .attachmentEnds:
                action == "Device"
            case .vanishes: action == "Volume"
            case .fails: action == "Snapshot" || action == "Modification"
            default: !Fault.resources.contains(action)
            }
        }
    }

    /// The actions that are not calls: what happens to a device, a new volume, a snapshot or a
    /// modification.
    static let resources: Set<String> = ["Device", "Volume", "Snapshot", "Modification"]

    package enum Frequency: Sendable, Equatable {
        /// The next occasions, this many of them.
        case count(Int)
        /// This fraction of all occasions, evenly spread: 0.25 is every fourth. Not random.
        case share(Double)
    }

    /// An EC2 action, `IMDS`, `Device`, `Volume`, `Snapshot`, `Modification`, or `*` for every EC2
    /// action.
    package var action: String
    package var kind: Kind
    package var frequency: Frequency
    /// For IMDS: only paths with this prefix. For Device, Snapshot and Modification: only this
    /// volume.
    package var subject: String?

    package init(action: String, kind: Kind, frequency: Frequency, subject: String? = nil) {
        self.action = action
        self.kind = kind
        self.frequency = frequency
        self.subject = subject
    }
}

/// The active faults.
package struct Faults: Sendable {
    private var faults: [(fault: Fault, due: Double)] = []

    package init() {}

    package mutating func add(_ fault: Fault) { faults.append((fault, 0)) }
    package mutating func removeAll() { faults = [] }

    /// The fault for this occasion, if any; the first one that was added wins.
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
                // A tiny addition, so that ten tenths make one.
                faults[index].due += share + 1e-9
                guard faults[index].due >= 1 else { continue }
                faults[index].due -= 1
                return faults[index].fault.kind
            }
        }
        return nil
    }

    private func applies(_ fault: Fault, _ action: String, _ subject: String) -> Bool {
        let isEC2 = action != "IMDS" && !Fault.resources.contains(action)
        guard fault.action == action || fault.action == "*" && isEC2 else { return false }
        return fault.subject.map { subject.hasPrefix($0) } ?? true
    }
}
