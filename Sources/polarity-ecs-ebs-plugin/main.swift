import Base
import Glibc
import Logging
import Ring

// The daemon has no commands: Docker starts it, and the environment sets it up.

/// Says on standard error why the daemon does not start, and ends with EX_CONFIG or EX_OSERR of
/// sysexits.h.
func give(up reason: String, status: Int32) -> Never {
    let line = "polarity-ecs-ebs-plugin does not start: \(reason)\n"
    _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(status)
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

let environment = currentEnvironment()
let settings: Settings
do { settings = try Settings(environment: environment) } catch {
    give(up: "\(error)", status: 78)
}
let log = Logger(label: "polarity-ecs-ebs-plugin") { _ in
    LineLog(level: settings.logLevel, format: settings.logFormat, file: settings.logFile)
}
do { try RingActor.ring.start() } catch { give(up: "\(error)", status: 71) }
RingActor.spawn {
    do {
        try await Daemon(settings: settings, environment: environment, log: log).run()
    } catch {
        give(up: "\(error)", status: 71)
    }
    RingActor.ring.stop()
}
RingActor.ring.run()
