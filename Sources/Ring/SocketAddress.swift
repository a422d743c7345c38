import Glibc
import SystemPackage

/// An IPv4 address.
package struct IPv4Address: Hashable, Sendable, CustomStringConvertible {
    /// 127.0.0.1 is 0x7f000001.
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let loopback = IPv4Address(rawValue: 0x7f00_0001)

    /// Dotted decimal with four parts; nil for anything else.
    package init?(_ text: String) {
        var address = in_addr()
        guard inet_pton(AF_INET, text, &address) == 1 else { return nil }
        rawValue = UInt32(bigEndian: address.s_addr)
    }

    package var description: String {
        (0..<4).map { String(rawValue >> (24 - 8 * $0) & 0xff) }.joined(separator: ".")
    }
}

/// An IPv6 address, without a zone.
package struct IPv6Address: Hashable, Sendable, CustomStringConvertible {
    /// The first eight bytes, as one number.
    package var high: UInt64
    /// The last eight bytes.
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package static let loopback = IPv6Address(high: 0, low: 1)

    /// Exactly 16 bytes, in network order; nil for another number.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        let fold = { (part: UInt64, byte: UInt8) in part << 8 | UInt64(byte) }
        self.init(
            high: bytes.prefix(8).reduce(0, fold), low: bytes.dropFirst(8).reduce(0, fold))
    }

    /// RFC 4291's text form, without brackets and zone; nil for anything else.
    package init?(_ text: String) {
        var address = in6_addr()
        guard inet_pton(AF_INET6, text, &address) == 1 else { return nil }
        self.init(address)
    }

    package var description: String {
        var address = in6_addr(self)
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) {
            guard let text = $0.baseAddress,
                inet_ntop(AF_INET6, &address, text, socklen_t(INET6_ADDRSTRLEN)) != nil
            else { return "" }
            return String(cString: text)
        }
    }
}

/// Where a socket listens or connects to.
package enum SocketAddress: Sendable, Hashable, CustomStringConvertible {
    case unix(path: String)
    case ipv4(IPv4Address, port: UInt16)
    case ipv6(IPv6Address, port: UInt16)

    package var description: String {
        switch self {
        case .unix(let path): path
        case .ipv4(let address, let port): "\(address):\(port)"
        case .ipv6(let address, let port): "[\(address)]:\(port)"
        }
    }

    var isTCP: Bool {
        if case .unix = self { false } else { true }
    }

    /// A new socket of this address's family, close-on-exec.
    func makeSocket(
        isNonBlocking: Bool = RingActor.ring.wantsNonBlockingSockets
    ) throws(Errno) -> Descriptor {
        let family =
            switch self {
            case .unix: AF_UNIX
            case .ipv4: AF_INET
            case .ipv6: AF_INET6
            }
        var type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        if isNonBlocking { type |= Int32(SOCK_NONBLOCK.rawValue) }
        let fd = socket(family, type, 0)
        guard fd >= 0 else { throw .current }
        return Descriptor(owning: fd)
    }
}

/// A socket address in the kernel's form, in a heap block: it must stay in place until an
/// operation's SQE is submitted.
struct RawSocketAddress: ~Copyable {
    private let storage: UnsafeMutablePointer<sockaddr_storage>
    let length: socklen_t

    var pointer: UnsafePointer<sockaddr> {
        UnsafeRawPointer(storage).assumingMemoryBound(to: sockaddr.self)
    }

    /// Throws `Errno.fileNameTooLong` for a unix path that does not fit into a socket address (107
    /// bytes).
    init(_ address: SocketAddress) throws(Errno) {
        storage = .allocate(capacity: 1)
        storage.initialize(to: sockaddr_storage())
        let raw = UnsafeMutableRawPointer(storage)
        switch address {
        case .unix(let path):
            let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 0
            let pathMax = MemoryLayout<sockaddr_un>.size - offset - 1
            let utf8 = Array(path.utf8)
            length = socklen_t(offset + utf8.count + 1)
            guard utf8.count <= pathMax, !utf8.contains(0) else { throw .fileNameTooLong }
            storage.pointee.ss_family = sa_family_t(AF_UNIX)
            raw.advanced(by: offset).copyMemory(from: utf8, byteCount: utf8.count)
        case .ipv4(let address, let port):
            var value = sockaddr_in()
            value.sin_family = sa_family_t(AF_INET)
            value.sin_port = port.bigEndian
            value.sin_addr.s_addr = address.rawValue.bigEndian
            length = socklen_t(MemoryLayout<sockaddr_in>.size)
            raw.storeBytes(of: value, as: sockaddr_in.self)
        case .ipv6(let address, let port):
            var value = sockaddr_in6()
            value.sin6_family = sa_family_t(AF_INET6)
            value.sin6_port = port.bigEndian
            value.sin6_addr = in6_addr(address)
            length = socklen_t(MemoryLayout<sockaddr_in6>.size)
            raw.storeBytes(of: value, as: sockaddr_in6.self)
        }
    }

    deinit { storage.deallocate() }
}

extension in6_addr {
    fileprivate init(_ address: IPv6Address) {
        self.init()
        withUnsafeMutableBytes(of: &self) {
            $0.storeBytes(of: address.high.bigEndian, as: UInt64.self)
            $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
    }
}

extension IPv6Address {
    fileprivate init(_ address: in6_addr) {
        self = withUnsafeBytes(of: address) {
            IPv6Address(
                high: UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }
}
