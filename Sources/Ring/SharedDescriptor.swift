import Glibc
import SystemPackage

/// A socket's descriptor that several operations use at a time.
///
/// Closing it ends them, but only the end of the last one closes the descriptor: a queued SQE
/// refers to its number, which must not belong to another file by then.
struct SharedDescriptor: ~Copyable {
    private(set) var isClosed = false
    private var descriptor: Descriptor?
    private(set) var operations = 0

    init(_ descriptor: consuming Descriptor) {
        self.descriptor = consume descriptor
    }

    /// The number, for calls that return at once; -1 once it is closed and unused.
    var rawValue: Int32 {
        switch descriptor {
        case .some(let descriptor): descriptor.rawValue
        case .none: -1
        }
    }

    /// Begins an operation, which `end` ends. Throws `Errno.badFileDescriptor` once this is closed.
    mutating func begin() throws(Errno) -> Int32 {
        if isClosed { throw .badFileDescriptor }
        operations += 1
        return rawValue
    }

    /// Ends an operation. Its result is no longer needed if this is closed.
    mutating func end() throws(Errno) {
        operations -= 1
        guard isClosed else { return }
        if operations == 0 { descriptor = nil }
        throw .badFileDescriptor
    }

    mutating func close() {
        guard !isClosed else { return }
        isClosed = true
        if operations == 0 {
            descriptor = nil
        } else {
            shutdown(rawValue, Int32(SHUT_RDWR))
        }
    }
}
