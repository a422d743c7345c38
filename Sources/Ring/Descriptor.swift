import Glibc

/// Owns a file descriptor, and closes it at the end of its lifetime.
package struct Descriptor: ~Copyable, Sendable {
    /// Valid as long as this value exists; its user must not close it.
    package let rawValue: Int32

    /// Takes ownership of an open descriptor.
    package init(owning rawValue: Int32) {
        precondition(rawValue >= 0, "not a descriptor")
        self.rawValue = rawValue
    }

    deinit {
        // Even after EINTR the descriptor is closed (close(2)). EBADF means that something else
        // closed it.
        if Glibc.close(rawValue) < 0 { precondition(errno != EBADF, "closed twice") }
    }

    /// Closes it now.
    package consuming func close() {}

    /// Releases the descriptor without closing it.
    package consuming func release() -> Int32 {
        let rawValue = self.rawValue
        discard self
        return rawValue
    }
}
