import Glibc
import Synchronization

/// Everything that this process created outside its state directory, so that all of it can be
/// removed.
///
/// Each path is written to a journal before it is created, so that after a kill -9 `clean` and the
/// next start know what to remove. Any thread may use it.
final class Footprint: Sendable {
    enum Kind: String {
        case node, link
        /// The node of a partition.
        case partition
        /// A directory that is removed with everything in it.
        case tree
        /// A directory that is removed if it is empty.
        case directory
    }

    /// A loop device's major number: Documentation/admin-guide/devices.txt.
    static let loopMajor: UInt32 = 7
    /// The major number of a partition for which its device has no minor number of its own:
    /// BLOCK_EXT_MAJOR of the kernel's include/uapi/linux/major.h.
    static let extendedMajor: UInt32 = 259

    private let path: String
    private let state: Mutex<(journal: Int32, made: [(kind: Kind, path: String)])>

    /// Begins an empty journal.
    init(journal path: String) throws(SystemError) {
        self.path = path
        let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw SystemError("create \(path)") }
        state = Mutex((fd, []))
    }

    deinit { state.withLock { _ = close($0.journal) } }

    func makeNode(_ path: String, minor: UInt32) throws(SystemError) {
        try note(.node, path)
        let number = deviceNumber(major: Self.loopMajor, minor: minor)
        guard mknod(path, S_IFBLK | 0o660, number) == 0 else { throw SystemError("mknod \(path)") }
    }

    func makePartitionNode(_ path: String, minor: UInt32) throws(SystemError) {
        try note(.partition, path)
        let number = deviceNumber(major: Self.extendedMajor, minor: minor)
        guard mknod(path, S_IFBLK | 0o660, number) == 0 else { throw SystemError("mknod \(path)") }
    }

    func makeLink(_ path: String, to target: String) throws(SystemError) {
        try note(.link, path)
        guard symlink(target, path) == 0 else { throw SystemError("symlink \(path)") }
    }

    /// Creates a directory whose contents belong to this process alone.
    func makeTree(_ path: String) throws(SystemError) {
        try note(.tree, path)
        guard mkdir(path, 0o755) == 0 else { throw SystemError("mkdir \(path)") }
    }

    /// Creates a directory and its parents if they are missing.
    func makeDirectory(_ path: String) throws(SystemError) {
        if case .directory = FileKind(path) { return }
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try makeDirectory(String(path[..<slash]))
        }
        try note(.directory, path)
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw SystemError("mkdir \(path)") }
    }

    /// Removes what was created under that path.
    func remove(_ path: String) {
        let kind = state.withLock { state in
            let index = state.made.lastIndex { $0.path == path }
            return index.map { state.made.remove(at: $0).kind }
        }
        if let kind { Self.remove(kind, path) }
    }

    /// Removes everything in reverse order, then the journal.
    func removeAll() {
        let made = state.withLock { state in
            defer { state.made = [] }
            return state.made
        }
        for (kind, path) in made.reversed() { Self.remove(kind, path) }
        unlink(path)
    }

    /// Removes what the journal of a killed process names.
    static func removeLeftovers(journal path: String) {
        guard let content = try? readFile(path) else { return }
        let lines = String(decoding: content, as: UTF8.self).split(separator: "\n")
        for line in lines.reversed() {
            let parts = line.split(separator: " ", maxSplits: 1)
            guard parts.count == 2, let kind = Kind(rawValue: String(parts[0])) else { continue }
            remove(kind, String(parts[1]))
        }
        unlink(path)
    }

    private func note(_ kind: Kind, _ path: String) throws(SystemError) {
        let journal = state.withLock { state in
            state.made.append((kind, path))
            return state.journal
        }
        try writeAll(journal, "\(kind.rawValue) \(path)\n", self.path)
    }

    /// Removes it only if it is still what was created: since a crash, something else may have the
    /// name.
    private static func remove(_ kind: Kind, _ path: String) {
        switch (kind, FileKind(path)) {
        case (.node, .blockDevice(loopMajor, _)), (.partition, .blockDevice(extendedMajor, _)),
            (.link, .link):
            unlink(path)
        case (.tree, .directory): removeTree(path)
        case (.directory, .directory): rmdir(path)
        default: break
        }
    }

    private static func removeTree(_ path: String) {
        for name in entries(of: path) {
            let child = path + "/" + name
            if case .directory = FileKind(child) { removeTree(child) } else { unlink(child) }
        }
        rmdir(path)
    }
}
