import ArgumentParser
import EC2Model
import Glibc
import JSON
import Ring

@main
struct Command: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ec2-simulator",
        abstract: "IMDSv2 and the EC2 API over TLS, with volumes on loop devices.",
        subcommands: [Serve.self, Clean.self])
}

struct Options: ParsableArguments {
    @Option(name: .customLong("config"), help: "The configuration, a JSON file.")
    var path: String

    func load() throws -> Configuration {
        do {
            return try Configuration(
                try JSONValue.parse(try readFile(path)), unixSeconds: RingActor.ring.unixSeconds)
        } catch {
            throw InputError("\(path): \(error)")
        }
    }
}

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Runs until SIGTERM or SIGINT; prints 'ready <control socket>' once it answers.")

    @OptionGroup var options: Options

    func run() throws {
        guard geteuid() == 0 else { throw InputError("loop devices and nodes need root") }
        umask(0o022)
        let configuration = try options.load()
        let stateDirectory = try StateDirectory(configuration.stateDirectory)
        do {
            try RingActor.ring.start()
        } catch {
            stateDirectory.footprint.removeAll()
            throw error
        }
        RingActor.spawn {
            let code = await Self.serve(configuration, stateDirectory)
            Glibc.exit(code)
        }
        RingActor.ring.run()
    }

    @RingActor
    private static func serve(
        _ configuration: Configuration, _ stateDirectory: StateDirectory
    ) async -> Int32 {
        let server = Server(configuration, stateDirectory)
        do {
            let signals = try TerminationSignals()
            let starting = RingActor.spawn { try await server.start() }
            // A signal also interrupts a start that hangs or takes long.
            let ending = RingActor.spawn {
                _ = try await signals.next()
                starting.cancel()
            }
            try await starting.value
            print("ready \(stateDirectory.controlSocket)")
            fflush(nil)
            try await ending.value
            await server.stop()
            return EXIT_SUCCESS
        } catch {
            say("\(error)")
            await server.stop()
            return EXIT_FAILURE
        }
    }
}

struct Clean: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Removes what a killed simulator left: nodes, links, sysfs entries.")

    @OptionGroup var options: Options

    func run() throws {
        let configuration = try options.load()
        guard access(configuration.stateDirectory, F_OK) == 0 else { return }
        let stateDirectory = try StateDirectory(configuration.stateDirectory)
        stateDirectory.footprint.removeAll()
        let held = stateDirectory.heldLoops
        if !held.isEmpty {
            throw InputError(
                "still mounted or open: \(held.joined(separator: ", ")); unmount them")
        }
    }
}
