import Base
import Glibc

/// Tells a socket from those that had its descriptor's number before; never 0.
typealias SocketID = UInt64

/// What the loop does for a task that waits. Descriptors, buffers and addresses have to stay valid
/// until it has ended.
///
/// Its result is a count, a descriptor or poll's events; a negated errno.
enum Operation {
    case receive(Int32, UnsafeMutableRawBufferPointer, of: SocketID)
    /// A broken connection is an error, never SIGPIPE. It may end short.
    case send(Int32, UnsafeRawBufferPointer)
    /// The accepted socket is close-on-exec and in blocking mode.
    case accept(Int32)
    case connect(Int32, UnsafePointer<sockaddr>, socklen_t)
    case poll(Int32, PollEvents)
    /// Ends with ETIME.
    case timeout(Instant)
}
