/// An EBS volume's id: `vol-` and 8 or 17 lower-case hexadecimal digits.
///
/// A value of this type is safe in a path, in a URL and in a log line: nothing else parses.
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html.
package struct VolumeID: Hashable, Sendable, CustomStringConvertible {
    /// The id as EC2 writes it, `vol-0123456789abcdef0`.
    package let description: String

    package init?(_ text: String) {
        guard isResourceID(text, prefix: "vol-") else { return nil }
        description = text
    }

    package init?(_ text: Substring) { self.init(String(text)) }

    /// An id in source code: an invalid one is a bug, and traps.
    package init(literal text: StaticString) {
        guard let id = VolumeID("\(text)") else { preconditionFailure("\(text) is no volume id") }
        self = id
    }

    /// The serial number of the volume's NVMe controller: the id without its dash.
    ///
    /// Source: docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html.
    package var nvmeSerial: String { "vol" + description.dropFirst(4) }
}

/// An EC2 instance's id: `i-` and 8 or 17 lower-case hexadecimal digits.
package struct InstanceID: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init?(_ text: String) {
        guard isResourceID(text, prefix: "i-") else { return nil }
        description = text
    }

    /// An id in source code: an invalid one is a bug, and traps.
    package init(literal text: StaticString) {
        guard let id = InstanceID("\(text)") else {
            preconditionFailure("\(text) is no instance id")
        }
        self = id
    }
}

private func isResourceID(_ text: String, prefix: String) -> Bool {
    let bytes = text.utf8.span
    let start = prefix.utf8.span
    let digits = bytes.count - start.count
    guard digits == 8 || digits == 17 else { return false }
    for index in start.indices where bytes[index] != start[index] { return false }
    for index in start.count..<bytes.count {
        switch bytes[index] {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): continue
        default: return false
        }
    }
    return true
}
