package import Base

/// The options of `docker volume create -o` for a volume.
package struct VolumeOptions: Sendable, Equatable {
    /// The id of the volume, if its name is one of the user's choice.
    package var volumeID: VolumeID?
    /// The file system of a blank volume; nil: that of the setting.
    package var fileSystem: FileSystemType?
    /// Create the file system so that every kernel since 4.14 can mount it.
    package var legacyFormat: Bool
    /// Owner and permissions of a new file system's root; nil: those of mkfs.
    package var uid: UInt32?
    package var gid: UInt32?
    package var mode: UInt32?
    /// Mount it read-only, writing only to replay the journal; a blank volume is then rejected
    /// instead of formatted.
    package var readOnly: Bool
    /// Names of mount(8), each allowed by `MountOption`.
    package var mountOptions: [String] = []
    /// Nil: the setting.
    package var takeover: TakeoverPolicy?
    /// The partition to mount, counted from 1; nil: the whole device.
    package var partition: Int?

    package init(readOnly: Bool = false, legacyFormat: Bool = false) {
        self.readOnly = readOnly
        self.legacyFormat = legacyFormat
    }

    /// The names that `-o` takes.
    package static let known = [
        "fs-type", "gid", "mkfs-legacy", "mode", "mount-options", "partition", "read-only",
        "takeover", "uid", "volume-id",
    ]

    /// Throws for an unknown option or an invalid value.
    package init(_ options: [String: String]) throws(OperationError) {
        self.init()
        for (name, text) in options.sorted(by: { $0.key < $1.key }) {
            let value = OptionValue(name: name, text: text)
            switch name {
            case "fs-type": fileSystem = try value.oneOf(FileSystemType.self)
            case "gid": gid = try value.id()
            case "mkfs-legacy": legacyFormat = try value.flag()
            case "mode": mode = try value.mode()
            case "mount-options": mountOptions = try value.mountOptions()
            case "partition": partition = try value.partition()
            case "read-only": readOnly = try value.flag()
            case "takeover": takeover = try value.oneOf(TakeoverPolicy.self)
            case "uid": uid = try value.id()
            case "volume-id": volumeID = try value.volumeID()
            default:
                throw OperationError(
                    .invalidInput, doing: "use the option \(quoted(name))",
                    found: "there is no such option",
                    advice: "the options are \(Self.known.joined(separator: ", "))")
            }
        }
        guard readOnly || !skipsReplay else {
            throw OperationError(
                .invalidInput, doing: "use the option mount-options=\(quoted("norecovery"))",
                found: "a writable mount would lose what is only in the journal",
                advice: "use it together with -o read-only=true")
        }
    }

    /// Of the options that must agree while a volume is mounted by two names, the first one that
    /// differs, with both values. Nil if there is none.
    ///
    /// - Parameter fileSystem: the file system for options that name none.
    package func conflict(
        with other: VolumeOptions, fileSystem standard: FileSystemType
    ) -> (option: String, own: String, others: String)? {
        let pairs = [
            (
                "fs-type", (fileSystem ?? standard).rawValue,
                (other.fileSystem ?? standard).rawValue
            ),
            ("partition", Self.told(partition), Self.told(other.partition)),
            ("read-only", "\(readOnly)", "\(other.readOnly)"),
            ("mount-options", Self.told(mountOptions), Self.told(other.mountOptions)),
        ]
        return pairs.first { $0.1 != $0.2 }
    }

    private static func told(_ partition: Int?) -> String {
        partition.map { "\($0)" } ?? "none"
    }

    private static func told(_ mountOptions: [String]) -> String {
        mountOptions.isEmpty ? "none" : mountOptions.sorted().joined(separator: ",")
    }

    /// The options in the form of `-o`, without defaults.
    package var dictionary: [String: String] {
        var options: [String: String] = [:]
        options["fs-type"] = fileSystem?.rawValue
        options["gid"] = gid.map { "\($0)" }
        if legacyFormat { options["mkfs-legacy"] = "true" }
        options["mode"] = mode.map { String($0, radix: 8) }
        if !mountOptions.isEmpty {
            options["mount-options"] = mountOptions.joined(separator: ",")
        }
        options["partition"] = partition.map { "\($0)" }
        if readOnly { options["read-only"] = "true" }
        options["takeover"] = takeover?.rawValue
        options["uid"] = uid.map { "\($0)" }
        options["volume-id"] = volumeID.map { "\($0)" }
        return options
    }
}

/// An option's value, and parsers for each kind of value.
private struct OptionValue {
    var name: String
    var text: String

    func flag() throws(OperationError) -> Bool {
        switch text {
        case "", "true": return true
        case "false": return false
        default: throw refused("the value is neither true nor false")
        }
    }

    func oneOf<T>(_ type: T.Type) throws(OperationError) -> T
    where T: RawRepresentable<String> & CaseIterable {
        if let value = T(rawValue: text) { return value }
        let values = T.allCases.map(\.rawValue).joined(separator: ", ")
        throw refused("there is no such value", advice: "the values are \(values)")
    }

    /// A user or group id. The largest number means "unchanged" to chown(2).
    func id() throws(OperationError) -> UInt32 {
        guard let id = number(radix: 10), id < UInt32.max else {
            throw refused(
                "the value is not a number from 0 to \(UInt32.max - 1)",
                advice: "names are unknown here: use the number that the container uses")
        }
        return id
    }

    func mode() throws(OperationError) -> UInt32 {
        guard text.utf8.count <= 5, let mode = number(radix: 8), mode <= 0o7777 else {
            throw refused(
                "the value is not an octal number up to 7777", advice: "for example 0755 or 2770")
        }
        return mode
    }

    func partition() throws(OperationError) -> Int {
        guard let number = number(radix: 10), (1...128).contains(number) else {
            throw refused("the value is not a number from 1 to 128")
        }
        return Int(number)
    }

    func volumeID() throws(OperationError) -> VolumeID {
        guard let id = VolumeID(text) else {
            throw refused(
                "it is not an EBS volume id",
                advice: "an id is vol- and 8 or 17 lower-case hexadecimal digits")
        }
        return id
    }

    func mountOptions() throws(OperationError) -> [String] {
        let options = text.split(separator: ",").map { String($0) }
        for option in options {
            guard MountOption(option) != nil else {
                throw refused(
                    "the mount option \(quoted(option)) is not allowed",
                    advice: MountOption.advice(about: option))
            }
        }
        return options
    }

    /// Digits only: `Int` would accept a sign.
    private func number(radix: Int) -> UInt32? {
        guard text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else {
            return nil
        }
        return UInt32(text, radix: radix)
    }

    private func refused(_ found: String, advice: String? = nil) -> OperationError {
        OperationError(
            .invalidInput, doing: "use the option \(name)=\(quoted(text))", found: found,
            advice: advice)
    }
}

/// Text from outside, made safe for an error or a log line: short, and only printable ASCII.
package func quoted(_ text: some StringProtocol) -> String {
    let shown = text.unicodeScalars.prefix(64).map { scalar in
        (0x20..<0x7f).contains(scalar.value) && scalar != "\"" ? String(scalar) : "?"
    }
    return "\"" + shown.joined() + (text.unicodeScalars.count > 64 ? "…" : "") + "\""
}
