import Base
import Glibc
import HTTPWire
import Ring
import Streams
import SystemPackage
import TLS

/// What an endpoint does with a request.
enum Outcome: Sendable {
    case answer(HTTPResponse)
    /// The connection ends without a response.
    case drop
    /// The same, with RST.
    case reset
    /// The connection ends in the middle of the response's body.
    case truncated(HTTPResponse)
    /// The body arrives in pieces, spread over this time.
    case trickled(HTTPResponse, Duration)
    /// Nothing more is sent; the client decides when to hang up.
    case hang
}

/// An HTTP server, with or without TLS, that can misbehave in each way of `Outcome`.
@RingActor
final class FaultyHTTPServer {
    struct Events {
        var accepted: () -> Void = {}
        var handshaken: (_ resumed: Bool) -> Void = { _ in }
    }

    typealias Handler = @RingActor @Sendable (HTTPRequest) async -> Outcome

    private let listener: Listener
    private let tls: TLSContext?
    private let events: Events
    private let handler: Handler
    private var connections: [ObjectIdentifier: Task<Void, Never>] = [:]

    init(
        _ listener: Listener, tls: TLSContext? = nil, events: Events = Events(),
        handler: @escaping Handler
    ) {
        self.listener = listener
        self.tls = tls
        self.events = events
        self.handler = handler
    }

    /// Serves until the task is cancelled.
    func run() async {
        while true {
            do throws(Errno) {
                serve(try await listener.accept())
            } catch {
                if error != .canceled { say("accept on \(listener.address): \(error)") }
                break
            }
        }
        listener.close()
        for connection in connections.values { connection.cancel() }
    }

    private func serve(_ socket: Socket) {
        events.accepted()
        let id = ObjectIdentifier(socket)
        connections[id] = RingActor.spawn {
            await self.converse(socket)
            socket.close()
            self.connections[id] = nil
        }
    }

    private func converse(_ socket: Socket) async {
        do {
            let session = try tls.map { try TLSSession.server($0) }
            let connection = Connection(socket, session)
            if let session {
                try await connection.handshake()
                events.handshaken(session.wasResumed)
            }
            while let request = try await connection.nextRequest() {
                let outcome = await handler(request)
                guard try await connection.send(outcome) else { break }
            }
        } catch let error as HTTPWireError {
            say("a request that cannot be read: \(error)")
        } catch {
            // The client disconnected or rejected the certificate, which is not an error here.
        }
    }
}

/// One client's connection.
@RingActor
private final class Connection {
    private let socket: Socket
    private let stream: ByteStream
    private let incoming = ByteBuffer(capacity: 4096, max: Limit.requestHeadMax)
    private let outgoing = ByteBuffer(capacity: 4096, max: 2 * Limit.ec2ResponseBodyMax)
    private var parser = RequestParser()

    init(_ socket: Socket, _ session: TLSSession?) {
        self.socket = socket
        stream = session.map { ByteStream(socket, $0) } ?? ByteStream(socket)
    }

    func handshake() async throws { try await stream.handshake() }

    /// Nil when the client sends no more.
    func nextRequest() async throws -> HTTPRequest? {
        while true {
            if !incoming.isEmpty {
                let bytes = incoming.readable.assumingMemoryBound(to: UInt8.self)
                let step = try parser.parse(bytes.span)
                incoming.consume(step.consumed)
                if let request = step.request { return request }
            }
            if parser.awaitsContinue {
                parser.sentContinue()
                try await send(HTTPResponse.continueBytes)
            }
            guard try await stream.receive(into: incoming) > 0 else { return nil }
        }
    }

    /// False if the connection accepts no further request.
    func send(_ outcome: Outcome) async throws -> Bool {
        switch outcome {
        case .answer(let response):
            try await send(wire(response))
            if !parser.keepsAlive { stream.close() }
            return parser.keepsAlive
        case .drop: return false
        case .reset:
            socket.reset()
            return false
        case .truncated(let response):
            try await send(wire(response).dropLast(max(1, response.body.count / 2)))
            return false
        case .trickled(let response, let time):
            try await trickle(wire(response), body: response.body.count, over: time)
            return parser.keepsAlive
        case .hang:
            try await stream.endOfPeerSending()
            return false
        }
    }

    private func wire(_ response: HTTPResponse) throws -> [UInt8] {
        var bytes: [UInt8] = []
        try response.serialise(
            into: &bytes, method: parser.method, closing: !parser.keepsAlive,
            date: CivilTime(unixSeconds: RingActor.ring.unixSeconds).httpDate)
        return bytes
    }

    private func trickle(_ bytes: [UInt8], body: Int, over time: Duration) async throws {
        let pieces = 8
        try await send(bytes.dropLast(body))
        var rest = bytes.suffix(body)
        let size = max(1, (body + pieces - 1) / pieces)
        for _ in 0..<pieces {
            try await RingActor.ring.sleep(until: RingActor.ring.now + time / pieces)
            try await send(rest.prefix(size))
            rest = rest.dropFirst(size)
        }
    }

    private func send(_ bytes: some Collection<UInt8>) async throws {
        try outgoing.append(Array(bytes))
        try await stream.send(outgoing)
    }
}

extension Socket {
    /// Closes the connection now with a reset: the peer gets ECONNRESET, and what it has not yet
    /// received of the bytes sent is lost. No operation may be in flight.
    fileprivate func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(
            rawDescriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        close()
    }
}
