import Glibc

/// A system call that failed: what was done, to what, and what the kernel answered.
struct SystemError: Error, CustomStringConvertible {
    let description: String
    let code: Int32

    /// Uses `errno`, or the given code.
    init(_ doing: String, _ code: Int32 = errno) {
        self.code = code
        description = "\(doing): \(String(cString: strerror(code)))"
    }
}

/// The type of a path, without following links.
enum FileKind {
    case none, directory, file, link
    case blockDevice(major: UInt32, minor: UInt32)
    case other

    init(_ path: String) {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            self = .none
            return
        }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: self = .directory
        case S_IFREG: self = .file
        case S_IFLNK: self = .link
        case S_IFBLK:
            // gnu_dev_major and gnu_dev_minor, which are macros.
            let number = status.st_rdev
            self = .blockDevice(
                major: UInt32(truncatingIfNeeded: (number >> 8) & 0xfff),
                minor: UInt32(truncatingIfNeeded: number & 0xff | (number >> 12) & 0xfff00))
        default: self = .other
        }
    }
}

/// The number of a device node, as mknod(2) takes it.
func deviceNumber(major: UInt32, minor: UInt32) -> dev_t {
    dev_t(major) << 8 | dev_t(minor & 0xff) | dev_t(minor & ~0xff) << 12
}

func readFile(_ path: String) throws(SystemError) -> [UInt8] {
    let fd = open(path, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError("open \(path)") }
    defer { close(fd) }
    var content: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(fd, &buffer, buffer.count)
        guard count >= 0 else { throw SystemError("read \(path)") }
        if count == 0 { return content }
        content += buffer[..<count]
    }
}

func writeFile(_ path: String, _ text: String, mode: mode_t = 0o644) throws(SystemError) {
    let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    guard fd >= 0 else { throw SystemError("create \(path)") }
    defer { close(fd) }
    try writeAll(fd, text, path)
}

func writeAll(_ fd: Int32, _ text: String, _ path: String) throws(SystemError) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(fd, $0.baseAddress, $0.count) }
        guard count >= 0 else { throw SystemError("write \(path)") }
        rest = rest.dropFirst(count)
    }
}

/// The names in a directory; none if it does not exist.
func entries(of path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// A file's size in bytes; 0 if there is none.
func size(of path: String) -> UInt64 {
    var status = stat()
    return stat(path, &status) == 0 ? UInt64(status.st_size) : 0
}

/// Replaces `target` by a copy of a file, with holes for its holes and for most of its zeros.
func copySparse(_ source: String, to target: String) throws(SystemError) {
    let from = open(source, O_RDONLY | O_CLOEXEC)
    guard from >= 0 else { throw SystemError("open \(source)") }
    defer { close(from) }
    let to = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard to >= 0 else { throw SystemError("create \(target)") }
    defer { close(to) }
    guard ftruncate(to, off_t(size(of: source))) == 0 else { throw SystemError("extend \(target)") }
    // SEEK_DATA and SEEK_HOLE of lseek(2), GNU extensions.
    let (seekData, seekHole): (Int32, Int32) = (3, 4)
    var position: off_t = 0
    while true {
        let begin = lseek(from, position, seekData)
        if begin < 0, errno == ENXIO { return }
        guard begin >= 0 else { throw SystemError("read \(source)") }
        position = lseek(from, begin, seekHole)
        guard position >= 0 else { throw SystemError("read \(source)") }
        try copy(begin..<position, from, to, target)
    }
}

private func copy(
    _ range: Range<off_t>, _ from: Int32, _ to: Int32, _ target: String
) throws(SystemError) {
    let zeros = [UInt8](repeating: 0, count: 1 << 18)
    var buffer = zeros
    var position = range.lowerBound
    while position < range.upperBound {
        let wanted = min(buffer.count, Int(range.upperBound - position))
        let count = pread(from, &buffer, wanted, position)
        guard count > 0 else { throw SystemError("read what becomes \(target)") }
        let isZero = memcmp(buffer, zeros, count) == 0
        guard isZero || pwrite(to, buffer, count, position) == count else {
            throw SystemError("write \(target)")
        }
        position += off_t(count)
    }
}
