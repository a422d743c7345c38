/// A parser of bytes that come from outside the daemon, and what holds for it whatever these are.
///
/// `make fuzz` searches for bytes that break it; `Tests/Corpus` has a folder of inputs for each
/// case, by its name.
package enum CheckedParser: String, CaseIterable, Sendable {
    /// The bytes of a connection, as the server receives them.
    case request
    /// The bytes of a connection, as the client receives them.
    case response
    /// A body in the chunked transfer coding.
    case chunked
    case xml
    case json
    /// A state file, and its journal behind a NUL byte.
    case state
    /// The first KiB of an xfs, or the superblock of an ext.
    case superblock

    /// What `bytes` break; nil if everything holds. Traps if the parser does.
    package func broken(by bytes: [UInt8]) -> String? {
        switch self {
        case .request: brokenRequest(bytes)
        case .response: brokenResponse(bytes)
        case .chunked: brokenChunks(bytes)
        case .xml: brokenXML(bytes)
        case .json: brokenJSON(bytes)
        case .state: brokenState(bytes)
        case .superblock: brokenSuperblock(bytes)
        }
    }
}
