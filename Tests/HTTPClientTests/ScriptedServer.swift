import Base
import HTTPClient
import Ring
import Streams
import TLS

/// A server that handles each connection as a test says.
@RingActor
final class ScriptedServer {
    typealias Script = @RingActor @Sendable (Peer) async throws -> Void

    private let listener: Listener
    private let script: Script
    private let tls: TLSContext?
    private var visits: [Task<Void, Never>] = []
    private(set) var connections = 0

    /// - Parameter tls: When there is one, the script starts after the handshake.
    init(
        at address: IPv4Address = .loopback, port: UInt16 = 0, tls: TLSContext? = nil,
        _ script: @escaping Script
    ) throws {
        listener = try Listener(address: .ipv4(address, port: port))
        self.script = script
        self.tls = tls
        RingActor.spawn { await self.serve() }
    }

    var port: UInt16 { listener.port }

    func stop() {
        listener.close()
        for visit in visits { visit.cancel() }
    }

    /// Returns when the script is done with all connections so far.
    func settle() async {
        for visit in visits { await visit.value }
    }

    private func serve() async {
        while let socket = try? await listener.accept() {
            connections += 1
            let number = connections
            visits.append(RingActor.spawn { await self.visit(socket, number) })
        }
    }

    private func visit(_ socket: Socket, _ number: Int) async {
        defer { socket.close() }
        do {
            var stream = ByteStream(socket)
            if let tls { stream = ByteStream(socket, try TLSSession.server(tls)) }
            try await stream.handshake()
            try await script(Peer(stream, socket, number))
        } catch {}
    }
}

/// A client as the script of a server sees it.
@RingActor
final class Peer {
    private let stream: ByteStream
    private let socket: Socket
    /// 1 for the first connection.
    let number: Int
    private let received = ByteBuffer(capacity: 4096, max: 1 << 20)

    init(_ stream: ByteStream, _ socket: Socket, _ number: Int) {
        self.stream = stream
        self.socket = socket
        self.number = number
    }

    /// The head of the next request; also consumes its body, which is short in tests. Nil at the
    /// end of the connection.
    func request() async throws -> String? {
        while true {
            let text = String(decoding: received.readable, as: UTF8.self)
            if let end = text.firstRange(of: "\r\n\r\n") {
                let head = String(text[..<end.upperBound])
                let body = head.firstRange(of: "Content-Length: ").flatMap {
                    Int(head[$0.upperBound...].prefix { $0.isNumber })
                }
                let size = head.utf8.count + (body ?? 0)
                if received.count >= size {
                    received.consume(size)
                    return head
                }
            }
            if try await stream.receive(into: received) == 0 { return nil }
        }
    }

    func send(_ text: String) async throws {
        let output = ByteBuffer(capacity: text.utf8.count + 1, max: text.utf8.count + 1)
        try output.append(text)
        try await stream.send(output)
    }

    /// Answers requests until the client leaves.
    func serve(_ text: String = ok("hello")) async throws {
        while try await request() != nil { try await send(text) }
    }

    /// Waits until the client is gone, or the server stops.
    func linger() async throws { try await stream.endOfPeerSending() }

    /// Returns when there is something to receive.
    func input() async {
        while await stream.isQuiet() { await Task.yield() }
    }

    /// Ends the connection with a close_notify.
    func close() { stream.close() }

    /// Ends the connection without TLS's close_notify; with a reset if there are unread bytes.
    func cut() { socket.close() }

    /// Carries bytes in both directions between the client and a port of the loopback: a proxy's
    /// tunnel.
    func tunnel(to port: UInt16) async throws {
        let other = ByteStream(try await Socket.connect(to: .ipv4(.loopback, port: port)))
        let back = RingActor.spawn { try await copy(from: other, to: self.stream) }
        try? await copy(from: stream, to: other)
        other.close()
        _ = await back.result
    }
}

@RingActor
private func copy(from source: ByteStream, to target: ByteStream) async throws {
    let buffer = ByteBuffer(capacity: 65536, max: 65536)
    while try await source.receive(into: buffer) > 0 { try await target.send(buffer) }
}

func ok(_ body: String) -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
}
