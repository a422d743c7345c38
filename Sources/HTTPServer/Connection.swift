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
    /// How many requests were handled.
    private var answered = 0
    private var watch: Task<Void, Never>?
    /// The task of `serve`.
    var task: Task<Void, Never>?

    init(_ stream: ByteStream, of server: HTTPServer) {
        self.stream = stream
        self.server = server
        parser = RequestParser(bodyMax: server.bounds.bodyMax)
    }

    /// Serves the connection to its end, in a task of its own.
    ///
    /// Nothing here waits that need not: each call that may wait costs a request about as much as
    /// parsing a header field.
    func serve() async {
        if await shakeHands() {
            while let request = await nextRequest() {
                server.watchUnlessAnswered(self, handling: answered)
                let response = await server.handler(request)
                answered += 1
                watch?.cancel()
                watch = nil
                let isLast = !parser.keepsAlive || isRetired || server.isStopping
                let sent = sendNow(response, method: request.method, closing: isLast)
                if case .all = sent {} else { guard await complete(sent) else { break } }
                if isLast { break }
            }
        }
        stream.close()
        task = nil
        server.ended(self)
    }

    /// Cancels the connection's task once its client hangs up, if it is still handling the request
    /// after so many others.
    func watchClient(handling number: Int) {
        guard number == answered, let task else { return }
        let stream = stream
        watch = RingActor.spawn {
            if (try? await stream.hangUp()) != nil { task.cancel() }
        }
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
        task?.cancel()
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
                guard beginIdling() else { return nil }
                let count = (try? await stream.receive(into: buffer)) ?? 0
                isIdle = false
                guard count > 0 else { return nil }
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

    /// Makes the connection ready to wait for a request for as long as it takes, with as little
    /// memory as it can; false when it is to end instead.
    private func beginIdling() -> Bool {
        if isRetired || server.isStopping { return false }
        if isBufferGrown {
            buffer = ByteBuffer(capacity: Self.idleBufferSize, max: Limit.requestHeadMax)
            isBufferGrown = false
        }
        isIdle = true
        idleOrder = server.becameIdle()
        return true
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

    // MARK: Sending

    private func sendNow(_ response: HTTPResponse, method: String?, closing: Bool) -> Sent {
        server.withSerialised(response, method: method, closing: closing, sendNow)
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
        guard await complete(sendNow(response, method: nil, closing: true)) else { return }
        stream.endSending()
        let stream = stream
        let deadline = RingActor.ring.now + server.bounds.lingerTimeMax
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
