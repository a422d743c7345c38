import Base
import EC2Model
import JSON

extension Fault {
    /// `{"action", "kind", "count" or "probability", …}`; once if neither is given.
    ///
    /// `action` is an EC2 action, `*` for all of them, `IMDS` (optionally restricted by `path`),
    /// `Volume` (a new one `vanishes`), or `Device`, `Snapshot` (`fails`) or `Modification`
    /// (`fails`), these three optionally restricted by `volume`. Further members: `code`, `status`
    /// and `message` of an error; `milliseconds` of slow, late, deviceLate and attachmentEnds;
    /// `stuck`, `number` and `serial` of the other device faults.
    init(_ value: JSONValue, _ name: String) throws(InputError) {
        var reader = try ObjectReader(value, name)
        let action = try reader.requiredString("action")
        let kind = try Kind(&reader)
        guard kind.suits(action) else {
            throw reader.wrong("kind", "one that can happen to the action \(action)")
        }
        let count = try reader.integer("count", in: 1...1_000_000)
        let share = try reader.number("probability")
        guard share.map({ $0 > 0 && $0 <= 1 }) ?? true, count == nil || share == nil else {
            throw reader.wrong("probability", "above 0 and at most 1, and without a count")
        }
        let path = try reader.string("path")
        let volume = try reader.string("volume")
        self.init(
            action: action, kind: kind,
            frequency: share.map(Frequency.share) ?? .count(count ?? 1), subject: path ?? volume)
        try reader.finish()
    }
}

extension Fault.Kind {
    private static let names =
        "error, lostBefore, lostAfter, reset, truncated, slow, late, held, hang, deviceNever, "
        + "deviceLate, deviceNumber, deviceSerial, deviceStays, attachmentEnds, vanishes, fails"

    fileprivate init(_ reader: inout ObjectReader) throws(InputError) {
        switch try reader.requiredString("kind") {
        case "error":
            let status = try reader.integer("status", in: 400...599)
            let code = try reader.string("code") ?? "InternalError"
            self = .error(
                APIError(
                    code, try reader.string("message") ?? "An internal error has occurred",
                    status: status ?? Self.usualStatus(code)))
        case "lostBefore": self = .lostBefore
        case "lostAfter": self = .lostAfter
        case "reset": self = .reset
        case "truncated": self = .truncated
        case "slow": self = .slow(milliseconds: try Self.milliseconds(&reader))
        case "late": self = .late(milliseconds: try Self.milliseconds(&reader))
        case "held": self = .held
        case "hang": self = .hang
        case "deviceStays": self = .deviceStays
        case "vanishes": self = .vanishes
        case "fails": self = .fails
        case "attachmentEnds":
            self = .attachmentEnds(milliseconds: try Self.milliseconds(&reader))
        case "deviceNever": self = .deviceNever(stuck: try reader.bool("stuck") ?? true)
        case "deviceLate": self = .deviceLate(milliseconds: try Self.milliseconds(&reader))
        case "deviceNumber":
            guard let number = try reader.integer("number", in: 1...999) else {
                throw reader.wrong("number", "there")
            }
            self = .deviceNumber(number)
        case "deviceSerial": self = .deviceSerial(try reader.requiredString("serial"))
        default: throw reader.wrong("kind", "one of " + Self.names)
        }
    }

    private static func milliseconds(_ reader: inout ObjectReader) throws(InputError) -> Int {
        try reader.integer("milliseconds", in: 0...3_600_000) ?? 1000
    }

    private static func usualStatus(_ code: String) -> Int {
        switch code {
        case "RequestLimitExceeded", "Unavailable", "ServiceUnavailable": 503
        case "InternalError", "InternalFailure": 500
        case "UnauthorizedOperation", "SignatureDoesNotMatch": 403
        case "AuthFailure": 401
        default: 400
        }
    }
}
