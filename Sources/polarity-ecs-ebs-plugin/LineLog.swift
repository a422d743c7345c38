import Base
import Glibc
import JSON
import Logging

/// Writes one line an event to standard output, which Docker puts into its journal, and to a file
/// where one is set.
///
/// A line is written by one write(2), so that lines of two processes do not mix.
struct LineLog: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    private let format: Settings.LogFormat
    private let descriptors: [Int32]

    /// A file that cannot be opened is reported on standard error, and left out.
    init(level: Logger.Level, format: Settings.LogFormat, file: String?) {
        logLevel = level
        self.format = format
        var descriptors: [Int32] = [STDOUT_FILENO]
        if let file {
            // It stays open as long as the process lives.
            let descriptor = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
            if descriptor >= 0 { descriptors.append(descriptor) } else { perror(file) }
        }
        self.descriptors = descriptors
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var fields = metadata
        if let added = event.metadata { fields.merge(added) { $1 } }
        let line = Self.line(
            format, time: CivilTime(unixSeconds: Int64(Glibc.time(nil))).rfc3339,
            level: event.level, message: "\(event.message)", fields: fields)
        for descriptor in descriptors {
            _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        }
    }

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

    /// No line breaks and no terminal's control characters from outside.
    private static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) else {
            return text
        }
        return String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : $0 }))
    }
}
