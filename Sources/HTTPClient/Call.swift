import Base
import HTTPWire
import Ring
import Streams

/// One request in progress: what it is, how far it has got, and how it is exchanged over a stream.
@RingActor
final class Call {
    enum Phase: Sendable {
        case queued, loadingTrust, resolving, connecting, tunnelling, handshaking, sending
        case awaitingHead, receivingBody
    }

    /// The result.
    struct Answer: Sendable {
        var response: HTTPResponse
        /// Whether the connection can be reused for another request.
        var keepsAlive: Bool
    }

    let deadline: Instant
    let limits: HTTPClient.TimeLimits
    var phase = Phase.queued
    /// Whether some of the request was sent, by this attempt or an earlier one.
    private(set) var hasSent = false
    /// Whether some of a response to this attempt was received.
    private(set) var hasReceived = false

    private let method: String
    private let request: [UInt8]
    private let bodyMax: Int
    private let latest: Instant?
    private var parser: ResponseParser

    init(
        _ request: HTTPRequest, host: String, bodyMax: Int, by deadline: Instant,
        _ limits: HTTPClient.TimeLimits, sentBy latest: Instant? = nil
    ) throws(HTTPWireError) {
        var bytes: [UInt8] = []
        try request.serialise(into: &bytes, host: host)
        self.request = bytes
        self.deadline = deadline
        self.limits = limits
        self.bodyMax = bodyMax
        self.latest = latest
        method = request.method
        parser = ResponseParser(method: request.method, bodyMax: bodyMax)
    }

    /// Sends the request and receives its response. After an error the stream can only be closed.
    /// Throws `StreamError`, `HTTPWireError`, or a time limit's `HTTPClientError`.
    func run(over stream: ByteStream) async throws -> Answer {
        parser = ResponseParser(method: method, bodyMax: bodyMax)
        hasReceived = false
        let input = ByteBuffer(capacity: 4096, max: Limit.responseHeadMax)
        let response = try await within(limits.response) {
            try await self.send(over: stream)
            self.phase = .awaitingHead
            var response = try await self.within(self.limits.head) {
                var response: HTTPResponse?
                while !self.parser.hasHead {
                    response = try await self.receive(from: stream, input)
                }
                return response
            }
            self.phase = .receivingBody
            while response == nil { response = try await self.receive(from: stream, input) }
            return response
        }
        guard let response else { preconditionFailure("the loop ends with a response") }
        // Bytes beyond the response do not answer any request: nothing after them can be trusted.
        return Answer(response: response, keepsAlive: parser.keepsAlive && input.isEmpty)
    }

    private func send(over stream: ByteStream) async throws {
        if let latest, RingActor.ring.now > latest {
            throw HTTPClientError(.timedOut, "it could not be sent in time")
        }
        phase = .sending
        let output = ByteBuffer(capacity: request.count, max: request.count)
        try output.append(request)
        hasSent = true
        try await stream.send(output)
    }

    /// Receives once, and returns the response if that completes it.
    private func receive(
        from stream: ByteStream, _ input: ByteBuffer
    ) async throws -> HTTPResponse? {
        guard try await stream.receive(into: input) > 0 else { return try parser.finish() }
        hasReceived = true
        let step = try input.readable.withMemoryRebound(to: UInt8.self) {
            try parser.parse($0.span)
        }
        input.consume(step.consumed)
        return step.response
    }

    /// Runs a part of the call that has its own time limit.
    func within<T: Sendable>(
        _ limit: Duration, _ body: @escaping @RingActor @Sendable () async throws -> T
    ) async throws -> T {
        do {
            return try await RingActor.ring.withDeadline(RingActor.ring.now + limit, body)
        } catch is DeadlineExceeded where !Task.isCancelled {
            throw HTTPClientError(.timedOut, "not done within \(limit.words): \(phase.words)")
        }
    }
}

extension Duration {
    /// Whole milliseconds, for errors.
    var words: String { "\(Int(milliseconds.rounded())) ms" }
}

extension Call.Phase {
    /// What was being done, for errors.
    var words: String {
        switch self {
        case .queued: "waiting for a free connection"
        case .loadingTrust: "loading the CA certificates"
        case .resolving: "resolving the host name"
        case .connecting: "connecting"
        case .tunnelling: "waiting for the proxy's tunnel"
        case .handshaking: "performing the TLS handshake"
        case .sending: "sending the request"
        case .awaitingHead: "waiting for the answer"
        case .receivingBody: "receiving the answer"
        }
    }
}
