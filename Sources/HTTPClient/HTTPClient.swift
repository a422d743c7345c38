package import Base
package import HTTPWire
package import Ring
import Streams
package import TLS

/// An HTTP/1.1 client on the ring that keeps connections open for the next request.
///
/// It has no timers or wake-ups while it is idle: it notices that the server has closed a
/// connection only when it would reuse it.
@RingActor
package final class HTTPClient {
    /// Loads the certificates that TLS trusts; called on first use, and again after a failure.
    /// Reading CA files takes 30 ms, so it must run within `Ring.blocking`. A request waits for it
    /// even beyond its deadline.
    package typealias TrustLoader = @RingActor @Sendable () async throws -> TLSContext

    /// How long the parts of a request may take; the caller's deadline applies in addition.
    package struct TimeLimits: Sendable {
        package var connect = Limit.connectTimeMax
        package var handshake = Limit.handshakeTimeMax
        /// From the request's last byte to the head of its response.
        package var head = Limit.responseHeadTimeMax
        /// From the request's first byte to the last one of its response.
        package var response = Limit.responseTimeMax

        package init() {}
    }

    /// Counters since the client was created.
    package struct Statistics: Sendable, Equatable {
        /// TCP connections that were opened.
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
        /// The most recently used one is last.
        private var idle: [(stream: ByteStream, since: Instant)] = []

        func keep(_ stream: ByteStream) {
            closeOld()
            idle.append((stream, RingActor.ring.now))
        }

        func takeIdle() -> ByteStream? {
            closeOld()
            return idle.popLast()?.stream
        }

        /// Closes what a burst of requests opened once the burst is long over.
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
    /// As many as there are endpoints in the settings.
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
    /// The request is sent a second time if it was sent on a reused connection that broke before
    /// any byte of a response was received, and if `isIdempotent`: applying it twice has the same
    /// effect as once. Otherwise the error says whether the server may have received it.
    ///
    /// - Parameters:
    ///   - bodyMax: The maximum size of the body, in bytes.
    ///   - isIdempotent: By default what RFC 9110, section 9.2.2, says about the method.
    ///   - latest: After this time nothing is sent any more, however long connecting took; the
    ///     error is then `timedOut`.
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
                // The server may have closed it while the request was in transit.
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

    /// The most recently used connection that is still open.
    private func idleStream(of pool: Pool) async -> ByteStream? {
        while let stream = pool.takeIdle() {
            if await stream.isQuiet() { return stream }
            stream.close()
        }
        return nil
    }
}

private let idempotentMethods: Set = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
