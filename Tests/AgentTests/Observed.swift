import Agent
import Base
import Logging
import Testing
import VolumeCore

/// What a manager has logged, one `level message key=value …` per line.
final class LogLines: @unchecked Sendable {
    fileprivate(set) var texts: [String] = []

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }

    func with(_ text: String) -> [String] { texts.filter { $0.contains(text) } }

    func clear() { texts = [] }

    private struct Handler: LogHandler {
        let lines: LogLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let pairs = (event.metadata ?? [:]).sorted { $0.key < $1.key }
            let words = ["\(event.level)", "\(event.message)"]
            lines.texts.append((words + pairs.map { "\($0)=\($1)" }).joined(separator: " "))
        }
    }
}

/// A clock whose waits can fail, as if the loop had no room for one more timer.
final class FailingTime: TimeSource, @unchecked Sendable {
    private let time: any TimeSource
    /// The error of a wait that begins or is cancelled.
    var error: OperationError?

    init(_ time: any TimeSource) { self.time = time }

    var now: Instant { time.now }
    var unixSeconds: Int64 { time.unixSeconds }

    func sleep(until instant: Instant) async throws {
        if let error, !Task.isCancelled { throw error }
        do { try await time.sleep(until: instant) } catch { throw self.error ?? error }
    }
}

extension Fixture {
    /// A new daemon with the present state, whose log is kept.
    func observed(
        _ lines: LogLines, time: (any TimeSource)? = nil, detachAfter: Duration? = .seconds(15)
    ) -> VolumeManager {
        restart(
            VolumeManager.Settings(mountRoot: "/mnt", detachAfter: detachAfter), lines.logger,
            time ?? self.time)
    }

    func use(_ manager: VolumeManager, as id: String = "a") async throws {
        try await manager.create(Self.name, options: [:])
        _ = try await manager.mount(Self.name, id: id)
        try await manager.unmount(Self.name, id: id)
    }
}
