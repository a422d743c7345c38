import Base
import CLinux
import Glibc
import SystemPackage

/// The kernel's error for a call, in a form that an operator can look up: `open: No such file or
/// directory (ENOENT)`.
func refusal(of call: String, _ error: Errno) -> String {
    let text = String(cString: strerror(error.rawValue))
    guard let name = CLinux_errno_name(error.rawValue) else { return "\(call): \(text)" }
    return "\(call): \(text) (\(String(cString: name)))"
}

/// Runs calls that fail with an errno, and converts it to an error for the operator.
func explaining<T: ~Copyable>(
    _ call: String, _ reason: OperationError.Reason, doing: String, advice: String? = nil,
    _ body: () throws(Errno) -> T
) throws(OperationError) -> T {
    do {
        return try body()
    } catch {
        throw OperationError(
            reason, doing: doing, found: refusal(of: call, error), advice: advice)
    }
}

/// The errno of the last call. Must be read before any other call.
var lastErrno: Errno { Errno(rawValue: errno) }

/// A file's type and device numbers, read without ever waiting for a remote file system.
struct Node {
    private let answer: CLinux_node

    init(_ path: String, following: Bool) throws(Errno) {
        answer = try Self.read(AT_FDCWD, path, following: following)
    }

    init(descriptor: Int32) throws(Errno) {
        answer = try Self.read(descriptor, "", following: true)
    }

    private static func read(
        _ directory: Int32, _ path: String, following: Bool
    ) throws(Errno) -> CLinux_node {
        var answer = CLinux_node()
        let code = CLinux_node_at(directory, path, following, &answer)
        guard code == 0 else { throw Errno(rawValue: code) }
        return answer
    }

    var isDirectory: Bool { CLinux_is_directory(answer.mode) }

    /// The number of the device whose file system holds the node.
    var home: DeviceNumber {
        DeviceNumber(major: answer.device_major, minor: answer.device_minor)
    }

    /// The number of the block device that the node represents; nil if it is not a block device.
    var blockDevice: DeviceNumber? {
        guard CLinux_is_block_device(answer.mode) else { return nil }
        return DeviceNumber(major: answer.number_major, minor: answer.number_minor)
    }
}

/// The contents of a kernel file (/proc, /sys), whose size is unknown before it is read. Throws
/// EFBIG if it is longer than `limit` bytes.
func contents(of path: String, limit: Int) throws(Errno) -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw lastErrno }
    defer { close(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: min(limit + 1, 32 * 1024))
    while true {
        let count = chunk.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
        if count < 0 {
            if lastErrno == .interrupted { continue }
            throw lastErrno
        }
        if count == 0 { return bytes }
        bytes.append(contentsOf: chunk[..<count])
        if bytes.count > limit { throw .fileTooLarge }
    }
}

/// The names in a directory, without `.` and `..`.
func names(in path: String) throws(Errno) -> [String] {
    guard let directory = opendir(path) else { throw lastErrno }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names
}
