import Base
import CLinux
import Glibc
import Ring
import SystemPackage

/// The directory that a file system is mounted at, held open, so that replacing a part of its path
/// by a link after the check does not redirect the mount.
///
/// Since Linux 5.6, openat2(2) can reject links in a path. On an older kernel, or if a seccomp
/// filter blocks the call, the path is checked and then used unchanged.
struct MountTarget: ~Copyable {
    /// Refers to the directory as long as it is open.
    private let directory: Descriptor?
    /// The path for mount(2).
    private let path: String

    /// Throws if the path contains a link: the kernel lists a mount under its path without links,
    /// so it would not be found again. Blocks.
    init(_ path: String, doing: String) throws(OperationError) {
        try Self.refuseLinks(in: path, doing: doing)
        let directory = try explaining(
            "openat2 \(path)", .system, doing: doing,
            advice: "'ELOOP' means that a part of the path has just become a link"
        ) { () throws(Errno) in try Self.open(path) }
        if let directory {
            self.path = "/proc/self/fd/\(directory.rawValue)"
            self.directory = consume directory
        } else {
            self.path = path
            self.directory = nil
        }
    }

    /// Nil if this kernel does not support this.
    private static func open(_ path: String) throws(Errno) -> Descriptor? {
        let answer = CLinux_open_directory_without_links(path)
        if answer >= 0 { return Descriptor(owning: answer) }
        let error = Errno(rawValue: -answer)
        if error == .noFunction || error == .notPermitted { return nil }
        throw error
    }

    private static func refuseLinks(in path: String, doing: String) throws(OperationError) {
        let actual = try explaining("realpath", .system, doing: doing) { () throws(Errno) in
            guard let actual = realpath(path, nil) else { throw lastErrno }
            defer { free(actual) }
            return String(cString: actual)
        }
        guard actual == path else {
            throw OperationError(
                .system, doing: doing, found: "that path leads through links to \(actual)",
                advice: "mount it at a path without links, and without '//' or '..'")
        }
    }

    /// Calls mount(2). Blocks while a journal is replayed.
    func mount(
        _ device: BlockDevice, type: String, _ options: MountOptions
    ) throws(Errno) {
        let code = Glibc.mount(device.path, path, type, options.flags, options.data)
        if code != 0 { throw lastErrno }
    }
}
