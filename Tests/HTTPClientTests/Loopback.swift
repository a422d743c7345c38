import Foundation

/// A UDP port of the loopback that answers nothing.
final class SilentPort: Sendable {
    private let descriptor: Int32
    let port: UInt16

    struct Failure: Error { var code: Int32 }

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        guard let port = bindToLoopback(descriptor) else { throw Failure(code: errno) }
        self.descriptor = descriptor
        self.port = port
    }

    deinit { close(descriptor) }

    /// Whether a datagram has come.
    var hasInput: Bool {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&request, 1, 0) == 1
    }
}

/// Binds a socket to an address and returns the port; nil with `errno` on failure.
func bindToLoopback(
    _ descriptor: Int32, address: UInt32 = 0x7f00_0001, port: UInt16 = 0
) -> UInt16? {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_addr.s_addr = address.bigEndian
    name.sin_port = port.bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
        }
    }
    return isBound ? UInt16(bigEndian: name.sin_port) : nil
}

/// A name in /etc/hosts other than localhost, in lower case.
func nameInHostsFile() -> String? {
    let text = (try? String(contentsOfFile: "/etc/hosts", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").lazy
        .map { $0.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" } }
        .compactMap { $0.dropFirst().first { !$0.contains("localhost") && !$0.contains("ip6") } }
        .first.map { $0.lowercased() }
}
