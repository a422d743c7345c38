import Foundation
import TLS

/// A listening socket on a free port of the loopback.
final class LoopbackListener {
    let descriptor: Int32
    let port: UInt16

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listens = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 1) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard listens else { throw SocketFailure(errno) }
        self.descriptor = descriptor
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }
}

struct SocketFailure: Error {
    let code: Int32

    init(_ code: Int32) { self.code = code }
}

/// A session over a blocking socket.
final class Connection {
    let session: TLSSession
    private let descriptor: Int32

    init(to port: UInt16, _ session: TLSSession) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(port)
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw SocketFailure(errno) }
        self.session = session
        self.descriptor = descriptor
    }

    init(accepting listener: LoopbackListener, _ session: TLSSession) throws {
        self.session = session
        descriptor = accept(listener.descriptor, nil, nil)
        guard descriptor >= 0 else { throw SocketFailure(errno) }
    }

    deinit { close(descriptor) }

    func flush() throws {
        while session.ciphertextCount > 0 {
            var chunk = [UInt8](repeating: 0, count: session.ciphertextCount)
            let count = chunk.withUnsafeMutableBytes { session.takeCiphertext(into: $0) }
            guard send(descriptor, chunk, count, Int32(MSG_NOSIGNAL)) == count else {
                throw SocketFailure(errno)
            }
        }
    }

    private func receive() throws {
        var chunk = [UInt8](repeating: 0, count: 16384)
        let count = recv(descriptor, &chunk, chunk.count, 0)
        guard count >= 0 else { throw SocketFailure(errno) }
        if count == 0 { return session.feedEnd() }
        chunk[..<count].withUnsafeBytes { session.feed($0) }
    }

    func handshake() throws {
        while true {
            let isDone = Result { try session.handshake() }
            try flush()
            if try isDone.get() { return }
            try receive()
        }
    }

    func write(_ text: String) throws {
        try Array(text.utf8).withUnsafeBytes { try session.write($0) }
        try flush()
    }

    /// At least one byte; nothing at the end.
    func readSome() throws -> String {
        var buffer = [UInt8](repeating: 0, count: 16384)
        while true {
            switch try buffer.withUnsafeMutableBytes({ try session.read(into: $0) }) {
            case .bytes(let count): return String(decoding: buffer[..<count], as: UTF8.self)
            case .closed: return ""
            case .needsCiphertext: try receive()
            }
        }
    }

    func readToEnd() throws -> String {
        var text = ""
        while case let part = try readSome(), !part.isEmpty { text += part }
        return text
    }
}

private func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
    return address
}
