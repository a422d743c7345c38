package import Base
import SystemPackage

/// The kernel's random id of this boot, the same in every container: random(4).
package func bootID() throws(OperationError) -> String {
    let path = "/proc/sys/kernel/random/boot_id"
    let bytes = try explaining("read", .system, doing: "read \(path)") { () throws(Errno) in
        try contents(of: path, limit: 64)
    }
    return String(decoding: bytes.prefix { $0 > 0x20 }, as: UTF8.self)
}
