import Base
import Glibc
import Ring
import SystemPackage
import Testing

/// Two connected sockets.
@RingActor
func socketPair() throws -> (Socket, Socket) {
    let (a, b) = try descriptorPair()
    return (Socket(owning: Descriptor(owning: a)), Socket(owning: Descriptor(owning: b)))
}

/// The descriptors of two connected sockets, which the caller owns.
func descriptorPair() throws -> (Int32, Int32) {
    var ends: [Int32] = [0, 0]
    try check(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends))
    return (ends[0], ends[1])
}

@discardableResult
func check(_ result: Int32) throws -> Int32 {
    if result < 0 { throw Errno(rawValue: errno) }
    return result
}

@RingActor
func buffer(_ text: String = "", max: Int = 64 * 1024) throws -> ByteBuffer {
    let buffer = ByteBuffer(capacity: 64, max: max)
    try buffer.append(text)
    return buffer
}

@RingActor
func text(_ buffer: ByteBuffer) -> String { String(decoding: buffer.readable, as: UTF8.self) }

/// Receives until the buffer has as many bytes as the expected text.
@RingActor
func expect(_ expected: String, from socket: Socket) async throws {
    let into = try buffer()
    while into.count < expected.utf8.count {
        guard try await socket.receive(into: into) > 0 else { break }
    }
    #expect(text(into) == expected)
}

/// Runs `body` with the path of a new directory, and then removes the directory and its contents.
@RingActor
func withDirectory(_ body: @RingActor (String) async throws -> Void) async throws {
    var template = Array("/tmp/ring-tests.XXXXXX".utf8CString)
    let path = try #require(mkdtemp(&template).map { String(cString: $0) })
    defer {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                unlink("\(path)/\(name)")
            }
            closedir(directory)
        }
        rmdir(path)
    }
    try await body(path)
}

/// The ids of this process's threads with the given name.
func threads(named name: String) -> [String] {
    guard let directory = opendir("/proc/self/task") else { return [] }
    defer { closedir(directory) }
    var found: [String] = []
    while let entry = readdir(directory) {
        let id = withUnsafeBytes(of: entry.pointee.d_name) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        if contents("/proc/self/task/\(id)/comm") == name + "\n" { found.append(id) }
    }
    return found
}

/// The contents of a small file; nil if it cannot be read.
func contents(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes.prefix(count), as: UTF8.self)
}

/// Polls on the ring until a condition holds that no event reports; false if it does not hold
/// within two minutes.
@RingActor
func eventually(_ condition: @RingActor () -> Bool) async throws -> Bool {
    let ring = RingActor.ring
    let end = ring.now + .seconds(120)
    while !condition() {
        guard ring.now < end else { return false }
        try await ring.sleep(until: ring.now + .milliseconds(2))
    }
    return true
}
