import Base
import Glibc

/// Distinguishes a socket from earlier ones with the same descriptor number; never 0.
typealias SocketID = UInt64

/// An operation that the loop performs for a waiting task. Descriptors, buffers and addresses must
/// stay valid until it has ended.
///
/// Its result is a count, a descriptor or poll's events; a negated errno.
enum Operation {
    case receive(Int32, UnsafeMutableRawBufferPointer, of: SocketID)
    /// A broken connection is an error, never SIGPIPE. May send only a part.
    case send(Int32, UnsafeRawBufferPointer)
    /// The accepted socket is close-on-exec and in blocking mode.
    case accept(Int32)
    case connect(Int32, UnsafePointer<sockaddr>, socklen_t)
    case poll(Int32, PollEvents)
    /// Ends with ETIME.
    case timeout(Instant)
}
