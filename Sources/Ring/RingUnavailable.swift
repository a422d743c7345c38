import Glibc
package import SystemPackage

/// Why neither io_uring nor epoll can be used: file descriptors or memory are short.
package struct RingUnavailable: Error, Sendable, CustomStringConvertible {
    package let errno: Errno

    package var description: String {
        "no event loop can be set up: \(errno): file descriptors (ulimit -n) or memory are short"
    }
}

extension Errno {
    /// The calling thread's errno.
    static var current: Errno { Errno(rawValue: Glibc.errno) }
}
