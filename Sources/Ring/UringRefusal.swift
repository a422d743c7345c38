import CLinux
import Glibc
package import SystemPackage

/// Why this process cannot use io_uring. `description` says which call failed, what blocks it, and
/// how to change that.
package struct UringRefusal: Error, Sendable, CustomStringConvertible {
    /// The facts from which the cause is derived.
    package struct Facts: Sendable {
        /// From `uname -r`.
        package var release = runningKernelRelease()
        /// kernel.io_uring_disabled (since 6.6), a digit; nil if there is none.
        package var sysctl = readSysctl()
        package var hasSeccompFilter = CLinux_has_seccomp_filter()
        /// RLIMIT_MEMLOCK in bytes.
        package var lockedMemoryMax = readLockedMemoryMax()

        /// Those of this process.
        package init() {}
    }

    package let call: String
    package let errno: Errno
    package let cause: String

    package init(call: String, errno: Errno, facts: Facts = Facts()) {
        self.call = call
        self.errno = errno
        cause = Self.cause(of: errno, facts)
    }

    package var description: String { "\(call): \(errno): \(cause)" }

    private static func cause(of errno: Errno, _ facts: Facts) -> String {
        switch errno {
        case .notPermitted, .permissionDenied: refusal(facts)
        case .noFunction:
            "Linux \(facts.release) has none (it takes 5.7 or later, built with CONFIG_IO_URING)"
                + (facts.hasSeccompFilter ? ", or a seccomp filter bars it" : "")
        case .invalidArgument: "Linux \(facts.release) is too old for it: it takes 5.7 or later"
        case .noMemory:
            "RLIMIT_MEMLOCK (ulimit -l), \(facts.lockedMemoryMax) bytes, leaves no room for it"
                + " (CAP_IPC_LOCK lifts it), or memory is short"
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: "no file descriptor is free (ulimit -n)"
        default: "no known cause"
        }
    }

    /// EPERM and EACCES have several sources, and do not say which.
    private static func refusal(_ facts: Facts) -> String {
        var sources: [String] = []
        if let sysctl = facts.sysctl, sysctl != "0" {
            sources.append(
                "the sysctl kernel.io_uring_disabled is \(sysctl)"
                    + (sysctl == "1" ? ", which leaves it to CAP_SYS_ADMIN and a group" : "")
                    + " (0 allows it)")
        }
        if facts.hasSeccompFilter {
            sources.append("a seccomp filter bars it, as Docker's default profile does since 25.0")
        }
        return sources.isEmpty
            ? "a security module's policy bars it" : sources.joined(separator: ", or ")
    }
}

private func readSysctl() -> String? {
    let file = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var digit: UInt8 = 0
    return read(file, &digit, 1) == 1 ? String(UnicodeScalar(digit)) : nil
}

private func readLockedMemoryMax() -> UInt {
    var memory = rlimit()
    getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &memory)
    return memory.rlim_cur
}

/// The running kernel's release, `6.1.0-18-cloud-amd64` (uname).
package func runningKernelRelease() -> String {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: &name.release) { release in
        String(decoding: release.prefix { $0 != 0 }, as: UTF8.self)
    }
}
