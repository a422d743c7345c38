import Base
import Glibc
import Ring

/// The initial contents of a volume.
enum VolumeContent: String, CaseIterable {
    /// One large hole, which reads as zeros.
    case blank
    case xfs, ext4
    /// A DOS partition table with one partition.
    case partitioned
    /// No signature, but not blank: some bytes in the first MiB.
    case data
    /// The same in the last MiB.
    case dataAtEnd = "data-at-end"

    /// Creates the sparse file and its contents.
    @RingActor
    func make(at path: String, bytes: UInt64) async throws {
        let patch = patch(bytes: bytes)
        do {
            try await RingActor.ring.blocking { () throws(SystemError) in
                try makeSparse(path, bytes: bytes, patch)
            }
            switch self {
            case .xfs: try await run("/sbin/mkfs.xfs", ["-q", "-f", path])
            case .ext4: try await run("/sbin/mkfs.ext4", ["-q", "-F", path])
            case .blank, .partitioned, .data, .dataAtEnd: break
            }
        } catch {
            unlink(path)
            throw error
        }
    }

    /// The bytes to write, and their positions.
    private func patch(bytes: UInt64) -> (at: UInt64, bytes: [UInt8])? {
        switch self {
        case .blank, .xfs, .ext4: nil
        case .partitioned: (446, partitionTable(sectors: bytes / 512))
        case .data: (700_000, Array("some bytes".utf8))
        case .dataAtEnd: (bytes - 5000, Array("some bytes".utf8))
        }
    }
}

/// The table of a master boot record, bytes 446 to 511: one Linux partition from 1 MiB to the end.
private func partitionTable(sectors: UInt64) -> [UInt8] {
    let little = { (value: UInt32) in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
    let unusedCHS: [UInt8] = [0xfe, 0xff, 0xff]
    let length = UInt32(clamping: sectors - 2048)
    let entry = [0] + unusedCHS + [0x83] + unusedCHS + little(2048) + little(length)
    return entry + [UInt8](repeating: 0, count: 48) + [0x55, 0xaa]
}

private func makeSparse(
    _ path: String, bytes: UInt64, _ patch: (at: UInt64, bytes: [UInt8])?
) throws(SystemError) {
    let fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard fd >= 0 else { throw SystemError("create \(path)") }
    defer { close(fd) }
    guard ftruncate(fd, off_t(bytes)) == 0 else { throw SystemError("extend \(path)") }
    guard let patch else { return }
    guard pwrite(fd, patch.bytes, patch.bytes.count, off_t(patch.at)) == patch.bytes.count else {
        throw SystemError("write \(path)")
    }
}

/// Runs a program; if it fails, the error contains its output.
@RingActor
func run(_ path: String, _ arguments: [String]) async throws {
    let result = try await ChildProcess.run(
        path, arguments, by: RingActor.ring.now + Limit.formatTimeMax)
    guard result.end == .exited(0) else {
        throw InputError("\(path): \(result.end): \(result.output)")
    }
}
