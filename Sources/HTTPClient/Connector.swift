import Base
import HTTPWire
import Ring
import Streams
import SystemPackage
import TLS

/// Opens connections: resolves the host name, connects TCP, opens a proxy tunnel, performs the TLS
/// handshake.
@RingActor
final class Connector {
    private let resolver: Resolver
    private let proxies: ProxySettings
    private let loadTrust: HTTPClient.TrustLoader
    private var trust: TLSContext?
    private var loading: Task<TLSContext, any Error>?
    /// The TLS session tickets of each origin.
    private var resumptions: [Origin: TLSResumption] = [:]
    private(set) var statistics = HTTPClient.Statistics()

    init(
        _ resolver: Resolver, _ proxies: ProxySettings,
        _ loadTrust: @escaping HTTPClient.TrustLoader
    ) {
        self.resolver = resolver
        self.proxies = proxies
        self.loadTrust = loadTrust
    }

    func connect(to origin: Origin, for call: Call) async throws -> ByteStream {
        guard origin.scheme == .https else {
            return ByteStream(try await dial(origin, call))
        }
        let context = try await loadedTrust(call)
        let proxy = proxies.proxy(to: origin)
        let socket = try await dial(proxy?.origin ?? origin, call)
        do {
            return try await call.within(call.limits.handshake) {
                if let proxy { try await self.openTunnel(socket, through: proxy, to: origin, call) }
                return try await self.secure(socket, to: origin, context, call)
            }
        } catch {
            socket.close()
            throw error
        }
    }

    /// Keeps the session's ticket for the next session with its origin.
    func remember(_ session: TLSSession?, with origin: Origin) {
        if let resumption = session?.resumption { resumptions[origin] = resumption }
    }

    // MARK: Steps

    /// Loads the trusted certificates once; a failure is not remembered.
    private func loadedTrust(_ call: Call) async throws -> TLSContext {
        if let trust { return trust }
        call.phase = .loadingTrust
        let task = loading ?? RingActor.spawn { try await self.loadTrust() }
        loading = task
        defer { loading = nil }
        let context = try await task.value
        trust = trust ?? context
        return trust ?? context
    }

    /// Opens a TCP connection to the first of the host's addresses that accepts one. Each address
    /// gets a share of the remaining time, so that a dead one leaves time for the next.
    private func dial(_ origin: Origin, _ call: Call) async throws -> Socket {
        let ring = RingActor.ring
        let until = min(ring.now + call.limits.connect, call.deadline)
        call.phase = .resolving
        let addresses = try await call.within(until - ring.now) {
            try await self.resolver.addresses(of: origin.host, port: origin.port)
        }
        call.phase = .connecting
        var failures: [String] = []
        for (index, address) in addresses.enumerated() {
            let share = (until - ring.now) / (addresses.count - index)
            do {
                let socket = try await ring.withDeadline(ring.now + share) {
                    try await Socket.connect(to: address)
                }
                statistics.connections += 1
                return socket
            } catch {
                try Task.checkCancellation()
                let words =
                    error is DeadlineExceeded ? "no answer within \(share.words)" : "\(error)"
                failures.append("\(address): \(words)")
            }
        }
        throw HTTPClientError(
            .unreachable, "cannot connect to \(origin.host): \(failures.joined(separator: ", "))")
    }

    private func openTunnel(
        _ socket: Socket, through proxy: ProxySettings.Proxy, to origin: Origin, _ call: Call
    ) async throws {
        call.phase = .tunnelling
        var request = HTTPRequest(method: "CONNECT", target: origin.authority)
        request.headers["Proxy-Authorization"] = proxy.authorization
        let name = "the proxy \(proxy.origin.authority)"
        let answer: Call.Answer
        do {
            let tunnel = try Call(
                request, host: origin.authority, bodyMax: Limit.proxyResponseBodyMax,
                by: call.deadline, call.limits)
            answer = try await tunnel.run(over: ByteStream(socket))
        } catch {
            try Task.checkCancellation()
            throw HTTPClientError(.proxy, "\(name) did not create a tunnel: \(error)")
        }
        guard answer.response.status / 100 == 2 else {
            throw HTTPClientError(
                .proxy, "\(name) refused a tunnel: HTTP \(answer.response.status)")
        }
    }

    private func secure(
        _ socket: Socket, to origin: Origin, _ context: TLSContext, _ call: Call
    ) async throws -> ByteStream {
        call.phase = .handshaking
        let session = try TLSSession.client(
            context, host: origin.host, resuming: resumptions[origin])
        let stream = ByteStream(socket, session)
        do {
            try await stream.handshake()
        } catch {
            // In case the ticket caused the failure, the next handshake does not use it.
            resumptions[origin] = nil
            throw error
        }
        statistics.handshakes += 1
        if session.wasResumed { statistics.resumedHandshakes += 1 }
        return stream
    }
}
