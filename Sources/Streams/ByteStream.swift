package import Ring
package import SystemPackage
package import TLS

/// Why a stream cannot be used any more.
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

/// A connection's two directions of bytes: a socket, with or without TLS on it.
///
/// Owns the socket. One task receives and one sends; under TLS only one of them at a time. Each
/// operation is cancelled with its task: `.socket(.canceled)`; the stream is then good for closing.
@RingActor
package final class ByteStream {
    private let socket: Socket
    private let secure: SecureLayer?

    /// A stream of the socket's own bytes.
    package init(_ socket: Socket) {
        self.socket = socket
        secure = nil
    }

    /// A stream under TLS; `handshake` comes before anything else.
    package init(_ socket: Socket, _ session: TLSSession) {
        self.socket = socket
        secure = SecureLayer(socket, session)
    }

    /// The TLS session; nil without TLS.
    package var session: TLSSession? { secure?.session }

    /// Completes TLS's handshake; does nothing without TLS.
    package func handshake() async throws(StreamError) { try await secure?.handshake() }

    /// Waits for bytes and appends them to the buffer, at least one; returns how many, 0 at the end
    /// of the stream. Throws `.socket(.noBufferSpace)` when the buffer holds its maximum.
    package func receive(into buffer: ByteBuffer) async throws(StreamError) -> Int {
        if let secure { return try await secure.receive(into: buffer) }
        do throws(Errno) { return try await socket.receive(into: buffer) } catch {
            throw .socket(error)
        }
    }

    /// Sends all readable bytes, and consumes them as they go.
    package func send(_ buffer: ByteBuffer) async throws(StreamError) {
        if let secure { return try await secure.send(buffer) }
        do throws(Errno) { try await socket.send(buffer) } catch { throw .socket(error) }
    }

    /// Sends what can be sent without waiting, and returns how many bytes that was. Under TLS it is
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

    /// Whether the connection stands, and nothing has come that was not received. Tells it without
    /// waiting for the peer; records of TLS's own (tickets) are taken in and do not count.
    package func isQuiet() async -> Bool {
        if let secure { return await secure.isQuiet() }
        return !socket.hasInput
    }

    /// Says that nothing more will be sent (under TLS with a close_notify, if that can be sent
    /// without waiting). Receiving goes on.
    package func endSending() {
        secure?.sayClose()
        socket.endSending()
    }

    /// Takes in no more than what has arrived: then comes the end of the stream.
    package func endReceiving() { socket.endReceiving() }

    /// Closes the connection now; under TLS with a close_notify if that can be sent without waiting.
    package func close() {
        secure?.sayClose()
        socket.close()
    }
}
