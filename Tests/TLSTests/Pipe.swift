import TLS

/// Two sessions joined without a transport.
struct Pipe {
    let client: TLSSession
    let server: TLSSession
    /// How many bytes are transferred at once.
    var stride = Int.max

    /// Transfers what waits at one end to the other, and returns its size.
    @discardableResult
    func carry(from sender: TLSSession, to receiver: TLSSession) -> Int {
        var total = 0
        while sender.ciphertextCount > 0 {
            var chunk = [UInt8](repeating: 0, count: min(stride, sender.ciphertextCount))
            total += chunk.withUnsafeMutableBytes { sender.takeCiphertext(into: $0) }
            chunk.withUnsafeBytes { receiver.feed($0) }
        }
        return total
    }

    /// Performs the handshake step by step, until both are done or one throws.
    func handshake() throws {
        var clientIsDone = false
        var serverIsDone = false
        while !(clientIsDone && serverIsDone) {
            clientIsDone = try client.handshake()
            carry(from: client, to: server)
            serverIsDone = try server.handshake()
            carry(from: server, to: client)
        }
    }

    /// What `receiver` reads after `sender` has written `text` and everything was transferred.
    func say(_ text: [UInt8], from sender: TLSSession, to receiver: TLSSession) throws -> [UInt8] {
        try text.withUnsafeBytes { try sender.write($0) }
        carry(from: sender, to: receiver)
        return try receiver.readAll().text
    }
}

extension TLSSession {
    /// All plaintext that is available from the fed bytes, and why there was no more.
    func readAll() throws -> (text: [UInt8], end: ReadResult) {
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let result = try buffer.withUnsafeMutableBytes { try read(into: $0) }
            guard case .bytes(let count) = result else { return (text, result) }
            text += buffer[..<count]
        }
    }
}
