import Base
import HTTPWire
import Ring
import Streams

/// One client's connection: its requests are received, handled and answered in order.
@RingActor
final class Connection {
    /// Enough for what Docker sends, so that an idle connection holds little.
    private static let idleBufferSize = 1024

    /// Whether no byte of a request is here and none is being answered.
    private(set) var isIdle = false
    /// Lower for a connection that has been idle for longer.
    private(set) var idleOrder: UInt64 = 0

    private let server: HTTPServer
    private let stream: ByteStream
    private var buffer = ByteBuffer(capacity: idleBufferSize, max: Limit.requestHeadMax)
    private var isBufferGrown = false
    private var isRetired = false
    private var parser: RequestParser
    private var handling: Task<Void, Never>?
    private var response: HTTPResponse?

    init(_ stream: ByteStream, of server: HTTPServer) {
        self.stream = stream
        self.server = server
        parser = RequestParser(bodyMax: server.bounds.bodyMax)
    }

    /// Serves the connection to its end.
    func serve() async {
        if await shakeHands() {
            while let request = await nextRequest() {
                let response = await handle(request)
                let isLast = !parser.keepsAlive || isRetired || server.isStopping
                guard await send(response, method: request.method, closing: isLast), !isLast
                else { break }
            }
        }
        stream.close()
        server.ended(self)
    }

    /// Ends the connection if it is idle, and otherwise after the request that is here already.
    func retire() {
        isIdle = false
        isRetired = true
        stream.endReceiving()
    }

    /// Ends the connection now. A handler that runs is cancelled.
    func cut() {
        isIdle = false
        handling?.cancel()
        stream.close()
    }

    // MARK: Receiving

    /// The next request; nil when there is none, because the client has gone or was refused.
    private func nextRequest() async -> HTTPRequest? {
        var deadline: Instant?
        while true {
            do throws(HTTPWireError) {
                if let request = try parseBuffered() { return request }
            } catch {
                await refuse(error.status, error.reason)
                return nil
            }
            if parser.awaitsContinue {
                guard await sendContinue() else { return nil }
            }
            if buffer.isEmpty && !parser.isWithinRequest {
                guard await receiveWhileIdle() else { return nil }
            } else {
                let by = deadline ?? RingActor.ring.now + server.bounds.receiveTimeMax
                deadline = by
                guard await receive(by: by) else { return nil }
            }
        }
    }

    private func parseBuffered() throws(HTTPWireError) -> HTTPRequest? {
        guard !buffer.isEmpty else { return nil }
        let bytes = buffer.readable.assumingMemoryBound(to: UInt8.self)
        let step = try parser.parse(bytes.span)
        buffer.consume(step.consumed)
        return step.request
    }

    /// Waits for a request's first bytes, for as long as it takes; false when the client has gone.
    private func receiveWhileIdle() async -> Bool {
        if isBufferGrown {
            buffer = ByteBuffer(capacity: Self.idleBufferSize, max: Limit.requestHeadMax)
            isBufferGrown = false
        }
        if isRetired || server.isStopping { return false }
        isIdle = true
        idleOrder = server.becameIdle()
        defer { isIdle = false }
        return ((try? await stream.receive(into: buffer)) ?? 0) > 0
    }

    /// Waits for more of a request that has begun; false when the client has gone or was too slow.
    private func receive(by deadline: Instant) async -> Bool {
        isBufferGrown = true
        let room = min(4 * Self.idleBufferSize, Limit.requestHeadMax - buffer.count)
        guard (try? buffer.reserve(room)) != nil else {
            preconditionFailure("the parser refuses a head that fills the buffer")
        }
        let stream = stream
        let buffer = buffer
        do {
            return try await RingActor.ring.withDeadline(deadline) {
                try await stream.receive(into: buffer) > 0
            }
        } catch is DeadlineExceeded {
            await refuse(408, "the request did not come within the time for it")
            return false
        } catch {
            return false
        }
    }

    private func shakeHands() async -> Bool {
        guard stream.session != nil else { return true }
        let stream = stream
        let deadline = RingActor.ring.now + server.bounds.receiveTimeMax
        do {
            try await RingActor.ring.withDeadline(deadline) { try await stream.handshake() }
            return true
        } catch {
            return false
        }
    }

    // MARK: Handling

    /// Runs the handler. Only if it waits for something is the client watched meanwhile: most
    /// requests are answered from memory, and cost no operation for it.
    private func handle(_ request: HTTPRequest) async -> HTTPResponse {
        response = nil
        let handling = RingActor.spawnImmediately { [self] in
            response = await server.handler(request)
        }
        if response == nil {
            self.handling = handling
            let stream = stream
            let watch = RingActor.spawn {
                if (try? await stream.hangUp()) != nil { handling.cancel() }
            }
            await handling.value
            watch.cancel()
            self.handling = nil
        }
        guard let response else { preconditionFailure("the handler has returned") }
        self.response = nil
        return response
    }

    // MARK: Sending

    /// False when the client has gone or does not read.
    private func send(
        _ response: HTTPResponse, method: String?, closing: Bool
    ) async -> Bool {
        await complete(
            server.withSerialised(response, method: method, closing: closing, sendNow))
    }

    private func sendContinue() async -> Bool {
        parser.sentContinue()
        return await complete(HTTPResponse.continueBytes.withUnsafeBytes(sendNow))
    }

    /// Answers a request that is not taken, and ends the connection.
    ///
    /// The client may be sending still. Closing at once would reset the connection and could take
    /// the answer with it (RFC 9112 section 9.6), so what comes is dropped for a while.
    private func refuse(_ status: Int, _ reason: String) async {
        let response = HTTPResponse(status: status, text: reason + "\n")
        guard await send(response, method: nil, closing: true) else { return }
        stream.endSending()
        let stream = stream
        let deadline = RingActor.ring.now + Limit.lingerTimeMax
        try? await RingActor.ring.withDeadline(deadline) {
            let dropped = ByteBuffer(capacity: 4096, max: 4096)
            while try await stream.receive(into: dropped) > 0 { dropped.clear() }
        }
    }

    /// What is left of bytes that were sent as far as that went without waiting.
    private enum Sent {
        case all
        case part(rest: ByteBuffer)
        /// The client has gone.
        case none
    }

    private func sendNow(_ bytes: UnsafeRawBufferPointer) -> Sent {
        guard let count = try? stream.sendNow(bytes) else { return .none }
        if count == bytes.count { return .all }
        let unsent = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(count))
        let rest = ByteBuffer(capacity: unsent.count, max: unsent.count)
        guard (try? rest.append(unsent)) != nil else { preconditionFailure("made to fit") }
        return .part(rest: rest)
    }

    /// Sends the rest; false when the client has gone or does not read.
    private func complete(_ sent: Sent) async -> Bool {
        guard case .part(let rest) = sent else {
            if case .all = sent { return true } else { return false }
        }
        let stream = stream
        let deadline = RingActor.ring.now + server.bounds.sendTimeMax
        do {
            try await RingActor.ring.withDeadline(deadline) { try await stream.send(rest) }
            return true
        } catch {
            return false
        }
    }
}
