import Base
import Glibc

/// `stateDir`: the volumes' and snapshots' files, the certificates, the control socket, and the journal of what
/// was created elsewhere. Only one process uses it at a time.
final class StateDirectory: Sendable {
    let path: String
    let footprint: Footprint
    private let lock: Int32

    var controlSocket: String { path + "/control.sock" }

    /// Locks the directory, creating it if it is missing, and removes what a killed process left
    /// outside of it.
    init(_ path: String) throws(SystemError) {
        self.path = path
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw SystemError("mkdir \(path)") }
        lock = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw SystemError("create \(path)/lock") }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(lock)
            throw SystemError("lock \(path), which another simulator uses", code)
        }
        Footprint.removeLeftovers(journal: path + "/made")
        for name in ["volumes", "snapshots"] {
            guard mkdir("\(path)/\(name)", 0o700) == 0 || errno == EEXIST else {
                throw SystemError("mkdir \(path)/\(name)")
            }
        }
        footprint = try Footprint(journal: path + "/made")
    }

    deinit { close(lock) }

    func backing(_ id: VolumeID) -> String { "\(path)/volumes/\(id)" }

    func snapshot(_ id: String) -> String { "\(path)/snapshots/\(id)" }

    func removeSnapshot(_ id: String) { unlink(snapshot(id)) }

    func removeBacking(_ id: VolumeID) { unlink(backing(id)) }

    func resizeBacking(_ id: VolumeID, bytes: UInt64) throws(SystemError) {
        guard truncate(backing(id), off_t(bytes)) == 0 else {
            throw SystemError("extend \(backing(id))")
        }
    }

    /// The loop devices that are still bound to a volume in this directory, because something has
    /// them mounted or open.
    var heldLoops: [String] {
        entries(of: "/sys/block").filter { name in
            guard name.hasPrefix("loop"),
                let content = try? readFile("/sys/block/\(name)/loop/backing_file")
            else { return false }
            return String(decoding: content, as: UTF8.self).hasPrefix(path + "/volumes/")
        }.sorted()
    }
}

/// A line on standard error.
func say(_ text: String) {
    let line = "ec2-simulator: \(text)\n"
    _ = line.withCString { write(2, $0, strlen($0)) }
}
