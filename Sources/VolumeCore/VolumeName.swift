package import Base

/// Docker's name for a volume: its id, or an alias with the id as an option.
package enum VolumeName {
    /// Throws for any other name, before it is looked up.
    package static func check(_ name: String) throws(OperationError) {
        guard !isValid(name) else { return }
        throw OperationError(
            .invalidInput, doing: "use the volume name \(quoted(name))",
            found: "it is not an EBS volume id",
            advice: "an id is vol- and 8 or 17 lower-case hexadecimal digits; "
                + "for another name, of letters, digits, _ . and -, give the id with -o volume-id")
    }

    package static func isValid(_ name: String) -> Bool { isAlias(name) || VolumeID(name) != nil }

    /// The volume that a Create of this name is about.
    package static func volume(
        _ name: String, _ options: VolumeOptions
    ) throws(OperationError) -> VolumeID {
        try check(name)
        let named = VolumeID(name)
        if let named, let given = options.volumeID, named != given {
            throw OperationError(
                .invalidInput, doing: "create \(name)",
                found: "volume-id names another volume, \(given)",
                advice: "leave volume-id out, or use a name that is not a volume id")
        }
        guard let id = named ?? options.volumeID else {
            throw OperationError(
                .invalidInput, doing: "create \(name)", found: "the name is not an EBS volume id",
                advice: "an id is vol- and 8 or 17 lower-case hexadecimal digits; "
                    + "or say which volume is meant with -o volume-id=vol-…")
        }
        return id
    }

    /// Follows Docker's rules for names, but must not look like an invalid id.
    private static func isAlias(_ name: String) -> Bool {
        guard (1...Limit.volumeNameMax).contains(name.utf8.count), !name.hasPrefix("vol-"),
            let first = name.utf8.first, isAlphanumeric(first)
        else { return false }
        return name.utf8.allSatisfy { isAlphanumeric($0) || "_.-".utf8.contains($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
            || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }
}
