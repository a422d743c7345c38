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
    /// When the request has to be here that is being received.
    private var receiveDeadline: Instant?
    /// Responses that are not sent yet.
    private var output: [UInt8] = []
    /// Who is to be told whether they went out.
    private var witnesses: [@RingActor @Sendable (Bool) -> Void] = []
    /// Whether the last response was made.
    private var isEnding = false
    /// The task of `serve`.
    var task: Task<Void, Never>?

    init(_ stream: ByteStream, of server: HTTPServer) {
        self.stream = stream
        self.server = server
        parser = RequestParser(bodyMax: server.bounds.bodyMax)
    }

    /// Serves the connection to its end, in a task of its own.
    func serve() async {
        var goesOn = await shakeHands()
        while goesOn {
            let step = answerBuffered()
            goesOn = await sendOutput()
            if goesOn { goesOn = await perform(step) }
        }
        stream.close()
        task = nil
        server.ended(self)
    }

    private func perform(_ step: Step) async -> Bool {
        switch step {
        case .idle: await receiveFirst()
        case .incomplete: await receiveMore()
        case .answer(let work, let method): await answer(by: work, to: method)
        case .refused: await linger()
        case .full: true
        case .ended: false
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

    // MARK: Answering

    /// What the connection waits for next.
    private enum Step {
        /// The first bytes of a request.
        case idle
        /// The rest of a request.
        case incomplete
        /// The answer to a request of that method.
        case answer(by: @Sendable () async -> HTTPServer.Answer, to: String)
        /// The end of what the client sends, whose request was refused.
        case refused
        /// Nothing: the answers so far are many, and have to go out before more are made.
        case full
        /// Nothing.
        case ended
    }

    /// Answers the requests that are here, as far as that goes without waiting.
    private func answerBuffered() -> Step {
        do throws(HTTPWireError) {
            while !isEnding, let request = try parseBuffered() {
                receiveDeadline = nil
                switch server.replier(request) {
                case .now(let answer):
                    append(answer, to: request.method)
                    guard output.count < Limit.unsentResponsesMax else { return .full }
                case .later(let work): return .answer(by: work, to: request.method)
                }
            }
        } catch {
            refuse(error.status, error.reason)
            return .refused
        }
        if isEnding { return .ended }
        if parser.awaitsContinue {
            parser.sentContinue()
            output += HTTPResponse.continueBytes
        }
        return buffer.isEmpty && !parser.isWithinRequest ? .idle : .incomplete
    }

    /// Waits for a request's answer, and sends it; false when the connection is to end.
    private func answer(
        by work: @Sendable () async -> HTTPServer.Answer, to method: String
    ) async -> Bool {
        let watch = watchClient()
        let answer = await work()
        watch.cancel()
        if Task.isCancelled { isEnding = true }
        append(answer, to: method)
        return await sendOutput()
    }

    /// Answers a request that is not taken. The connection ends with it.
    private func refuse(_ status: Int, _ reason: String) {
        let response = HTTPResponse(status: status, text: reason + "\n")
        server.serialise(response, method: nil, closing: true, into: &output)
    }

    /// Cancels the connection's task once its client hangs up. One that has only finished sending,
    /// as `nc -N` does after its request, still waits for the answer.
    private func watchClient() -> Task<Void, Never> {
        let stream = stream
        let task = task
        return RingActor.spawn {
            if (try? await stream.hangUp()) != nil { task?.cancel() }
        }
    }

    // MARK: Receiving

    private func parseBuffered() throws(HTTPWireError) -> HTTPRequest? {
        guard !buffer.isEmpty else { return nil }
        let bytes = buffer.readable.assumingMemoryBound(to: UInt8.self)
        let step = try parser.parse(bytes.span)
        buffer.consume(step.consumed)
        return step.request
    }

    /// Waits for a request, for as long as it takes; false when the connection is to end.
    private func receiveFirst() async -> Bool {
        guard beginIdling() else { return false }
        let count = (try? await stream.receive(into: buffer)) ?? 0
        isIdle = false
        return count > 0
    }

    /// Makes the connection ready to wait for a request for as long as it takes, with as little
    /// memory as it can; false when it is to end instead.
    private func beginIdling() -> Bool {
        if isRetired || server.isStopping { isEnding = true }
        if isEnding { return false }
        if isBufferGrown {
            buffer = ByteBuffer(capacity: Self.idleBufferSize, max: Limit.requestHeadMax)
            isBufferGrown = false
        }
        isIdle = true
        idleOrder = server.becameIdle()
        return true
    }

    /// Waits for more of a request that has begun; false when the client has gone or was too slow.
    private func receiveMore() async -> Bool {
        isBufferGrown = true
        let room = min(4 * Self.idleBufferSize, Limit.requestHeadMax - buffer.count)
        guard (try? buffer.reserve(room)) != nil else {
            preconditionFailure("the parser refuses a head that fills the buffer")
        }
        let deadline = receiveDeadline ?? RingActor.ring.now + server.bounds.receiveTimeMax
        receiveDeadline = deadline
        let stream = stream
        let buffer = buffer
        do {
            return try await RingActor.ring.withDeadline(deadline) {
                try await stream.receive(into: buffer) > 0
            }
        } catch is DeadlineExceeded {
            refuse(408, "the request did not come within the time for it")
            guard await sendOutput() else { return false }
            return await linger()
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

    private func append(_ answer: HTTPServer.Answer, to method: String) {
        if !parser.keepsAlive || isRetired || server.isStopping { isEnding = true }
        server.serialise(answer.response, method: method, closing: isEnding, into: &output)
        if let sent = answer.sent { witnesses.append(sent) }
    }

    /// Sends the responses that were made, and says whether they went out; false when the client
    /// has gone or does not read.
    private func sendOutput() async -> Bool {
        if output.isEmpty { return true }
        let isSent = await sendAll()
        for sent in witnesses { sent(isSent) }
        witnesses = []
        return isSent
    }

    private func sendAll() async -> Bool {
        guard let count = try? output.withUnsafeBytes(stream.sendNow) else { return false }
        let rest = output.dropFirst(count)
        if rest.isEmpty {
            // An idle connection keeps no more than what is to be used again.
            output.removeAll(keepingCapacity: output.capacity <= Self.idleBufferSize)
            return true
        }
        let unsent = ByteBuffer(capacity: rest.count, max: rest.count)
        guard (try? rest.withUnsafeBytes(unsent.append)) != nil else {
            preconditionFailure("made to fit")
        }
        output = []
        return await send(unsent)
    }

    /// Drops what a refused client still sends, for a while; then the connection ends.
    ///
    /// Closing at once would reset the connection and could take the answer with it (RFC 9112
    /// section 9.6).
    private func linger() async -> Bool {
        stream.endSending()
        let stream = stream
        let deadline = RingActor.ring.now + server.bounds.lingerTimeMax
        try? await RingActor.ring.withDeadline(deadline) {
            let dropped = ByteBuffer(capacity: 4096, max: 4096)
            while try await stream.receive(into: dropped) > 0 { dropped.clear() }
        }
        return false
    }

    private func send(_ bytes: ByteBuffer) async -> Bool {
        let stream = stream
        let deadline = RingActor.ring.now + server.bounds.sendTimeMax
        do {
            try await RingActor.ring.withDeadline(deadline) { try await stream.send(bytes) }
            return true
        } catch {
            return false
        }
    }
}
