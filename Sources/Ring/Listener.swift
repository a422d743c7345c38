package import Base
import CLinux
import Glibc
package import SystemPackage

/// A listening stream socket.
@RingActor
package final class Listener {
    /// The address on which it listens; for TCP with the bound port.
    package let address: SocketAddress

    private var descriptor: SharedDescriptor
    /// For a unix socket: locked as long as this listens.
    private var lock: FileLock?
    /// The socket file's device and inode, so that another process's file is not removed instead.
    private var file: FileIdentity?

    /// Listens on a TCP address; port 0 means any free port.
    package init(address: SocketAddress) throws(Errno) {
        let descriptor = try address.makeSocket()
        try setOption(descriptor, level: SOL_SOCKET, name: SO_REUSEADDR, to: 1)
        try listen(descriptor, at: address)
        self.address = try Self.boundAddress(of: descriptor, as: address)
        self.descriptor = SharedDescriptor(descriptor)
    }

    /// Listens on a unix socket, created with the given permissions. Replaces the file of a dead
    /// process; fails if a live process listens on it, or if the file is not a socket.
    ///
    /// A lock on `PATH.lock`, which stays, distinguishes the two: for some milliseconds after a
    /// kill, the kernel is still tearing down the dead process's ring and with it the socket, which
    /// accepts connections until then.
    package init(unixPath path: String, mode: UInt32) throws(OperationError) {
        let doing = "listen on \(path)"
        address = .unix(path: path)
        lock = try takeLock("\(path).lock", doing: doing)
        try removeStaleSocket(path, doing: doing)
        do throws(Errno) {
            let descriptor = try address.makeSocket()
            // bind(2) gives the file the socket's mode, minus the umask, so it is never more
            // permissive than requested.
            guard fchmod(descriptor.rawValue, mode) == 0 else { throw .current }
            try listen(descriptor, at: address)
            guard chmod(path, mode) == 0 else { throw .current }
            file = try FileIdentity(of: path)
            self.descriptor = SharedDescriptor(descriptor)
        } catch {
            throw OperationError(.system, doing: doing, found: "\(error)")
        }
    }

    deinit {
        if let file { file.unlink(address) }
    }

    /// The bound TCP port; 0 for a unix socket.
    package var port: UInt16 {
        switch address {
        case .unix: 0
        case .ipv4(_, let port), .ipv6(_, let port): port
        }
    }

    /// Waits for a connection. Throws `Errno.canceled` if the task is cancelled,
    /// `Errno.badFileDescriptor` once the listener is closed.
    ///
    /// If descriptors or memory are short, it tries again after `Limit.acceptRetryDelay`; in the
    /// meantime, connections wait in the backlog.
    package func accept() async throws(Errno) -> Socket {
        while true {
            let fd = try descriptor.begin()
            let result = await RingActor.ring.perform(.accept(fd))
            if result >= 0 { return try accepted(Descriptor(owning: result)) }
            try descriptor.end()
            switch Errno(rawValue: -result) {
            case .connectionAbort, .interrupted, .protocolError: break
            case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory:
                try await backOff()
            case let error: throw error
            }
        }
    }

    /// Stops listening, and removes the socket file. Accepted connections stay open.
    package func close() {
        if let file { file.unlink(address) }
        file = nil
        lock = nil
        descriptor.close()
    }

    private func accepted(_ connection: consuming Descriptor) throws(Errno) -> Socket {
        try descriptor.end()
        // A client that has reset the connection in the meantime must not end the listener.
        if address.isTCP { try? Socket.disableDelay(connection) }
        return Socket(owning: connection)
    }

    private func backOff() async throws(Errno) {
        let ring = RingActor.ring
        let end = ring.now + Limit.acceptRetryDelay
        switch -(await ring.perform(.timeout(end), beyondLimit: true)) {
        case ECANCELED: throw .canceled
        case ETIME: break
        // The kernel does not support a timeout either.
        default: await Task.yield()
        }
    }

    private static func boundAddress(
        of descriptor: borrowing Descriptor, as address: SocketAddress
    ) throws(Errno) -> SocketAddress {
        var raw = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let fd = descriptor.rawValue
        let result = withUnsafeMutablePointer(to: &raw) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
        }
        guard result == 0 else { throw .current }
        // The port is at the same offset for both families.
        let port = UInt16(bigEndian: raw.sin6_port)
        switch address {
        case .unix: return address
        case .ipv4(let ip, _): return .ipv4(ip, port: port)
        case .ipv6(let ip, _): return .ipv6(ip, port: port)
        }
    }
}

private func listen(_ descriptor: borrowing Descriptor, at address: SocketAddress) throws(Errno) {
    let raw = try RawSocketAddress(address)
    let fd = descriptor.rawValue
    guard bind(fd, raw.pointer, raw.length) == 0 else { throw .current }
    guard Glibc.listen(fd, Int32(Limit.connectionsMax)) == 0 else { throw .current }
}

/// Takes the lock of a socket file; another process's lock ends with that process.
private func takeLock(_ path: String, doing: String) throws(OperationError) -> FileLock {
    do throws(Errno) { return try FileLock(path) } catch {
        if error == .wouldBlock { throw inUse(doing) }
        throw OperationError(.system, doing: doing, found: "\(path): \(error)")
    }
}

private func inUse(_ doing: String) -> OperationError {
    OperationError(
        .system, doing: doing, found: "another process listens on it",
        advice: "stop the other one, or set another path")
}

/// Removes the socket file of a process that has ended.
private func removeStaleSocket(_ path: String, doing: String) throws(OperationError) {
    var status = stat()
    if lstat(path, &status) < 0 {
        if errno == ENOENT { return }
        throw OperationError(.system, doing: doing, found: "\(Errno.current)")
    }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
        throw OperationError(
            .system, doing: doing, found: "a file that is no socket is in its place",
            advice: "move it away, or set another path")
    }
    switch listeningProcess(path) {
    case .failure(.connectionRefused), .success(false):
        guard unlink(path) == 0 || errno == ENOENT else {
            throw OperationError(.system, doing: doing, found: "\(Errno.current)")
        }
    case .failure(.noSuchFileOrDirectory): return
    case .success(true), .failure(.resourceTemporarilyUnavailable): throw inUse(doing)
    case .failure(let error):
        throw OperationError(.system, doing: doing, found: "\(error)")
    }
}

/// Connects and closes again: whether the listening process is alive, as far as this can be known.
private func listeningProcess(_ path: String) -> Result<Bool, Errno> {
    let address = SocketAddress.unix(path: path)
    do throws(Errno) {
        let raw = try RawSocketAddress(address)
        // In non-blocking mode a full backlog is EAGAIN, not a wait.
        let descriptor = try address.makeSocket(isNonBlocking: true)
        guard connect(descriptor.rawValue, raw.pointer, raw.length) == 0 else { throw .current }
        let process = CLinux_peer_pid(descriptor.rawValue)
        return .success(process > 0 && (kill(process, 0) == 0 || errno == EPERM))
    } catch {
        return .failure(error)
    }
}

/// Distinguishes a file from another one at the same path.
private struct FileIdentity: Sendable {
    private let device: dev_t
    private let inode: ino_t

    init(of path: String) throws(Errno) {
        var status = stat()
        guard lstat(path, &status) == 0 else { throw .current }
        device = status.st_dev
        inode = status.st_ino
    }

    /// Removes the file if it is still this one.
    func unlink(_ address: SocketAddress) {
        guard case .unix(let path) = address, let now = try? FileIdentity(of: path) else { return }
        if now.device == device && now.inode == inode { _ = Glibc.unlink(path) }
    }
}
