import Glibc
import Synchronization

/// A name server on a free UDP port of the loopback, with a thread of its own.
final class NameServer: Sendable {
    private let descriptor: Int32
    let port: UInt16
    private let records: [String: [[UInt8]]]
    private let asked = Mutex<[String]>([])

    struct Failure: Error { var code: Int32 }

    /// - Parameter records: The addresses of names, 4 or 16 bytes each. Any other name is unknown.
    init(_ records: [String: [[UInt8]]]) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        guard let port = bindToLoopback(descriptor) else { throw Failure(code: errno) }
        self.descriptor = descriptor
        self.records = records
        self.port = port
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { context in
                if let context {
                    Unmanaged<NameServer>.fromOpaque(context).takeRetainedValue().serve()
                }
                return nil
            }, context)
        guard result == 0 else { throw Failure(code: result) }
        pthread_detach(thread)
    }

    /// The list of servers in c-ares's format.
    var servers: String { "127.0.0.1:\(port)" }

    /// The requested names, with their type: `api.test 28`.
    var questions: [String] { asked.withLock { $0 } }

    func stop() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    deinit { close(descriptor) }

    private func serve() {
        var query = [UInt8](repeating: 0, count: 512)
        var peer = sockaddr_in()
        while true {
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            withUnsafeMutablePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { peer in
                    let count = recvfrom(descriptor, &query, query.count, 0, peer, &length)
                    guard count > 12 else { return length = 0 }
                    let answer = answer(to: Array(query[..<count]))
                    sendto(descriptor, answer, answer.count, 0, peer, length)
                }
            }
            if length == 0 { return }
        }
    }

    /// RFC 1035, section 4: the header, the unchanged question, an answer per address.
    private func answer(to query: [UInt8]) -> [UInt8] {
        var labels: [String] = []
        var position = 12
        while query[position] != 0 {
            let end = position + 1 + Int(query[position])
            labels.append(String(decoding: query[position + 1..<end], as: UTF8.self))
            position = end
        }
        let name = labels.joined(separator: ".").lowercased()
        let type = query[position + 2]
        asked.withLock { $0.append("\(name) \(type)") }
        let isIPv6: UInt8 = 28
        let addresses = (records[name] ?? []).filter { ($0.count == 16) == (type == isIPv6) }
        let status: UInt8 = records[name] == nil ? 3 : 0
        var answer =
            query[..<2] + [0x81, 0x80 | status, 0, 1, 0, UInt8(addresses.count), 0, 0, 0, 0]
        answer += query[12..<position + 5]
        for address in addresses {
            answer += [0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, UInt8(address.count)] + address
        }
        return Array(answer)
    }
}
