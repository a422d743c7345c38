import Ring

/// Where requests go: scheme, host and port. Connections are kept separately for each origin.
package struct Origin: Hashable, Sendable, CustomStringConvertible {
    package enum Scheme: String, Sendable {
        case http, https

        package var defaultPort: UInt16 { self == .http ? 80 : 443 }
    }

    package let scheme: Scheme
    /// A name in lower case, or an IP address literal without brackets.
    package let host: String
    package let port: UInt16

    /// Nil when `host` is neither a host name nor an IP address literal.
    package init?(_ scheme: Scheme, host: String, port: UInt16? = nil) {
        let host = host.lowercased()
        guard isHostName(host) || IPv6Address(host) != nil else { return nil }
        self.scheme = scheme
        self.host = host
        self.port = port ?? scheme.defaultPort
    }

    /// `host:port` for CONNECT, with an IPv6 literal in brackets.
    package var authority: String { "\(bracketed):\(port)" }

    /// The value of Host: without the port if it is the scheme's default.
    package var hostHeader: String { port == scheme.defaultPort ? bracketed : authority }

    package var description: String { "\(scheme.rawValue)://\(hostHeader)" }

    private var bracketed: String { host.contains(":") ? "[\(host)]" : host }
}

/// Splits `host`, `host:port` or `[v6]:port`; nil if the port or the brackets are invalid.
func splitAuthority(_ authority: some StringProtocol) -> (host: String, port: UInt16?)? {
    var host = authority[...]
    var rest = authority[authority.endIndex...]
    if authority.hasPrefix("[") {
        guard let end = authority.firstIndex(of: "]") else { return nil }
        host = authority[..<end].dropFirst()
        guard IPv6Address(String(host)) != nil else { return nil }
        rest = authority[authority.index(after: end)...]
    } else if let colon = authority.firstIndex(of: ":") {
        host = authority[..<colon]
        rest = authority[colon...]
    }
    if rest.isEmpty { return (String(host), nil) }
    guard rest.hasPrefix(":"), rest.dropFirst().allSatisfy(\.isNumber),
        let port = UInt16(rest.dropFirst()), port > 0
    else { return nil }
    return (String(host), port)
}

/// Letters, digits, `-`, `_` and dots between labels, at most 253 characters (RFC 1035). IPv4
/// literals are accepted too.
private func isHostName(_ host: String) -> Bool {
    guard (1...253).contains(host.utf8.count) else { return false }
    return host.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        .allSatisfy { label in
            (1...63).contains(label.count)
                && label.allSatisfy {
                    (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d
                        || $0 == 0x5f
                }
        }
}
