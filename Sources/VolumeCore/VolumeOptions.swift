package import Base

/// What `docker volume create -o` says of a volume.
package struct VolumeOptions: Sendable, Equatable {
    /// Mount it read-only; a blank volume is then refused instead of formatted.
    package var readOnly: Bool
    /// Make the file system so that every kernel since 4.14 mounts it.
    package var legacyFormat: Bool

    package init(readOnly: Bool = false, legacyFormat: Bool = false) {
        self.readOnly = readOnly
        self.legacyFormat = legacyFormat
    }

    /// The names that `-o` takes.
    package static let known = ["mkfs-legacy", "read-only"]

    /// Throws for an option that is not known or has a value that it does not take.
    package init(_ options: [String: String]) throws(OperationError) {
        self.init()
        for (name, value) in options.sorted(by: { $0.key < $1.key }) {
            switch name {
            case "read-only": readOnly = try Self.flag(name, value)
            case "mkfs-legacy": legacyFormat = try Self.flag(name, value)
            default:
                throw OperationError(
                    .invalidInput, doing: "use the option \(quoted(name))",
                    found: "there is no such option",
                    advice: "the options are \(Self.known.joined(separator: ", "))")
            }
        }
    }

    private static func flag(_ name: String, _ value: String) throws(OperationError) -> Bool {
        switch value {
        case "", "true": return true
        case "false": return false
        default:
            throw OperationError(
                .invalidInput, doing: "use the option \(name)=\(quoted(value))",
                found: "the value is neither true nor false")
        }
    }

    /// The options as `-o` would give them; what is as it is by default is left out.
    package var dictionary: [String: String] {
        var options: [String: String] = [:]
        if readOnly { options["read-only"] = "true" }
        if legacyFormat { options["mkfs-legacy"] = "true" }
        return options
    }
}

/// Text from outside as it may stand in an error or a log line: short, and printable ASCII alone.
package func quoted(_ text: some StringProtocol) -> String {
    let shown = text.unicodeScalars.prefix(64).map { scalar in
        (0x20..<0x7f).contains(scalar.value) && scalar != "\"" ? String(scalar) : "?"
    }
    return "\"" + shown.joined() + (text.unicodeScalars.count > 64 ? "…" : "") + "\""
}
