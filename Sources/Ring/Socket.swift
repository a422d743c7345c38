import CLinux
import Glibc
package import SystemPackage

/// A connected stream socket, which owns its descriptor.
///
/// Every operation is cancelled with its task (`Errno.canceled`), and ends with
/// `Errno.badFileDescriptor` once the socket is closed; the descriptor itself goes only when no
/// operation uses it any more.
@RingActor
package final class Socket {
    private var descriptor: SharedDescriptor
    private let id: SocketID
    private static var count: SocketID = 0

    /// Takes over a connected socket in blocking mode.
    package init(owning descriptor: consuming Descriptor) {
        self.descriptor = SharedDescriptor(descriptor)
        Self.count += 1
        id = Self.count
    }

    /// Connects to an address. A unix socket whose backlog is full is waited for by io_uring; with
    /// epoll it is `Errno.resourceTemporarilyUnavailable`, for which there is nothing to wait.
    package static func connect(to address: SocketAddress) async throws(Errno) -> Socket {
        let descriptor = try address.makeSocket()
        if address.isTCP { try disableDelay(descriptor) }
        let raw = try RawSocketAddress(address)
        let result = await RingActor.ring.perform(
            .connect(descriptor.rawValue, raw.pointer, raw.length))
        _ = consume raw
        _ = try checked(result)
        return Socket(owning: descriptor)
    }

    /// The descriptor, for options that nothing here sets; -1 once the socket is closed.
    package var rawDescriptor: Int32 { descriptor.isClosed ? -1 : descriptor.rawValue }

    /// Sends small segments at once.
    static func disableDelay(_ descriptor: borrowing Descriptor) throws(Errno) {
        try setOption(descriptor, level: Int32(IPPROTO_TCP), name: TCP_NODELAY, to: 1)
    }

    /// Waits for bytes and appends them to the buffer, at least one; returns how many, 0 at the end
    /// of the stream. Throws `Errno.noBufferSpace` when the buffer holds its maximum.
    package func receive(into buffer: ByteBuffer) async throws(Errno) -> Int {
        let room: UnsafeMutableRawBufferPointer
        do throws(ByteBuffer.Full) {
            room = try buffer.reserveForReceiving()
        } catch {
            throw .noBufferSpace
        }
        let fd = try descriptor.begin()
        buffer.beginUse()
        let result = await RingActor.ring.perform(.receive(fd, room, of: id))
        buffer.endUse()
        try descriptor.end()
        let count = try checked(result)
        buffer.commit(count)
        return count
    }

    /// Sends all readable bytes, and consumes them as they go. Throws `Errno.brokenPipe` or
    /// `Errno.connectionReset` when the peer has gone.
    package func send(_ buffer: ByteBuffer) async throws(Errno) {
        while !buffer.isEmpty {
            let bytes = buffer.readable
            let fd = try descriptor.begin()
            buffer.beginUse()
            let result = await RingActor.ring.perform(.send(fd, bytes))
            buffer.endUse()
            try descriptor.end()
            buffer.consume(try checked(result))
        }
    }

    /// Sends what the socket takes without waiting, and returns how many bytes that was, perhaps 0.
    /// For small answers this saves an operation and, as it never waits, a time limit.
    package func sendNow(_ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int {
        if descriptor.isClosed { throw .badFileDescriptor }
        let flags = Int32(MSG_DONTWAIT | MSG_NOSIGNAL)
        let count = Glibc.send(descriptor.rawValue, bytes.baseAddress, bytes.count, flags)
        if count >= 0 { return count }
        let errno = Errno.current
        switch errno {
        case .wouldBlock, .resourceTemporarilyUnavailable, .interrupted: return 0
        default: throw errno
        }
    }

    /// Whether `receive` would not wait: there are bytes, or the stream has ended or is broken.
    package var hasInput: Bool {
        guard !descriptor.isClosed else { return true }
        var request = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
        return Glibc.poll(&request, 1, 0) != 0
    }

    /// Says to the peer that nothing more will be sent; receiving goes on.
    package func endSending() {
        if !descriptor.isClosed { shutdown(descriptor.rawValue, Int32(SHUT_WR)) }
    }

    /// Says to the peer that nothing more will be received. What has arrived can still be received,
    /// then comes the end of the stream; an operation that waits ends.
    package func endReceiving() {
        if !descriptor.isClosed { shutdown(descriptor.rawValue, Int32(SHUT_RD)) }
    }

    /// Returns when the connection has ended in both directions: the peer has closed it, or it is
    /// broken.
    ///
    /// A peer that has only shut its sending side down (`shutdown(SHUT_WR)`) still waits for what
    /// is sent to it. A unix socket's close is seen at once. Over TCP a close cannot be told from
    /// that before the peer answers what is sent to it by a reset.
    package func hangUp() async throws(Errno) {
        let fd = try descriptor.begin()
        var result = await RingActor.ring.perform(.poll(fd, []))
        // io_uring also ends the wait when the peer has shut its sending side down.
        if result >= 0, !Self.ends(result) { result = await Self.end(of: fd) }
        try descriptor.end()
        _ = try checked(result)
    }

    private static func ends(_ events: Int32) -> Bool {
        !PollEvents(rawValue: UInt32(events)).isDisjoint(with: [.hangUp, .error])
    }

    /// Waits as `hangUp` does where io_uring has no way to: by an epoll instance, which is readable
    /// once a descriptor in it has an event that was asked for, or a hang-up or an error.
    private static func end(of fd: Int32) async -> Int32 {
        let instance = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard instance >= 0 else { return -errno }
        let descriptor = Descriptor(owning: instance)
        var nothing = epoll_event()
        guard epoll_ctl(descriptor.rawValue, EPOLL_CTL_ADD, fd, &nothing) == 0 else {
            return -errno
        }
        let result = await RingActor.ring.perform(.poll(descriptor.rawValue, .input))
        descriptor.close()
        return result
    }

    /// Returns when the peer has closed the connection or its sending side.
    package func endOfPeerSending() async throws(Errno) {
        let fd = try descriptor.begin()
        let result = await RingActor.ring.perform(.poll(fd, .peerHangUp))
        try descriptor.end()
        _ = try checked(result)
    }

    /// Closes the connection now. What the peer has not yet received of the bytes sent still
    /// reaches it.
    package func close() { descriptor.close() }
}

/// setsockopt(2) for an integer.
func setOption(
    _ descriptor: borrowing Descriptor, level: Int32, name: Int32, to value: Int32
) throws(Errno) {
    var value = value
    let size = socklen_t(MemoryLayout<Int32>.size)
    guard setsockopt(descriptor.rawValue, level, name, &value, size) == 0 else { throw .current }
}
