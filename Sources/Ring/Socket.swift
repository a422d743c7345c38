import CLinux
import Glibc
package import SystemPackage

/// A connected stream socket, which owns its descriptor.
///
/// Cancelling its task cancels an operation (`Errno.canceled`). Closing the socket ends it with
/// `Errno.badFileDescriptor`; the descriptor itself is closed when no operation uses it any more.
@RingActor
package final class Socket {
    private var descriptor: SharedDescriptor
    private let id: SocketID
    private static var count: SocketID = 0

    /// Takes ownership of a connected socket in blocking mode.
    package init(owning descriptor: consuming Descriptor) {
        self.descriptor = SharedDescriptor(descriptor)
        Self.count += 1
        id = Self.count
    }

    /// Connects to an address. If the backlog of a unix socket is full, io_uring waits; with epoll
    /// this throws `Errno.resourceTemporarilyUnavailable`, because there is no event to wait for.
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

    /// Sends what the socket accepts without waiting, and returns the number of bytes, perhaps 0.
    /// For small responses this saves an operation, and a time limit because it never waits.
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

    /// Tells the peer that nothing more will be sent; receiving remains possible.
    package func endSending() {
        if !descriptor.isClosed { shutdown(descriptor.rawValue, Int32(SHUT_WR)) }
    }

    /// Tells the peer that nothing more will be received. Data that has arrived can still be
    /// received, then the stream ends; a waiting operation ends.
    package func endReceiving() {
        if !descriptor.isClosed { shutdown(descriptor.rawValue, Int32(SHUT_RD)) }
    }

    /// Returns when the connection has ended in both directions: the peer has closed it, or it is
    /// broken.
    ///
    /// A peer that has only shut down its sending side (`shutdown(SHUT_WR)`) still waits for data.
    /// The close of a unix socket is detected at once. Over TCP, a close looks the same until the
    /// peer answers sent data with a reset.
    package func hangUp() async throws(Errno) {
        let fd = try descriptor.begin()
        var result = await RingActor.ring.perform(.poll(fd, []))
        // io_uring also ends the wait when the peer has shut down its sending side.
        if result >= 0, !Self.ends(result) { result = await Self.end(of: fd) }
        try descriptor.end()
        _ = try checked(result)
    }

    private static func ends(_ events: Int32) -> Bool {
        !PollEvents(rawValue: UInt32(events)).isDisjoint(with: [.hangUp, .error])
    }

    /// Waits like `hangUp` if io_uring cannot: with an epoll instance, which becomes readable once
    /// a descriptor in it has a requested event, a hang-up or an error.
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
