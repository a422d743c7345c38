import Base
import CCares
import Glibc
package import Ring
import SystemPackage

/// Resolves host names with c-ares, on the ring: first from /etc/hosts, then by the name servers of
/// /etc/resolv.conf. Both files are read for each name, so changes take effect.
@RingActor
package final class Resolver {
    /// The name has no address, or no name server answered.
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    private let servers: String?

    /// - Parameter servers: Name servers to use instead of those in resolv.conf,
    ///   `127.0.0.1:5353,[::1]:53`.
    package init(servers: String? = nil) { self.servers = servers }

    /// The addresses to try in turn, best first (RFC 6724); at least one, at most
    /// `Limit.addressesMax`. An IP address literal is its own address.
    ///
    /// Throws `Failure`, or `CancellationError` when the task is cancelled.
    package func addresses(of host: String, port: UInt16) async throws -> [SocketAddress] {
        if let address = IPv4Address(host) { return [.ipv4(address, port: port)] }
        if let address = IPv6Address(host) { return [.ipv6(address, port: port)] }
        let channel = try makeChannel()
        let lookup = Lookup(port: port)
        // Destroying the channel ends an unfinished lookup: c-ares calls back once more.
        defer { withExtendedLifetime(lookup) { ares_destroy(channel) } }
        start(lookup, of: host, on: channel)
        while lookup.status == nil { try await advance(channel) }
        guard !lookup.addresses.isEmpty else {
            let words = lookup.status.map { String(cString: ares_strerror($0)) } ?? ""
            throw Failure(description: "\(host) cannot be resolved: \(words)")
        }
        return Array(lookup.addresses.prefix(Limit.addressesMax))
    }

    private func makeChannel() throws(Failure) -> ares_channel {
        var options = ares_options()
        options.timeout = Int32(Limit.nameServerTimeMax.milliseconds)
        options.tries = Int32(Limit.nameServerTriesMax)
        var channel: ares_channel?
        var status = libraryStatus
        if status == ARES_SUCCESS {
            status = ares_init_options(
                &channel, &options, Int32(ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES))
        }
        guard let channel else {
            throw Failure(description: "c-ares: \(String(cString: ares_strerror(status)))")
        }
        if let servers { precondition(ares_set_servers_ports_csv(channel, servers) == 0, servers) }
        return channel
    }

    private func start(_ lookup: Lookup, of host: String, on channel: ares_channel) {
        var hints = ares_addrinfo_hints()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        ares_getaddrinfo(
            channel, host, nil, &hints,
            { context, status, _, list in
                guard let context else { return }
                Unmanaged<Lookup>.fromOpaque(context).takeUnretainedValue().end(status, list)
            }, Unmanaged.passUnretained(lookup).toOpaque())
    }

    /// Waits until one of the channel's sockets is ready or one of its queries has timed out, and
    /// lets c-ares process it.
    private func advance(_ channel: ares_channel) async throws {
        let ready = try await readySockets(of: channel)
        try Task.checkCancellation()
        for (socket, events) in ready {
            let fails = !events.isDisjoint(with: [.error, .hangUp])
            ares_process_fd(
                channel, fails || events.contains(.input) ? socket : ARES_SOCKET_BAD,
                events.contains(.output) ? socket : ARES_SOCKET_BAD)
        }
        if ready.isEmpty { ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD) }
    }

    private typealias Readiness = (socket: Int32, events: PollEvents)

    /// Empty if a query has timed out.
    private func readySockets(of channel: ares_channel) async throws -> [Readiness] {
        let waited = sockets(of: channel)
        let timeout = RingActor.ring.now + timeout(of: channel)
        return try await withThrowingTaskGroup(of: Readiness?.self) { group in
            for (socket, events) in waited {
                group.addTask { try await Self.poll(socket, events) }
            }
            group.addTask {
                try? await RingActor.ring.sleep(until: timeout)
                return nil
            }
            var ready: [Readiness] = []
            while let readiness = try await group.next() {
                if let readiness { ready.append(readiness) }
                group.cancelAll()
            }
            return ready
        }
    }

    /// Nil when cancelled.
    private static func poll(_ socket: Int32, _ events: PollEvents) async throws -> Readiness? {
        // The socket belongs to c-ares, which closes it only within its own calls.
        let descriptor = Descriptor(owning: socket)
        let result: Result<PollEvents, Errno>
        do throws(Errno) {
            result = .success(try await RingActor.ring.poll(descriptor, events))
        } catch {
            result = .failure(error)
        }
        _ = descriptor.release()
        if case .failure(.canceled) = result { return nil }
        return (socket, try result.get())
    }

    private func sockets(of channel: ares_channel) -> [Readiness] {
        var sockets = [ares_socket_t](repeating: ARES_SOCKET_BAD, count: socketsMax)
        let wanted = ares_getsock(channel, &sockets, Int32(socketsMax))
        return sockets.enumerated().compactMap { index, socket in
            var events: PollEvents = []
            if wanted & (1 << index) != 0 { events.insert(.input) }
            if wanted & (1 << (index + socketsMax)) != 0 { events.insert(.output) }
            return events.isEmpty ? nil : (socket, events)
        }
    }

    private func timeout(of channel: ares_channel) -> Duration {
        var time = timeval()
        guard ares_timeout(channel, nil, &time) != nil else { return Limit.nameServerTimeMax }
        return .seconds(time.tv_sec) + .microseconds(time.tv_usec)
    }
}

/// How many sockets ares_getsock reports.
private let socketsMax = Int(ARES_GETSOCK_MAXNUM)
private let libraryStatus = ares_library_init(ARES_LIB_INIT_ALL)

/// What c-ares found; it calls back on the ring's thread.
private final class Lookup {
    private let port: UInt16
    private(set) var status: Int32?
    private(set) var addresses: [SocketAddress] = []

    init(port: UInt16) { self.port = port }

    func end(_ status: Int32, _ list: UnsafeMutablePointer<ares_addrinfo>?) {
        self.status = status
        var node = list?.pointee.nodes
        while let current = node {
            if let address = address(current.pointee) { addresses.append(address) }
            node = current.pointee.ai_next
        }
        ares_freeaddrinfo(list)
    }

    private func address(_ node: ares_addrinfo_node) -> SocketAddress? {
        let raw = UnsafeRawPointer(node.ai_addr)
        switch node.ai_family {
        case AF_INET:
            guard let address = raw?.loadUnaligned(as: sockaddr_in.self) else { return nil }
            let value = UInt32(bigEndian: address.sin_addr.s_addr)
            return .ipv4(IPv4Address(rawValue: value), port: port)
        case AF_INET6:
            guard let address = raw?.loadUnaligned(as: sockaddr_in6.self),
                let value = withUnsafeBytes(of: address.sin6_addr, { IPv6Address(bytes: $0) })
            else { return nil }
            return .ipv6(value, port: port)
        default:
            return nil
        }
    }
}
