import Glibc

/// A port of a loopback address on which connections neither succeed nor fail: its queue is full,
/// and the kernel drops further packets.
final class BlackHole: Sendable {
    private let descriptors: [Int32]
    let port: UInt16

    struct Failure: Error { var code: Int32 }

    /// - Parameter address: 127.0.0.1 is 0x7f000001.
    init(at address: UInt32 = 0x7f00_0001, port: UInt16 = 0) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var descriptors = [listener]
        guard let port = bindToLoopback(listener, address: address, port: port),
            listen(listener, 0) == 0
        else { throw Failure(code: errno) }
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = address.bigEndian
        name.sin_port = port.bigEndian
        for _ in 0..<3 {
            let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue)
            let client = socket(AF_INET, type, 0)
            descriptors.append(client)
            withUnsafePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    _ = connect(client, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        }
        self.descriptors = descriptors
        self.port = port
    }

    deinit { for descriptor in descriptors { close(descriptor) } }
}
