import Base
import Glibc
import Logging
import Synchronization
import Testing

@testable import polarity_ecs_ebs_plugin

/// A pipe whose reader reads lines.
private final class LinePipe {
    let writeEnd: Int32
    private let readEnd: Int32
    private var unread: [UInt8] = []

    init() {
        var ends: [Int32] = [0, 0]
        precondition(pipe(&ends) == 0)
        (readEnd, writeEnd) = (ends[0], ends[1])
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    /// Waits for a line, and returns it without its line break. Throws if there is none.
    func line() throws -> String {
        while true {
            if let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                defer { unread.removeFirst(end + 1) }
                return String(decoding: unread[..<end], as: UTF8.self)
            }
            var readiness = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
            try #require(poll(&readiness, 1, 20_000) == 1, "nothing more is written")
            var chunk = [UInt8](repeating: 0, count: 64 * 1024)
            unread += chunk[..<read(readEnd, &chunk, chunk.count)]
        }
    }

    /// Waits for `count` lines, including those counted as missing. Returns the received ones.
    func lines(_ count: Int) throws -> (lines: [String], missing: Int) {
        var (lines, missing): ([String], Int) = ([], 0)
        while lines.count + missing < count {
            let line = try line()
            if let count = countOfMissing(line) { missing += count } else { lines.append(line) }
        }
        return (lines, missing)
    }
}

private func countOfMissing(_ line: String) -> Int? {
    guard let mark = line.range(ofFirst: "missing here count=") else { return nil }
    return Int(line[mark.upperBound...].prefix { $0.isNumber })
}

private func number(_ line: String) -> Int? { Int(line.prefix { $0.isNumber }) }

@Suite(.timeLimit(.minutes(5))) struct LogSinkTests {
    private func sink(
        _ descriptor: Int32, mayBlock: Bool = false,
        whenFailing: @escaping @Sendable (Int32) -> Void = { _ in }
    ) -> LogSink {
        LogSink(
            descriptor, format: .text, level: .warning, mayBlock: mayBlock, whenFailing: whenFailing
        )
    }

    private func text(_ number: Int, _ padding: Int = 90) -> [UInt8] {
        Array("\(number) \(String(repeating: "x", count: padding))\n".utf8)
    }

    @Test(arguments: [false, true])
    func `a log that nobody reads blocks nobody, and its gaps are counted`(
        mayBlock: Bool
    ) throws {
        let pipe = LinePipe()
        let sink = sink(pipe.writeEnd, mayBlock: mayBlock)
        let count = 20_000
        for number in 0..<count { sink.write(text(number)) }
        let (lines, missing) = try pipe.lines(count)
        #expect(missing > 0 && lines.count + missing == count)
        #expect(lines.count * 90 > Limit.logQueueMax)
        let numbers = lines.compactMap(number)
        #expect(numbers == Array(0..<lines.count))
        #expect(lines.allSatisfy { $0.utf8.count == String($0.prefix { $0 != " " }).count + 91 })
        // Later lines are written as usual.
        sink.write(text(count))
        #expect(number(try pipe.line()) == count)
    }

    @Test func `a line that is longer than a pipe's capacity stays whole`() throws {
        let pipe = LinePipe()
        let sink = sink(pipe.writeEnd)
        for number in 0..<4 { sink.write(text(number, 50_000)) }
        for number in 0..<4 {
            #expect(try pipe.line().utf8.count == text(number, 50_000).count - 1)
        }
    }

    @Test func `a socket's mode is left alone, and it blocks nobody`() {
        var ends: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let sink = sink(ends[0])
        for number in 0..<20_000 { sink.write(text(number)) }
        #expect(fcntl(ends[0], F_GETFL) & O_NONBLOCK == 0)
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        #expect(recv(ends[1], &chunk, chunk.count, 0) > 0)
        close(ends[1])
    }

    @Test(arguments: [false, true])
    func `a full disk is reported once, and the lost lines are counted`(
        mayBlock: Bool
    ) throws {
        let pipe = LinePipe()
        let told = LinePipe()
        let descriptor = open("/dev/full", O_WRONLY)
        // A file is written by its own descriptor.
        let sink = sink(descriptor, mayBlock: mayBlock) { [end = told.writeEnd] error in
            dprintLine(end, "failing: \(error)")
        }
        sink.write(text(0))
        #expect(try told.line() == "failing: \(ENOSPC)")
        for number in 1..<10 { sink.write(text(number)) }
        guard mayBlock else { return }
        #expect(dup2(pipe.writeEnd, descriptor) == descriptor)
        sink.write(text(10))
        let (lines, missing) = try pipe.lines(11)
        #expect(lines.last.flatMap(number) == 10)
        #expect(lines.count + missing == 11 && missing >= 1)
    }

    @Test func `a trap writes the queued lines`() async throws {
        let result = await #expect(
            processExitsWith: .failure, observing: [\.standardOutputContent]
        ) {
            let sink = LogSink(STDOUT_FILENO, format: .text, level: .warning, mayBlock: true)
            LogSink.finishAtEnd()
            for number in 0..<2000 { sink.write(Array("line \(number)\n".utf8)) }
            preconditionFailure("a bug")
        }
        let output = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
        #expect(output.contains("line 0\n") && output.contains("line 1999\n"))
    }

    @Test func `up to notice goes to standard output, the rest to standard error, all to the file`()
        throws
    {
        let (output, error, file) = (LinePipe(), LinePipe(), LinePipe())
        let sinks = LineLog.Sinks(
            output: sink(output.writeEnd), error: sink(error.writeEnd), file: sink(file.writeEnd))
        let log = Logger(label: "test") { _ in LineLog(level: .trace, format: .text, sinks: sinks) }
        for level in Logger.Level.allCases { log.log(level: level, "said") }
        func levels(_ pipe: LinePipe, _ count: Int) throws -> [Substring] {
            try (0..<count).map { _ in try pipe.line().split(separator: " ")[1] }
        }
        #expect(try levels(output, 4) == ["trace", "debug", "info", "notice"])
        #expect(try levels(error, 3) == ["warning", "error", "critical"])
        #expect(try levels(file, 7).map(String.init) == Logger.Level.allCases.map(\.rawValue))
    }
}

private func dprintLine(_ descriptor: Int32, _ text: String) {
    let line = Array("\(text)\n".utf8)
    #expect(write(descriptor, line, line.count) == line.count)
}
