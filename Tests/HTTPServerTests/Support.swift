import Base
import HTTPServer
import HTTPWire
import Ring
import Streams
import SystemPackage
import TLS
import TestSupport
import Testing

extension HTTPServer.Bounds {
    /// The daemon's bounds, except that the time limits are so long that no slow machine reaches
    /// them.
    static func patient(_ change: (inout Self) -> Void = { _ in }) -> Self {
        var bounds = Self()
        bounds.receiveTimeMax = patience
        bounds.sendTimeMax = patience
        bounds.lingerTimeMax = patience
        change(&bounds)
        return bounds
    }
}

/// How long a test waits for something that must happen. It only distinguishes a hang from a slow
/// machine.
let patience: Duration = .seconds(120)

/// A server on a unix socket in a separate folder.
@RingActor
final class TestServer {
    let folder: TemporaryFolder
    let address: SocketAddress
    let server: HTTPServer
    private let running: Task<Void, any Error>

    var path: String { address.description }

    init(
        bounds: HTTPServer.Bounds = .patient(), tls: TLSContext? = nil,
        replier: @escaping HTTPServer.Replier
    ) throws {
        folder = try TemporaryFolder()
        let listener = try Listener(unixPath: folder.path + "/s", mode: 0o600)
        address = listener.address
        let server = HTTPServer(listener: listener, tls: tls, bounds: bounds, replier: replier)
        self.server = server
        running = RingActor.spawn { try await server.run() }
    }

    /// Stops the server, even if requests are still being handled.
    func stop() async throws {
        await server.stop(by: RingActor.ring.now)
        try await running.value
    }

    func connect(_ session: TLSSession? = nil) async throws -> TestClient {
        let socket = try await Socket.connect(to: address)
        return TestClient(session.map { ByteStream(socket, $0) } ?? ByteStream(socket))
    }
}

/// Runs `body` with a server, and then stops the server.
func withServer(
    bounds: HTTPServer.Bounds = .patient(), tls: TLSContext? = nil,
    replier: @escaping HTTPServer.Replier = echo,
    _ body: @escaping @RingActor @Sendable (TestServer) async throws -> Void
) async throws {
    try await onRing {
        let server = try TestServer(bounds: bounds, tls: tls, replier: replier)
        do { try await body(server) } catch {
            try await server.stop()
            throw error
        }
        try await server.stop()
    }
}

/// The same with a server whose handler answers asynchronously.
func withServer(
    bounds: HTTPServer.Bounds = .patient(), tls: TLSContext? = nil,
    handler: @escaping HTTPServer.Handler,
    _ body: @escaping @RingActor @Sendable (TestServer) async throws -> Void
) async throws {
    try await withServer(
        bounds: bounds, tls: tls,
        replier: { request in .later { HTTPServer.Answer(await handler(request)) } }, body)
}

/// Answers at once with the request line, the content headers and the body of the request.
let echo: HTTPServer.Replier = { request in
    let type = request.headers["content-type"] ?? "no type"
    let body = String(decoding: request.body, as: UTF8.self)
    let response = HTTPResponse(
        status: request.path == "/missing" ? 404 : 200,
        text: "\(request.method) \(request.target) (\(type)) \(body)")
    return .now(HTTPServer.Answer(response))
}

/// A client that sends arbitrary bytes. It waits at most `patience` for anything.
@RingActor
final class TestClient {
    let stream: ByteStream
    private var buffer = ByteBuffer(capacity: 4096, max: 64 * 1024)

    init(_ stream: ByteStream) { self.stream = stream }

    func send(_ text: String) async throws {
        let bytes = ByteBuffer(capacity: max(1, text.utf8.count), max: max(1, text.utf8.count))
        try bytes.append(text)
        let stream = stream
        try await inTime { try await stream.send(bytes) }
    }

    /// The next response, which may be an interim one; those have no body.
    func response(to method: String = "GET") async throws -> HTTPResponse {
        var parser = ResponseParser(method: method, bodyMax: 1024 * 1024)
        while true {
            let step = try parser.parse(
                buffer.readable.assumingMemoryBound(to: UInt8.self).span)
            buffer.consume(step.consumed)
            if let response = step.response { return response }
            guard try await receive() else { throw StreamError.socket(.connectionReset) }
        }
    }

    /// The status and body of the next response.
    func answer() async throws -> Answer {
        let response = try await response()
        return Answer(response.status, String(decoding: response.body, as: UTF8.self))
    }

    /// Waits for the given number of bytes, and returns them.
    func bytes(_ count: Int) async throws -> String {
        while buffer.count < count {
            guard try await receive() else { throw StreamError.socket(.connectionReset) }
        }
        let text = String(decoding: buffer.readable.prefix(count), as: UTF8.self)
        buffer.consume(count)
        return text
    }

    /// How many bytes arrive before the server closes the connection.
    func bytesToEnd() async throws -> Int {
        var count = buffer.count
        buffer.clear()
        while try await receive() {
            count += buffer.count
            buffer.clear()
        }
        return count
    }

    func close() { stream.close() }

    private func receive() async throws -> Bool {
        let stream = stream
        let buffer = buffer
        return try await inTime { try await stream.receive(into: buffer) > 0 }
    }

    private func inTime<T: Sendable>(
        _ body: @escaping @RingActor @Sendable () async throws -> T
    ) async throws -> T {
        let ring = RingActor.ring
        return try await ring.withDeadline(ring.now + patience, body)
    }
}

struct Answer: Equatable {
    var status: Int
    var body: String

    init(_ status: Int, _ body: String) {
        self.status = status
        self.body = body
    }
}

/// Tasks wait here until the gate is opened.
@RingActor
final class Gate {
    private var isOpen = false
    private var waiters: [UnsafeContinuation<Void, Never>] = []

    nonisolated init() {}

    func open() {
        isOpen = true
        for waiter in waiters { waiter.resume() }
        waiters = []
    }

    func pass() async {
        if !isOpen { await withUnsafeContinuation { waiters.append($0) } }
    }
}

/// A request without a body.
func get(_ target: String, _ fields: String = "") -> String {
    "GET \(target) HTTP/1.1\r\nHost: \r\n\(fields)\r\n"
}

func post(_ target: String, _ body: String, _ fields: String = "") -> String {
    "POST \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\n\(fields)\r\n\(body)"
}

/// A queue of values; taking waits until there is one.
@RingActor
final class Mailbox<T: Sendable> {
    private var values: [T] = []
    private var takers: [UnsafeContinuation<T, Never>] = []

    nonisolated init() {}

    var isEmpty: Bool { values.isEmpty }

    func put(_ value: T) {
        if takers.isEmpty {
            values.append(value)
        } else {
            takers.removeFirst().resume(returning: value)
        }
    }

    func take() async -> T {
        if !values.isEmpty { return values.removeFirst() }
        return await withUnsafeContinuation { takers.append($0) }
    }
}
