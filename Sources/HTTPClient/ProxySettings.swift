import Base
import Ring

/// HTTPS_PROXY and NO_PROXY: which proxy, if any, is used for an origin.
///
/// Interpreted as by Go's net/http and by curl, which agree on everything that is supported here.
/// The client speaks plain HTTP to a proxy and asks it for a tunnel (CONNECT); only https origins
/// use it.
package struct ProxySettings: Sendable {
    /// An invalid setting; `description` names its variable and shows no password.
    package struct Invalid: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    struct Proxy: Sendable, Hashable {
        var origin: Origin
        /// The value of Proxy-Authorization.
        var authorization: String?
    }

    private var proxy: Proxy?
    private var exceptions: [Exception] = []

    /// No proxy for any origin.
    package static let none = ProxySettings()

    private init() {}

    /// Reads HTTPS_PROXY and NO_PROXY, or the same in lower case; an empty value counts as not set.
    package init(environment: [String: String]) throws(Invalid) {
        func value(_ name: String) -> String? {
            [name, name.lowercased()].lazy.compactMap { environment[$0] }.first { !$0.isEmpty }
        }
        guard let url = value("HTTPS_PROXY") else { return }
        guard let proxy = Proxy(url: url) else {
            throw Invalid(
                description: "HTTPS_PROXY is no http://[user:password@]host[:port] URL")
        }
        self.proxy = proxy
        exceptions = (value("NO_PROXY") ?? "").split(separator: ",").compactMap {
            Exception(String($0.filter { !$0.isWhitespace }).lowercased())
        }
    }

    /// Whether requests to `origin` use the proxy.
    package func isUsed(for origin: Origin) -> Bool { proxy(to: origin) != nil }

    /// The proxy for `origin`. This machine itself never needs one.
    func proxy(to origin: Origin) -> Proxy? {
        guard let proxy, origin.scheme == .https, !isLoopback(origin.host) else { return nil }
        return exceptions.contains { $0.matches(origin) } ? nil : proxy
    }
}

extension ProxySettings.Proxy {
    /// `http://user:password@host:port`; the scheme may be omitted.
    init?(url: String) {
        var rest = url[...]
        if let mark = url.range(ofFirst: "://") {
            guard url[..<mark.lowerBound].lowercased() == "http" else { return nil }
            rest = url[mark.upperBound...]
        }
        if rest.hasSuffix("/") { rest.removeLast() }
        if let at = rest.lastIndex(of: "@") {
            guard let userInfo = percentDecoded(rest[..<at]) else { return nil }
            authorization = "Basic " + base64(userInfo)
            rest = rest[rest.index(after: at)...]
        }
        guard let (host, port) = splitAuthority(rest),
            let origin = Origin(.http, host: host, port: port)
        else { return nil }
        self.origin = origin
    }
}

/// One entry of NO_PROXY.
private enum Exception: Sendable {
    case everything
    /// A host name with all names below it, or an address; optionally only for one port.
    case host(String, port: UInt16?)
    /// Only the names below a domain, with a leading dot: `.example.com`.
    case subdomains(String, port: UInt16?)
    /// Addresses whose first `bits` bits are those of the network.
    case network([UInt8], bits: Int)

    init?(_ entry: String) {
        if entry == "*" {
            self = .everything
        } else if let slash = entry.firstIndex(of: "/") {
            guard let network = addressBytes(String(entry[..<slash])),
                let bits = Int(entry[entry.index(after: slash)...]),
                (0...network.count * 8).contains(bits)
            else { return nil }
            self = .network(network, bits: bits)
        } else if IPv6Address(entry) != nil {
            self = .host(entry, port: nil)
        } else {
            guard
                let (host, port) = splitAuthority(
                    entry.hasPrefix("*.") ? entry.dropFirst() : entry[...]),
                !host.isEmpty
            else { return nil }
            self = host.hasPrefix(".") ? .subdomains(host, port: port) : .host(host, port: port)
        }
    }

    func matches(_ origin: Origin) -> Bool {
        switch self {
        case .everything:
            return true
        case .host(let host, let port):
            guard port == nil || port == origin.port else { return false }
            if let address = addressBytes(host) { return address == addressBytes(origin.host) }
            return origin.host == host || origin.host.hasSuffix("." + host)
        case .subdomains(let suffix, let port):
            return (port == nil || port == origin.port) && origin.host.hasSuffix(suffix)
        case .network(let network, let bits):
            guard let address = addressBytes(origin.host), address.count == network.count else {
                return false
            }
            return zip(address, network).enumerated().allSatisfy { index, pair in
                let ignored = 8 - min(8, max(0, bits - 8 * index))
                return (pair.0 ^ pair.1) >> ignored == 0
            }
        }
    }
}

/// The 4 or 16 bytes of an IP address literal; nil for a name.
private func addressBytes(_ host: String) -> [UInt8]? {
    if let address = IPv4Address(host) {
        return (0..<4).map { UInt8(truncatingIfNeeded: address.rawValue >> (24 - 8 * $0)) }
    }
    guard let address = IPv6Address(host) else { return nil }
    return [address.high, address.low].flatMap { half in
        (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * UInt64($0))) }
    }
}

private func isLoopback(_ host: String) -> Bool {
    if host == "localhost" || host.hasSuffix(".localhost") { return true }
    if let address = IPv4Address(host) { return address.rawValue >> 24 == 127 }
    return IPv6Address(host) == .loopback
}

/// RFC 3986, section 2.1; nil if a `%` is not followed by two hexadecimal digits.
private func percentDecoded(_ text: Substring) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = text.utf8
    while let byte = rest.popFirst() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard rest.count >= 2, let value = UInt8(Substring(rest.prefix(2)), radix: 16) else {
            return nil
        }
        bytes.append(value)
        rest.removeFirst(2)
    }
    return bytes
}

/// RFC 4648, section 4.
private func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let group = bytes[start..<min(start + 3, bytes.count)]
        let bits = group.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - group.count))
        for position in 0..<4 {
            text.append(
                position <= group.count
                    ? alphabet[bits >> (18 - 6 * position) & 63] : UInt8(ascii: "="))
        }
    }
    return String(decoding: text, as: UTF8.self)
}
