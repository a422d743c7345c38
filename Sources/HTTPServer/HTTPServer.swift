package import Base
package import HTTPWire
package import Ring
import Streams
package import SystemPackage
package import TLS

/// An HTTP/1.1 server on one listener, plain or under TLS.
///
/// Each connection is a task of its own. An idle one holds a small buffer and no timer. When
/// `connectionsMax` are open, a new one takes the place of the one that has been idle for longest;
/// if none is idle it waits, and those after it wait in the listener's backlog.
@RingActor
package final class HTTPServer {
    /// Answers one request. What is known at once costs no task switch and no watch of the client:
    /// much of what a request costs. The work of a later answer is cancelled when the client hangs
    /// up before it has ended.
    package typealias Replier = @RingActor @Sendable (HTTPRequest) -> Reply<Answer>
    /// Answers one request. Its task is cancelled when the client hangs up before it has answered.
    package typealias Handler = @RingActor @Sendable (HTTPRequest) async -> HTTPResponse

    /// An answer, and who is told whether it went out.
    package struct Answer: Sendable {
        let response: HTTPResponse
        let sent: (@RingActor @Sendable (Bool) -> Void)?

        /// - Parameter sent: Called once: with true when the kernel has taken all of the response,
        ///   with false when the client had gone before.
        package init(
            _ response: HTTPResponse, sent: (@RingActor @Sendable (Bool) -> Void)? = nil
        ) {
            self.response = response
            self.sent = sent
        }
    }

    /// What a server grants its clients.
    package struct Bounds: Sendable {
        package var connectionsMax = Limit.connectionsMax
        package var bodyMax = Limit.requestBodyMax
        /// From a request's first byte to its last; for TLS's handshake as well.
        package var receiveTimeMax = Limit.requestReceiveTimeMax
        package var sendTimeMax = Limit.responseSendTimeMax
        /// How long the rest of a refused request is read and dropped.
        package var lingerTimeMax = Limit.lingerTimeMax

        package init() {}
    }

    let bounds: Bounds
    let replier: Replier
    private(set) var isStopping = false
    private let listener: Listener
    private let tls: TLSContext?
    private var connections: [ObjectIdentifier: Connection] = [:]
    /// Resumed when a connection ends or becomes idle, while a new one waits for a slot.
    private var slotWaiter: UnsafeContinuation<Void, Never>?
    /// Resumed when the last connection has ended, or the deadline to stop by has passed.
    private var endWaiter: UnsafeContinuation<Void, Never>?
    private var idleCount: UInt64 = 0
    private var dateSecond: Int64 = .min
    private var dateText = ""

    /// - Parameters:
    ///   - listener: Accepted from by `run`, and closed by `stop`.
    ///   - tls: A server's context; nil for plain HTTP.
    package init(
        listener: Listener, tls: TLSContext? = nil, bounds: Bounds = Bounds(),
        replier: @escaping Replier
    ) {
        precondition(bounds.connectionsMax > 0)
        self.listener = listener
        self.tls = tls
        self.bounds = bounds
        self.replier = replier
    }

    /// A server that takes each request for one whose answer is waited for.
    package convenience init(
        listener: Listener, tls: TLSContext? = nil, bounds: Bounds = Bounds(),
        handler: @escaping Handler
    ) {
        self.init(listener: listener, tls: tls, bounds: bounds) { request in
            .later { Answer(await handler(request)) }
        }
    }

    /// Accepts connections until `stop`, or until its task is cancelled.
    ///
    /// Throws what the listener cannot recover from. Connections live on when it returns.
    package func run() async throws(Errno) {
        while !isStopping {
            let socket: Socket
            do throws(Errno) { socket = try await listener.accept() } catch {
                if isStopping || error == .canceled { return }
                throw error
            }
            while connections.count >= bounds.connectionsMax { await closeIdleConnection() }
            if isStopping { return socket.close() }
            serve(socket)
        }
    }

    /// Stops accepting, closes idle connections, and lets the requests that are being received or
    /// handled finish. At the deadline what is left is cut, its handlers' tasks cancelled. Not to
    /// be called again before it has returned.
    package func stop(by deadline: Instant) async {
        isStopping = true
        listener.close()
        for connection in connections.values where connection.isIdle { connection.retire() }
        guard !connections.isEmpty else { return }
        precondition(endWaiter == nil, "stopped twice at once")
        let alarm = RingActor.spawn {
            do { try await RingActor.ring.sleep(until: deadline) } catch { return }
            for connection in self.connections.values { connection.cut() }
            self.resumeEndWaiter()
        }
        await withUnsafeContinuation { endWaiter = $0 }
        alarm.cancel()
    }

    private func serve(_ socket: Socket) {
        var stream = ByteStream(socket)
        if let tls {
            // Fails only where OpenSSL has no memory for a session.
            guard let session = try? TLSSession.server(tls) else { return socket.close() }
            stream = ByteStream(socket, session)
        }
        let connection = Connection(stream, of: self)
        connections[ObjectIdentifier(connection)] = connection
        connection.task = RingActor.spawn { await connection.serve() }
    }

    /// Tells the connection that has been idle for longest to close, and waits until any connection
    /// has closed or becomes idle.
    private func closeIdleConnection() async {
        let idle = connections.values.filter(\.isIdle)
        idle.min { $0.idleOrder < $1.idleOrder }?.retire()
        await withUnsafeContinuation { slotWaiter = $0 }
    }

    // MARK: For connections

    /// Says that a connection is idle from now on; returns its place in the order of idling.
    func becameIdle() -> UInt64 {
        idleCount += 1
        resumeSlotWaiter()
        return idleCount
    }

    func ended(_ connection: Connection) {
        connections[ObjectIdentifier(connection)] = nil
        resumeSlotWaiter()
        if connections.isEmpty { resumeEndWaiter() }
    }

    /// Appends a response as it goes on the wire.
    func serialise(
        _ response: HTTPResponse, method: String?, closing: Bool, into output: inout [UInt8]
    ) {
        do throws(HTTPWireError) {
            try response.serialise(
                into: &output, method: method, closing: closing, date: currentDate())
        } catch {
            // The handler put into a header what cannot go there: its error, not the client's.
            let failure = HTTPResponse(status: 500, text: "\(error)\n")
            try? failure.serialise(
                into: &output, method: method, closing: closing, date: currentDate())
        }
    }

    private func currentDate() -> String {
        let second = RingActor.ring.unixSeconds
        if second != dateSecond {
            dateSecond = second
            dateText = CivilTime(unixSeconds: second).httpDate
        }
        return dateText
    }

    private func resumeSlotWaiter() {
        slotWaiter?.resume()
        slotWaiter = nil
    }

    private func resumeEndWaiter() {
        endWaiter?.resume()
        endWaiter = nil
    }
}
