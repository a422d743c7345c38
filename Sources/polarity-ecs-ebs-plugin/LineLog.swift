import Base
import Glibc
import JSON
import Logging

/// Writes one line per event, which Docker adds to its log: up to level notice to standard output,
/// above that to standard error. If a file is set, it receives all lines.
struct LineLog: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    private let format: Settings.LogFormat
    private let sinks: Sinks

    init(level: Logger.Level, format: Settings.LogFormat, sinks: Sinks) {
        logLevel = level
        self.format = format
        self.sinks = sinks
    }

    /// Where lines go.
    struct Sinks: Sendable {
        let output: LogSink
        let error: LogSink
        let file: LogSink?

        init(output: LogSink, error: LogSink, file: LogSink? = nil) {
            self.output = output
            self.error = error
            self.file = file
        }

        /// The process's standard streams, and a file, which stays open as long as the process
        /// lives. If it cannot be opened, or its disk is full, a line on standard error says so.
        init(format: Settings.LogFormat, file: String?) {
            let error = LogSink(STDERR_FILENO, format: format, level: .warning)
            self.error = error
            // If both are the same file, as with `2>&1`, the lines keep their order.
            let isOne = isSameFile(STDOUT_FILENO, STDERR_FILENO)
            output = isOne ? error : LogSink(STDOUT_FILENO, format: format, level: .notice)
            self.file = file.flatMap { Self.open($0, format, reporting: error) }
        }

        private static func open(
            _ file: String, _ format: Settings.LogFormat, reporting sink: LogSink
        ) -> LogSink? {
            let complain: @Sendable (Int32) -> Void = { error in
                sink.write(
                    LineLog.line(
                        format, time: LineLog.now, level: .warning,
                        message: "the log file cannot be written: lines are missing from it",
                        fields: ["file": "\(file)", "error": "\(String(cString: strerror(error)))"])
                )
            }
            // Without O_NONBLOCK, open would wait for a reader if the file is a FIFO.
            let flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK
            let descriptor = Glibc.open(file, flags, 0o640)
            guard descriptor >= 0 else {
                complain(errno)
                return nil
            }
            return LogSink(
                descriptor, format: format, level: .warning, mayBlock: true, whenFailing: complain)
        }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var fields = metadata
        if let added = event.metadata { fields.merge(added) { $1 } }
        let line = Self.line(
            format, time: Self.now, level: event.level, message: "\(event.message)", fields: fields)
        (event.level > .notice ? sinks.error : sinks.output).write(line)
        sinks.file?.write(line)
    }

    static var now: String { CivilTime(unixSeconds: Int64(Glibc.time(nil))).rfc3339 }

    static func line(
        _ format: Settings.LogFormat, time: String, level: Logger.Level, message: String,
        fields: Logger.Metadata
    ) -> [UInt8] {
        switch format {
        case .text: text(time, level.rawValue, message, fields)
        case .json: json(time, level.rawValue, message, fields)
        }
    }

    /// `2026-11-23T07:05:09Z info mounted device=/dev/nvme1n1 volume=vol-…`
    private static func text(
        _ time: String, _ level: String, _ message: String, _ fields: Logger.Metadata
    ) -> [UInt8] {
        var line = "\(time) \(level) \(printable(message))"
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += " \(name)=" + textValue("\(value)")
        }
        return Array((line + "\n").utf8)
    }

    private static func textValue(_ value: String) -> String {
        let text = printable(value)
        guard text.isEmpty || text.contains(where: { " \"=".contains($0) }) else { return text }
        return "\"" + text.replacingAll("\"", by: "'") + "\""
    }

    private static func json(
        _ time: String, _ level: String, _ message: String, _ fields: Logger.Metadata
    ) -> [UInt8] {
        var members = JSONObject(fields.mapValues { .string("\($0)") })
        members["time"] = .string(time)
        members["level"] = .string(level)
        members["message"] = .string(message)
        return JSONValue.object(members).serialised() + [UInt8(ascii: "\n")]
    }

    /// Removes line breaks and terminal control characters in text from outside.
    private static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) else {
            return text
        }
        return String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : $0 }))
    }
}

private func isSameFile(_ first: Int32, _ second: Int32) -> Bool {
    var (one, other) = (stat(), stat())
    guard fstat(first, &one) == 0, fstat(second, &other) == 0 else { return false }
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino
}
