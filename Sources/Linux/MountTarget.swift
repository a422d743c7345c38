import Base
import CLinux
import Glibc
import Ring
import SystemPackage

/// The directory that a file system is mounted at, held open: whoever replaces a part of its path by
/// a link after the check changes nothing about where the mount goes.
///
/// Linux 5.6 opens a path so that a link in it is an error (openat2(2)). On an older kernel, and where
/// a seccomp filter forbids the call, the path is checked and then used as it is.
struct MountTarget: ~Copyable {
    /// Names the directory for as long as it is open.
    private let directory: Descriptor?
    /// What mount(2) is given.
    private let path: String

    /// Throws where the path has a link in it: the kernel lists a mount under its path without links,
    /// and it would not be found again. Blocks.
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

    /// Nil where this kernel cannot open it so.
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

    /// mount(2). Blocks, while a journal is replayed.
    func mount(
        _ device: BlockDevice, type: String, _ options: MountOptions
    ) throws(Errno) {
        let code = Glibc.mount(device.path, path, type, options.flags, options.data)
        if code != 0 { throw lastErrno }
    }
}
