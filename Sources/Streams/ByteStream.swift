package import Ring
package import SystemPackage
package import TLS

/// Why a stream can no longer be used.
package enum StreamError: Error, Sendable, Equatable, CustomStringConvertible {
    case socket(Errno)
    case tls(TLSError)

    package var description: String {
        switch self {
        case .socket(let errno): errno.description
        case .tls(let error): error.description
        }
    }
}

/// A bidirectional byte stream: a socket, with or without TLS.
///
/// Owns the socket. One task receives and one sends; under TLS only one of them at a time.
/// Cancelling the task cancels the operation with `.socket(.canceled)`; then the stream can only be
/// closed.
@RingActor
package final class ByteStream {
    private let socket: Socket
    private let secure: SecureLayer?

    /// A stream of the socket's bytes without TLS.
    package init(_ socket: Socket) {
        self.socket = socket
        secure = nil
    }

    /// A stream with TLS; call `handshake` before anything else.
    package init(_ socket: Socket, _ session: TLSSession) {
        self.socket = socket
        secure = SecureLayer(socket, session)
    }

    /// The TLS session; nil without TLS.
    package var session: TLSSession? { secure?.session }

    /// Completes the TLS handshake; does nothing without TLS.
    package func handshake() async throws(StreamError) { try await secure?.handshake() }

    /// Waits for bytes and appends them to the buffer, at least one; returns how many, 0 at the end
    /// of the stream. Throws `.socket(.noBufferSpace)` when the buffer has reached its maximum.
    package func receive(into buffer: ByteBuffer) async throws(StreamError) -> Int {
        if let secure { return try await secure.receive(into: buffer) }
        do throws(Errno) { return try await socket.receive(into: buffer) } catch {
            throw .socket(error)
        }
    }

    /// Sends all readable bytes, and consumes them as they are sent.
    package func send(_ buffer: ByteBuffer) async throws(StreamError) {
        if let secure { return try await secure.send(buffer) }
        do throws(Errno) { try await socket.send(buffer) } catch { throw .socket(error) }
    }

    /// Sends what can be sent without waiting, and returns the number of bytes. With TLS it sends
    /// none: use `send`.
    package func sendNow(_ bytes: UnsafeRawBufferPointer) throws(StreamError) -> Int {
        guard secure == nil else { return 0 }
        do throws(Errno) { return try socket.sendNow(bytes) } catch { throw .socket(error) }
    }

    /// Returns when the connection has ended in both directions, as far as that can be seen without
    /// sending: `Socket.hangUp`.
    package func hangUp() async throws(StreamError) {
        do throws(Errno) { try await socket.hangUp() } catch { throw .socket(error) }
    }

    /// Returns when the peer has closed the connection or its sending side.
    package func endOfPeerSending() async throws(StreamError) {
        do throws(Errno) { try await socket.endOfPeerSending() } catch { throw .socket(error) }
    }

    /// Whether the connection is open and has no unread data. Does not wait for the peer. TLS's own
    /// records (tickets) are processed and do not count.
    package func isQuiet() async -> Bool {
        if let secure { return await secure.isQuiet() }
        return !socket.hasInput
    }

    /// Announces that nothing more will be sent (with TLS by a close_notify, if that can be sent
    /// without waiting). Receiving remains possible.
    package func endSending() {
        secure?.sayClose()
        socket.endSending()
    }

    /// Receives nothing beyond what has already arrived: after that the stream ends.
    package func endReceiving() { socket.endReceiving() }

    /// Closes the connection now; with TLS after a close_notify if that can be sent without
    /// waiting.
    package func close() {
        secure?.sayClose()
        socket.close()
    }
}
