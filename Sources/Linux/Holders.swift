import Base
import Glibc
import SystemPackage

/// Who keeps a device's file system in use, as far as /proc shows it.
///
/// By default a plugin has its own PID namespace and sees only the processes in it, so an empty
/// result does not prove that nobody holds the file system.
struct Holders {
    private let number: DeviceNumber
    private var found: [String] = []
    private var nodesLeft = Limit.holderNodesMax
    private var namespacesSeen: Set<String> = []

    private init(of number: DeviceNumber) { self.number = number }

    private var isDone: Bool { found.count >= Limit.holdersNamedMax || nodesLeft <= 0 }

    /// One text per holder, at most `Limit.holdersNamedMax`: `nginx (process 1234) has the file
    /// /mnt/vol-…/log open`.
    static func find(of number: DeviceNumber) -> [String] {
        var holders = Holders(of: number)
        let processes = ((try? names(in: "/proc")) ?? []).compactMap { Int32($0) }
        for process in processes where !holders.isDone {
            holders.lookAtFiles(of: process)
            holders.lookAtMounts(of: process)
        }
        return holders.found
    }

    /// The result of `find`, as the end of a sentence.
    static func text(of number: DeviceNumber) -> String {
        let holders = find(of: number)
        if holders.isEmpty {
            return "no user of it is visible to the plugin; on the instance, "
                + "'grep -l \"\(number) \" /proc/*/mountinfo' and 'fuser -vm' show them"
        }
        return "held by: " + holders.joined(separator: "; ")
    }

    private mutating func lookAtFiles(of process: Int32) {
        let directory = "/proc/\(process)"
        let uses = [
            ("cwd", "works in"), ("root", "has as its root"), ("exe", "runs"),
        ]
        for (link, use) in uses where isHome("\(directory)/\(link)") {
            add(process, "\(use) \(target(of: "\(directory)/\(link)"))")
            return
        }
        for file in (try? names(in: "\(directory)/fd")) ?? [] where !isDone {
            let path = "\(directory)/fd/\(file)"
            if isHome(path) {
                add(process, "has the file \(target(of: path)) open")
                return
            }
        }
    }

    /// Examines each mount namespace once, through the first process that is found in it.
    /// MountTable has the mounts of this process's own namespace.
    private mutating func lookAtMounts(of process: Int32) {
        let namespace = target(of: "/proc/\(process)/ns/mnt")
        guard namespace != target(of: "/proc/self/ns/mnt"),
            namespacesSeen.insert(namespace).inserted,
            let text = try? contents(
                of: "/proc/\(process)/mountinfo", limit: Limit.mountInfoMax),
            let mount = MountInfoLine.parse(text)?.first(where: { $0.device == number })
        else { return }
        add(process, "has it mounted at \(mount.mountpoint) in a mount namespace of its own")
    }

    private mutating func isHome(_ path: String) -> Bool {
        nodesLeft -= 1
        return (try? Node(path, following: true))?.home == number
    }

    private mutating func add(_ process: Int32, _ use: String) {
        let name = (try? contents(of: "/proc/\(process)/comm", limit: 64)) ?? []
        let text = String(decoding: name.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        found.append("\(text) (process \(process)) \(use)")
    }

    private func target(of link: String) -> String {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(link, &bytes, bytes.count)
        return String(
            decoding: bytes.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
