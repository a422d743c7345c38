import CUring
import Glibc
package import SystemPackage

/// Why this machine gives no io_uring. `description` names the likely cause, and what changes it.
package struct RingUnavailable: Error, Sendable, CustomStringConvertible {
    package let errno: Errno

    package var description: String {
        "io_uring cannot be set up: \(errno): \(Self.cause(of: errno))"
    }

    private static func cause(of errno: Errno) -> String {
        switch errno {
        case .notPermitted, .permissionDenied:
            "barred by the sysctl kernel.io_uring_disabled, or by a seccomp profile"
                + " (Docker's default one since 25.0)"
        case .noFunction: "the kernel has none; it takes Linux 5.10 or later"
        case .noMemory:
            "RLIMIT_MEMLOCK is too small (before Linux 5.12 the rings count against it),"
                + " or memory is short"
        case .invalidArgument: "the kernel is too old; it takes Linux 5.10 or later"
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: "no file descriptor is free"
        default: "no known cause"
        }
    }
}

/// Sets a ring up with what this kernel offers, and returns it with the setup flags it took.
///
/// Each step down in flags is a kernel generation; each step down in entries is for a small
/// RLIMIT_MEMLOCK.
func setUpRing(
    entries: UInt32, entriesMin: UInt32
) throws(RingUnavailable) -> (OpaquePointer, flags: UInt32) {
    let generations = [
        CUring_SETUP_SINGLE_ISSUER | CUring_SETUP_DEFER_TASKRUN | CUring_SETUP_R_DISABLED,
        CUring_SETUP_COOP_TASKRUN,
        0,
    ]
    var result = -EINVAL
    for flags in generations {
        var count = entries
        repeat {
            var ring: OpaquePointer?
            result = CUring_init(&ring, count, flags)
            if let ring { return (ring, flags) }
            count /= 2
        } while result == -ENOMEM && count >= entriesMin
        if result != -EINVAL { break }
    }
    throw RingUnavailable(errno: Errno(rawValue: -result))
}

extension Errno {
    /// The calling thread's errno.
    static var current: Errno { Errno(rawValue: Glibc.errno) }
}
