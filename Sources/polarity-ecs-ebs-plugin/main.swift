import Base
import CLinux
import Glibc
import Linux
import Logging
import Ring
import TLS

// The daemon has no command line: Docker starts it, and the environment configures it.

/// Writes to standard error why the daemon does not start, and exits with EX_CONFIG or EX_OSERR of
/// sysexits.h.
func give(up reason: String, status: Int32, by sinks: LineLog.Sinks? = nil) -> Never {
    let line = Array("\(plugin ?? DriverName.usual) does not start: \(reason)\n".utf8)
    if let sinks { sinks.error.write(line) } else { write(STDERR_FILENO, line, line.count) }
    exit(status)
}

/// If a standard stream is missing, the next opened file would get its number and receive its
/// output.
func fillStandardStreams() {
    var descriptor: Int32
    repeat { descriptor = open("/dev/null", O_RDWR) } while (0...STDERR_FILENO).contains(descriptor)
    if descriptor >= 0 { close(descriptor) }
}

func currentEnvironment() -> [String: String] {
    var variables: [String: String] = [:]
    var next = environ
    while let entry = next.pointee {
        let text = String(cString: entry)
        if let mark = text.firstIndex(of: "=") {
            variables[String(text[..<mark])] = String(text[text.index(after: mark)...])
        }
        next += 1
    }
    return variables
}

CLinux_share_heap()
keepOpenSSLToTheEnd()
fillStandardStreams()
let environment = currentEnvironment().merging(buildFacts()) { $1 }
/// Nil if this process is not a managed plugin.
let plugin = DriverName.ofPlugin(mountedAt: Settings().mountPath)
let settings: Settings
do { settings = try Settings(environment: environment) } catch {
    let advice = plugin.map { "; 'docker plugin set \($0) SETTING=VALUE' changes a setting" } ?? ""
    give(up: "\(error)\(advice)", status: 78)
}
let sinks = LineLog.Sinks(format: settings.logFormat, file: settings.logFile)
LogSink.finishAtEnd()
let log = Logger(label: "polarity-ecs-ebs-plugin") { _ in
    LineLog(level: settings.logLevel, format: settings.logFormat, sinks: sinks)
}
do { try RingActor.ring.start() } catch { give(up: "\(error)", status: 71, by: sinks) }
RingActor.spawn {
    do {
        try await Daemon(
            settings: settings, plugin: plugin, environment: environment, log: log
        ).run()
    } catch {
        give(up: "\(error)", status: 71, by: sinks)
    }
    RingActor.ring.stop()
}
RingActor.ring.run()
