import Base

/// A line of /proc/PID/mountinfo. Source: proc(5), and show_mountinfo in the kernel's
/// fs/proc_namespace.c for the escapes.
struct MountInfoLine: Equatable {
    var device: DeviceNumber
    /// The directory of the file system that is mounted here: `/`, or the source of a bind mount.
    var root: String
    var mountpoint: String
    var options: String
    var type: String
    var source: String
    var superOptions: String

    /// Whether the mount or its file system is read-only.
    var readOnly: Bool {
        [options, superOptions].contains { $0.split(separator: ",").contains("ro") }
    }

    /// Whether the journal was not replayed; the daemon requests this only if the journal is not
    /// empty. The kernel shows the option as norecovery for xfs, and as noload or norecovery for
    /// ext4.
    var skipsReplay: Bool {
        superOptions.split(separator: ",").contains { $0 == "norecovery" || $0 == "noload" }
    }

    /// Nil if the kernel would not write such a line.
    init?(_ line: some Collection<UInt8>) {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        // Six fields, any number of propagation fields, a dash, three fields.
        guard fields.count >= 10,
            let dash = fields.dropFirst(6).firstIndex(where: { $0.elementsEqual("-".utf8) }),
            fields.endIndex - dash == 4,
            let device = DeviceNumber(String(decoding: fields[2], as: UTF8.self))
        else { return nil }
        self.device = device
        root = unescaped(fields[3])
        mountpoint = unescaped(fields[4])
        options = unescaped(fields[5])
        type = unescaped(fields[dash + 1])
        source = unescaped(fields[dash + 2])
        superOptions = unescaped(fields[dash + 3])
    }

    /// The lines in the kernel's order: of two mounts on one mountpoint, the later one is on top.
    /// Nil if the kernel would not write one of the lines.
    static func parse(_ text: [UInt8]) -> [MountInfoLine]? {
        var lines: [MountInfoLine] = []
        for text in text.split(separator: UInt8(ascii: "\n")) {
            guard let line = MountInfoLine(text) else { return nil }
            lines.append(line)
        }
        return lines
    }
}

extension DeviceNumber {
    /// Parses `259:3`, the format of sysfs and mountinfo.
    init?(_ text: some StringProtocol) {
        let numbers = text.split(separator: ":", omittingEmptySubsequences: false)
        guard numbers.count == 2, let major = UInt32(numbers[0]), let minor = UInt32(numbers[1])
        else { return nil }
        self.init(major: major, minor: minor)
    }
}

/// The kernel writes a space, tab, newline, backslash and `#` as `\` and three octal digits.
private func unescaped(_ field: some Collection<UInt8>) -> String {
    var bytes: [UInt8] = []
    var rest = field[...]
    while let byte = rest.popFirst() {
        let digits = rest.prefix(3)
        if byte == UInt8(ascii: "\\"), digits.count == 3,
            let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
        {
            bytes.append(code)
            rest = rest.dropFirst(3)
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
