import Base
import Ring
import SystemPackage
import TLS

/// Moves a TLS session's ciphertext through a socket.
@RingActor
final class SecureLayer {
    let session: TLSSession
    private let socket: Socket
    /// Ciphertext in transit between socket and session. Both are empty between operations.
    private let incoming = ByteBuffer(
        capacity: Limit.ciphertextReceiveMax, max: Limit.ciphertextReceiveMax)
    private let outgoing = ByteBuffer(
        capacity: Limit.ciphertextReceiveMax, max: Limit.ciphertextSendMax)
    private var saidClose = false

    init(_ socket: Socket, _ session: TLSSession) {
        self.socket = socket
        self.session = session
    }

    func handshake() async throws(StreamError) {
        while try !step({ () throws(TLSError) in try session.handshake() }) {
            try await flush()
            try await fill()
        }
        try await flush()
    }

    func receive(into buffer: ByteBuffer) async throws(StreamError) -> Int {
        while true {
            let room: UnsafeMutableRawBufferPointer
            do { room = try buffer.reserve(1) } catch { throw .socket(.noBufferSpace) }
            let result = try step { () throws(TLSError) in try session.read(into: room) }
            switch result {
            case .bytes(let count):
                buffer.commit(count)
                try await flush()
                return count
            case .closed:
                return 0
            case .needsCiphertext:
                try await flush()
                try await fill()
            }
        }
    }

    func send(_ buffer: ByteBuffer) async throws(StreamError) {
        // One record at a time, to buffer little ciphertext.
        while !buffer.isEmpty {
            let piece = UnsafeRawBufferPointer(rebasing: buffer.readable.prefix(Limit.tlsRecordMax))
            try step { () throws(TLSError) in try session.write(piece) }
            buffer.consume(piece.count)
            try await flush()
        }
    }

    func isQuiet() async -> Bool {
        do throws(StreamError) {
            while true {
                let result = try step { () throws(TLSError) in
                    var byte: UInt8 = 0
                    return try withUnsafeMutableBytes(of: &byte) { room throws(TLSError) in
                        try session.read(into: room)
                    }
                }
                guard result == .needsCiphertext else { return false }
                guard socket.hasInput else { return true }
                try await fill()
            }
        } catch {
            return false
        }
    }

    func sayClose() {
        guard !saidClose else { return }
        saidClose = true
        session.close()
        sendNow()
    }

    /// Runs a step of the session. If it fails, tells the peer why, if that can be sent without
    /// waiting.
    private func step<T>(_ body: () throws(TLSError) -> T) throws(StreamError) -> T {
        do throws(TLSError) { return try body() } catch {
            sendNow()
            throw .tls(error)
        }
    }

    private func fill() async throws(StreamError) {
        let count: Int
        do throws(Errno) { count = try await socket.receive(into: incoming) } catch {
            throw .socket(error)
        }
        if count == 0 {
            session.feedEnd()
        } else {
            session.feed(incoming.readable)
            incoming.clear()
        }
    }

    private func flush() async throws(StreamError) {
        while takeCiphertext() {
            do throws(Errno) { try await socket.send(outgoing) } catch { throw .socket(error) }
        }
    }

    private func sendNow() {
        while takeCiphertext() {
            let sent = (try? socket.sendNow(outgoing.readable)) ?? 0
            let isSent = sent == outgoing.count
            outgoing.clear()
            if !isSent { return }
        }
    }

    /// Moves the session's bytes for the peer into `outgoing`; false if there are none.
    private func takeCiphertext() -> Bool {
        let waiting = min(session.ciphertextCount, Limit.ciphertextSendMax)
        guard waiting > 0 else { return false }
        guard let room = try? outgoing.reserve(waiting) else {
            preconditionFailure("the buffer is empty between operations")
        }
        outgoing.commit(session.takeCiphertext(into: room))
        return true
    }
}
