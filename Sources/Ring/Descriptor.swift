import Glibc

/// Owns a file descriptor, and closes it at the end of its life.
package struct Descriptor: ~Copyable, Sendable {
    /// Valid as long as this value lives; not to be closed by its user.
    package let rawValue: Int32

    /// Takes over a descriptor, which has to be open.
    package init(owning rawValue: Int32) {
        precondition(rawValue >= 0, "not a descriptor")
        self.rawValue = rawValue
    }

    deinit {
        // After EINTR too the descriptor is gone (close(2)). EBADF means that something else closed
        // it.
        if Glibc.close(rawValue) < 0 { precondition(errno != EBADF, "closed twice") }
    }

    /// Closes it now.
    package consuming func close() {}

    /// Gives the descriptor up, unclosed.
    package consuming func release() -> Int32 {
        let rawValue = self.rawValue
        discard self
        return rawValue
    }
}
