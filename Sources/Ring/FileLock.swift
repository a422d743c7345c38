import Glibc
package import SystemPackage

/// A lock on a file that one process holds as long as this value exists: flock(2). It ends with the
/// process, even if that is killed; the file stays.
package struct FileLock: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// Creates the file if there is none. Throws `Errno.wouldBlock` if another process holds the
    /// lock.
    package init(_ path: String) throws(Errno) {
        let fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard fd >= 0 else { throw .current }
        let descriptor = Descriptor(owning: fd)
        guard flock(fd, LOCK_EX | LOCK_NB) == 0 else { throw .current }
        self.descriptor = descriptor
    }

    /// Replaces the contents of the file: a text about the holder, for rejected processes.
    package borrowing func write(_ text: String) throws(Errno) {
        let fd = descriptor.rawValue
        guard ftruncate(fd, 0) == 0 else { throw .current }
        let bytes = Array(text.utf8)
        guard pwrite(fd, bytes, bytes.count, 0) == bytes.count else { throw .current }
    }
}
