package import Base
import Glibc
import Ring
import SystemPackage

/// A folder that is this process's alone, as long as this lives: a lock on the file `lock` in it.
package final class FolderLock: Sendable {
    private let lock: FileLock

    /// Makes the folder, mode 0700, where there is none; its parent must be there. Throws where
    /// another process has it, with what that one said of itself as its `holder`. Blocks.
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
                    advice: "see that the folder above it is there and writable")
            }
            let said = (try? contents(of: path, limit: Limit.lockHolderMax)) ?? []
            throw OperationError(
                .system, doing: doing,
                found: "another daemon has it: \(String(decoding: said, as: UTF8.self))",
                advice: "end that one first; if it is a plugin, 'docker plugin ls' lists it, and "
                    + "'docker plugin disable --force' with its name ends it and leaves containers "
                    + "running")
        }
        // Without room on the disk the lock holds all the same.
        try? lock.write(holder)
    }
}
