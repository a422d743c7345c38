package import Base
package import HTTPWire
package import Ring
import Streams
package import TLS

/// An HTTP/1.1 client on the ring, which keeps connections for the next request.
///
/// It has no timers or wake-ups while it is idle: a connection that the server has closed
/// meanwhile is found out when it would be used again.
@RingActor
package final class HTTPClient {
    /// Loads what TLS trusts; called when it is first needed, and again after it has failed.
    /// Reading CA files takes 30 ms: within `Ring.blocking`. A request waits for it beyond its
    /// deadline if need be.
    package typealias TrustLoader = @RingActor @Sendable () async throws -> TLSContext

    /// How long the parts of a request may take; the caller's deadline counts besides.
    package struct TimeLimits: Sendable {
        package var connect = Limit.connectTimeMax
        package var handshake = Limit.handshakeTimeMax
        /// From the request's last byte to the head of its response.
        package var head = Limit.responseHeadTimeMax
        /// From the request's first byte to the last one of its response.
        package var response = Limit.responseTimeMax

        package init() {}
    }

    /// What was done since the client was made.
    package struct Statistics: Sendable, Equatable {
        /// TCP connections that were made.
        package var connections = 0
        /// TLS handshakes that succeeded, and how many of them resumed a session.
        package var handshakes = 0
        package var resumedHandshakes = 0

        package init() {}
    }

    /// The connections to one origin.
    @RingActor
    private final class Pool {
        let permits = Semaphore(permits: Limit.connectionsPerHostMax)
        /// The most recently used is the last one.
        private var idle: [(stream: ByteStream, since: Instant)] = []

        func keep(_ stream: ByteStream) {
            closeOld()
            idle.append((stream, RingActor.ring.now))
        }

        func takeIdle() -> ByteStream? {
            closeOld()
            return idle.popLast()?.stream
        }

        /// What a burst of requests opened goes when the burst is long over.
        private func closeOld() {
            let now = RingActor.ring.now
            while let (stream, since) = idle.first, now - since > Limit.connectionIdleTimeMax {
                stream.close()
                idle.removeFirst()
            }
        }
    }

    private let connector: Connector
    private let limits: TimeLimits
    /// As many as the settings have endpoints.
    private var pools: [Origin: Pool] = [:]

    package init(
        trust: @escaping TrustLoader, proxies: ProxySettings = .none,
        resolver: Resolver = Resolver(), limits: TimeLimits = TimeLimits()
    ) {
        connector = Connector(resolver, proxies, trust)
        self.limits = limits
    }

    package var statistics: Statistics { connector.statistics }

    /// Sends a request and returns its response, whatever its status.
    ///
    /// The request is sent again, once, if it went out on a kept connection that broke before
    /// anything of an answer came, and `isIdempotent`: doing it twice is as good as once. Else the
    /// error says whether the server may have received it.
    ///
    /// - Parameters:
    ///   - bodyMax: The largest body that is taken, in bytes.
    ///   - isIdempotent: By default what RFC 9110, section 9.2.2, says of the method.
    ///   - latest: Once it has passed nothing is sent any more, however long the connection took; the
    ///     error then is `timedOut`.
    package func send(
        _ request: HTTPRequest, to origin: Origin, by deadline: Instant,
        bodyMax: Int = Limit.ec2ResponseBodyMax, isIdempotent: Bool? = nil,
        sentBy latest: Instant? = nil
    ) async throws(HTTPClientError) -> HTTPResponse {
        let call: Call
        do {
            call = try Call(
                request, host: origin.hostHeader, bodyMax: bodyMax, by: deadline, limits,
                sentBy: latest)
        } catch {
            throw HTTPClientError(.invalidRequest, "\(origin): \(error)")
        }
        let canRepeat = isIdempotent ?? idempotentMethods.contains(request.method)
        do {
            return try await RingActor.ring.withDeadline(deadline) {
                try await self.perform(call, origin, canRepeat)
            }
        } catch {
            throw HTTPClientError(error, call, origin)
        }
    }

    private func perform(
        _ call: Call, _ origin: Origin, _ canRepeat: Bool
    ) async throws -> HTTPResponse {
        let pool = pools[origin] ?? Pool()
        pools[origin] = pool
        try await pool.permits.wait()
        defer { pool.permits.signal() }
        if let stream = await idleStream(of: pool) {
            do {
                return try await exchange(call, over: stream, origin, pool)
            } catch {
                // The server may have closed it just as the request was on its way.
                guard canRepeat, !call.hasReceived, isBreakage(error) else { throw error }
            }
        }
        let stream = try await connector.connect(to: origin, for: call)
        return try await exchange(call, over: stream, origin, pool)
    }

    private func exchange(
        _ call: Call, over stream: ByteStream, _ origin: Origin, _ pool: Pool
    ) async throws -> HTTPResponse {
        do {
            let answer = try await call.run(over: stream)
            connector.remember(stream.session, with: origin)
            if answer.keepsAlive { pool.keep(stream) } else { stream.close() }
            return answer.response
        } catch {
            stream.close()
            throw error
        }
    }

    /// The most recently used connection that still stands.
    private func idleStream(of pool: Pool) async -> ByteStream? {
        while let stream = pool.takeIdle() {
            if await stream.isQuiet() { return stream }
            stream.close()
        }
        return nil
    }
}

private let idempotentMethods: Set = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
