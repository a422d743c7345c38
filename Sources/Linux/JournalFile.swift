import Base
import Glibc
import Ring
import SystemPackage

/// A file that grows in pieces, each of which is on disk before the next is written.
///
/// After a crash the last piece may be incomplete; the reader must detect this.
package struct JournalFile: Sendable {
    package let path: String

    package init(path: String) { self.path = path }

    /// Returns when the bytes are on disk from `offset` on, replacing everything after it. If it
    /// throws, the contents before `offset` are intact, and those after it are useless.
    @RingActor
    package func append(_ bytes: [UInt8], at offset: Int) async throws {
        try await RingActor.ring.blocking(for: .state, doing: "write \(path)") {
            () throws(OperationError) in
            let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw stateFailure("write \(path)", "open") }
            defer { close(descriptor) }
            do throws(OperationError) {
                // After the offset there may be the rest of an incompletely written piece.
                try truncate(descriptor, to: offset)
                try write(bytes, to: descriptor, at: offset)
                if fdatasync(descriptor) != 0 { throw stateFailure("sync \(path)", "fdatasync") }
                if offset == 0 { try syncFolder(of: path) }
            } catch {
                try? truncate(descriptor, to: offset)
                throw error
            }
        }
    }

    private func truncate(_ descriptor: Int32, to size: Int) throws(OperationError) {
        if ftruncate(descriptor, size) != 0 { throw stateFailure("write \(path)", "ftruncate") }
    }

    private func write(
        _ bytes: [UInt8], to descriptor: Int32, at offset: Int
    ) throws(OperationError) {
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress, $0.count, offset + written)
            }
            if count < 0 { throw stateFailure("write \(path)", "pwrite") }
            written += count
        }
    }
}

/// Makes the directory entries in a file's folder durable.
func syncFolder(of path: String) throws(OperationError) {
    let folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw stateFailure("sync \(folder)", "open") }
    defer { close(descriptor) }
    if fsync(descriptor) != 0 { throw stateFailure("sync \(folder)", "fsync") }
}

func stateFailure(_ doing: String, _ call: String) -> OperationError {
    OperationError(
        .system, doing: doing, found: refusal(of: call, Errno(rawValue: errno)),
        advice: "check that its file system is writable and has free space")
}
