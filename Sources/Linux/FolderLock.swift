package import Base
import Glibc
import Ring
import SystemPackage

/// Exclusive use of a folder for the lifetime of this object, by a lock on the file `lock` in it.
package final class FolderLock: Sendable {
    private let lock: FileLock

    /// Creates the folder (mode 0700) if there is none; its parent must exist. If another process
    /// uses the folder, throws an error with that process's `holder` text. Blocks.
    package init(_ folder: String, holder: String) throws(OperationError) {
        let doing = "use the state folder \(folder)"
        let path = folder + "/lock"
        do throws(Errno) {
            guard mkdir(folder, 0o700) == 0 || errno == EEXIST else { throw lastErrno }
            lock = try FileLock(path)
        } catch {
            guard error == .wouldBlock else {
                throw OperationError(
                    .system, doing: doing, found: "\(error)",
                    advice: "check that the folder above it exists and is writable")
            }
            let said = (try? contents(of: path, limit: Limit.lockHolderMax)) ?? []
            throw OperationError(
                .system, doing: doing,
                found: "another daemon uses it: \(String(decoding: said, as: UTF8.self))",
                advice: "stop that one first; if it is a plugin, 'docker plugin ls' lists it, and "
                    + "'docker plugin disable --force' with its name ends it and leaves containers "
                    + "running")
        }
        // If the disk is full, the lock is still held.
        try? lock.write(holder)
    }
}
