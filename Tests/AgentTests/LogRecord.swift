import Logging

/// What a manager under test has logged, oldest first.
final class LogRecord: @unchecked Sendable {
    // Everything is touched by the one thread that runs the simulation.
    private(set) var lines: [(level: Logger.Level, text: String)] = []

    var logger: Logger { Logger(label: "test") { _ in RecordingLogHandler(record: self) } }

    fileprivate func add(_ level: Logger.Level, _ text: String) { lines.append((level, text)) }

    /// The lines whose message or metadata have that text.
    func lines(with text: String) -> [String] {
        lines.map(\.text).filter { $0.contains(text) }
    }
}

/// Writes a logger's lines into a record.
private struct RecordingLogHandler: LogHandler {
    let record: LogRecord
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let members = (event.metadata ?? [:]).sorted { $0.key < $1.key }
            .map { " \($0.key)=\($0.value)" }
        record.add(event.level, "\(event.message)\(members.joined())")
    }
}
