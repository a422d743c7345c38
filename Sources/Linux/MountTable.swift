import Base
import SystemPackage

/// The mounts in this process's mount namespace.
struct MountTable {
    var lines: [MountInfoLine]

    init(lines: [MountInfoLine]) { self.lines = lines }

    /// May wait for mounts in progress, so it must run on a worker thread.
    init(doing: String) throws(OperationError) {
        let path = "/proc/self/mountinfo"
        let text = try explaining(
            "read \(path)", .system, doing: doing
        ) { () throws(Errno) in
            try contents(of: path, limit: Limit.mountInfoMax)
        }
        guard let lines = MountInfoLine.parse(text) else {
            throw OperationError(
                .system, doing: doing, found: "\(path) has a line that does not follow proc(5)")
        }
        self.lines = lines
    }

    /// The topmost mount at `mountpoint`.
    func top(at mountpoint: String) -> MountInfoLine? {
        lines.last { $0.mountpoint == mountpoint }
    }

    func mounts(of number: DeviceNumber) -> [MountInfoLine] {
        lines.filter { $0.device == number }
    }

    func mounts(below mountpoint: String) -> [MountInfoLine] {
        lines.filter { $0.mountpoint.hasPrefix(mountpoint + "/") }
    }
}
