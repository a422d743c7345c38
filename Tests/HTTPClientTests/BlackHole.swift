import Glibc

/// A port of a loopback address on which connections neither succeed nor fail: its queue is full,
/// and the kernel drops what else comes.
final class BlackHole: Sendable {
    private let descriptors: [Int32]
    let port: UInt16

    struct Failure: Error { var code: Int32 }

    /// - Parameter address: 127.0.0.1 is 0x7f000001.
    init(at address: UInt32 = 0x7f00_0001, port: UInt16 = 0) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = address.bigEndian
        name.sin_port = port.bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        var descriptors = [listener]
        let isFull = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                guard bind(listener, name, length) == 0, listen(listener, 0) == 0,
                    getsockname(listener, name, &length) == 0
                else { return false }
                for _ in 0..<3 {
                    let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue)
                    descriptors.append(socket(AF_INET, type, 0))
                    _ = connect(descriptors[descriptors.count - 1], name, length)
                }
                return true
            }
        }
        self.descriptors = descriptors
        self.port = UInt16(bigEndian: name.sin_port)
        guard isFull else { throw Failure(code: errno) }
    }

    deinit { for descriptor in descriptors { close(descriptor) } }
}
