import Base
import Glibc
import Ring
import SystemPackage

/// A small file that is replaced as a whole: a reader finds the old or the new contents, never a
/// part, even after a crash.
///
/// The new contents are written to a temporary file, which is synced and renamed over the old one;
/// then the folder is synced. This happens on a worker thread reserved for the state.
package struct AtomicFile: Sendable {
    package let path: String
    private let sizeMax: Int

    /// - Parameter sizeMax: in bytes; a larger file is not read.
    package init(path: String, sizeMax: Int) {
        self.path = path
        self.sizeMax = sizeMax
    }

    /// The contents; nil if there is no such file.
    @RingActor
    package func read() async throws -> [UInt8]? {
        try await RingActor.ring.blocking(for: .state, doing: "read \(path)") {
            () throws(OperationError) in
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else {
                if errno == ENOENT { return nil }
                throw stateFailure("read \(path)", "open")
            }
            defer { close(descriptor) }
            var status = stat()
            if fstat(descriptor, &status) != 0 { throw stateFailure("read \(path)", "fstat") }
            guard status.st_size <= sizeMax else {
                throw OperationError(
                    .limitReached, doing: "read \(path)", found: "it has more than \(sizeMax) bytes"
                )
            }
            var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
            let count = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress, $0.count)
            }
            if count < 0 { throw stateFailure("read \(path)", "read") }
            return Array(bytes.prefix(count))
        }
    }

    /// Returns when the contents are on disk. Without `syncing`, returns when they survive the
    /// process; a crash of the machine may leave any part of them. Creates the folder if there is
    /// none.
    @RingActor
    package func replace(with bytes: [UInt8], syncing: Bool = true) async throws {
        try await RingActor.ring.blocking(for: .state, doing: "replace \(path)") {
            () throws(OperationError) in
            let folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            if mkdir(folder, 0o700) != 0 && errno != EEXIST {
                throw stateFailure("make the folder \(folder)", "mkdir")
            }
            let new = path + ".new"
            try write(bytes, to: new, syncing: syncing)
            if rename(new, path) != 0 { throw stateFailure("replace \(path)", "rename") }
            if syncing { try syncFolder(of: path) }
        }
    }

    /// Renames the file, so that it is kept but not used. Returns the new name.
    @RingActor
    package func setAside() async throws -> String {
        try await RingActor.ring.blocking(for: .state, doing: "keep \(path) aside") {
            () throws(OperationError) in
            let aside = path + ".unreadable"
            if rename(path, aside) != 0 { throw stateFailure("keep \(path) aside", "rename") }
            return aside
        }
    }

    /// Saves these contents next to the file, which is not changed. Returns the path.
    @RingActor
    package func keepCopy(
        of bytes: [UInt8], named suffix: String = "unreadable"
    ) async throws -> String {
        let copy = AtomicFile(path: "\(path).\(suffix)", sizeMax: sizeMax)
        try await copy.replace(with: bytes)
        return copy.path
    }

    private func write(_ bytes: [UInt8], to new: String, syncing: Bool) throws(OperationError) {
        let descriptor = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw stateFailure("write \(new)", "open") }
        defer { close(descriptor) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written < 0 { throw stateFailure("write \(new)", "write") }
            rest = rest.dropFirst(written)
        }
        if syncing, fsync(descriptor) != 0 { throw stateFailure("sync \(new)", "fsync") }
    }
}
