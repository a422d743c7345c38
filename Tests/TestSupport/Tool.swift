import Foundation

/// A program that a test uses as an independent peer. Killed at the latest when the last reference
/// disappears.
package final class Tool: @unchecked Sendable {
    private let process = Process()
    private let output = Pipe()
    private let input = Pipe()
    private var unread: [UInt8] = []

    /// Starts `program`, found in PATH; standard error joins standard output.
    package init(
        _ program: String, _ arguments: [String], environment: [String: String] = [:]
    ) throws {
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = input
        process.standardOutput = output
        process.standardError = output
        try process.run()
        // So that the output ends when the program does.
        try output.fileHandleForWriting.close()
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    package func send(_ text: String) throws {
        try input.fileHandleForWriting.write(contentsOf: Data(text.utf8))
    }

    /// Waits for the next line of its output that contains `mark`; nil if the output ends before.
    package func line(containing mark: String) -> String? {
        while let line = nextLine() {
            if line.contains(mark) { return line }
        }
        return nil
    }

    /// Its output until it ends, and its exit status.
    package func finish() -> (status: Int32, output: String) {
        try? input.fileHandleForWriting.close()
        while receive() {}
        if process.isRunning { kill(process.processIdentifier, SIGTERM) }
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: unread, as: UTF8.self))
    }

    package func stop() {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    private func nextLine() -> String? {
        while true {
            if let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: unread[..<end], as: UTF8.self)
                unread.removeFirst(end + 1)
                return line
            }
            if !receive() { return nil }
        }
    }

    /// False at the end of the output, and if nothing was received for so long that nothing will
    /// be.
    private func receive() -> Bool {
        var readiness = pollfd(
            fd: output.fileHandleForReading.fileDescriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&readiness, 1, 20_000) == 1 else { return false }
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = read(output.fileHandleForReading.fileDescriptor, &chunk, chunk.count)
        if count > 0 { unread += chunk[..<count] }
        return count > 0
    }

    /// Runs `program` to its end; throws its output if it fails.
    @discardableResult
    package static func run(_ program: String, _ arguments: [String]) throws -> String {
        let (status, output) = try Tool(program, arguments).finish()
        guard status == 0 else { throw ToolFailure(program: program, output: output) }
        return output
    }
}

package struct ToolFailure: Error {
    package var program: String
    package var output: String
}

/// A separate temporary folder, removed when the last reference disappears.
package final class TemporaryFolder: Sendable {
    package let path: String

    package init() throws {
        let url = FileManager.default.temporaryDirectory
            .appendingPathComponent("test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { remove() }

    package func remove() { try? FileManager.default.removeItem(atPath: path) }
}
