import Agent
import Base
import EC2Client
import Glibc
import HTTPClient
import HTTPServer
import HTTPWire
import Linux
import Logging
import Ring
import TLS

/// Wires the parts together, and starts and stops them.
@RingActor
final class Daemon {
    private let settings: Settings
    private let log: Logger
    private let driverName: String
    private let health: Health
    private let volumes: VolumeManager
    private let driver: VolumeDriver
    /// Retries until EC2 answers: at the start, and again after a call without an answer.
    private var reaching: Task<Void, Never>?

    /// `plugin` is the name of this managed plugin; nil if this process is not one.
    init(
        settings: Settings, plugin: String?, environment: [String: String], log: Logger
    ) throws {
        self.settings = settings
        self.log = log
        driverName = plugin ?? DriverName.usual
        health = Health(
            version: settings.version, commit: settings.commit, packages: settings.packages)
        let ring = RingActor.ring
        let metadata = settings.metadataEndpoint.map {
            InstanceMetadata(
                endpoint: $0, transport: Self.client(settings, proxies: .none), time: ring, log: log
            )
        }
        let client = Self.client(settings, proxies: try ProxySettings(environment: environment))
        let ec2 = EC2Client(
            settings: settings.ec2,
            credentials: try CredentialSource(
                environment: environment, metadata: metadata, transport: client, time: ring,
                log: log),
            metadata: metadata, transport: client, time: ring, log: log)
        volumes = VolumeManager(
            ports: VolumeManager.Ports(
                ec2: ec2,
                devices: try DeviceWatch(devPath: settings.devPath, sysPath: settings.sysPath),
                fileSystems: FileSystems(devPath: settings.devPath, sysPath: settings.sysPath),
                state: try StateFiles(
                    folder: settings.statePath, plugin: plugin, version: settings.version,
                    commit: settings.commit, log: log),
                host: HostIdentity(settings: settings, metadata: metadata, boot: try bootID()),
                time: ring),
            settings: VolumeManager.Settings(
                mountRoot: settings.mountPath, detachAfter: settings.detachAfter,
                fileSystem: settings.fileSystem,
                takeover: settings.takeover, driverName: driverName),
            executor: ring, log: log)
        driver = VolumeDriver(volumes: volumes)
        ec2.whenEnded = { [weak self] failure in
            if let failure { self?.reachEC2(after: "\(failure)") }
        }
    }

    private static func client(_ settings: Settings, proxies: ProxySettings) -> HTTPClient {
        // Parsing a bundle of CA certificates takes 30 ms, so it runs on a worker, on first use.
        let caFile = settings.caFile
        return HTTPClient(
            trust: {
                try await RingActor.ring.blocking(doing: "read \(caFile)") {
                    try TLSContext.client(caFile: caFile)
                }
            }, proxies: proxies)
    }

    /// Serves until a signal ends it. Mounts are not touched: the containers keep them.
    func run() async throws {
        reportShortages()
        let signals = try TerminationSignals()
        try await volumes.start()
        // The socket answers before the first call to AWS, which may be unreachable.
        let listener = try Listener(unixPath: settings.socketPath, mode: 0o660)
        let server = HTTPServer(listener: listener, replier: reply)
        log.info(
            "listening",
            metadata: [
                "driver": "\(driverName)", "socket": "\(settings.socketPath)",
                "version": "\(settings.version)", "commit": "\(settings.commit)",
            ])
        if let refusal = RingActor.ring.uringRefusal {
            log.warning(
                "io_uring is blocked: using epoll, which takes slightly more CPU time per request",
                metadata: ["error": "\(refusal)"])
        }
        let serving = RingActor.spawn {
            do { try await server.run() } catch {
                // Docker restarts the plugin; without this exit it would seem alive but not listen.
                self.log.critical(
                    "cannot accept connections any more: exiting", metadata: ["error": "\(error)"])
                exit(71)
            }
        }
        reachEC2(after: "starting")
        _ = try await signals.next()
        log.info("stopping; mounts are left as they are")
        reaching?.cancel()
        await server.stop(by: RingActor.ring.now + Limit.stopTimeMax)
        await serving.value
        do { try await volumes.conclude() } catch {
            log.error("the state could not be saved", metadata: ["error": "\(error)"])
        }
        log.info("stopped")
    }

    private func reportShortages() {
        RingActor.ring.whenMemoryIsShort = { [log] times in
            log.warning(
                "the kernel is short of memory for io_uring: the plugin retries, and answers late",
                metadata: [
                    "error": "io_uring_enter: EAGAIN", "times": "\(times)",
                    "advice": "free memory on this instance",
                ])
        }
    }

    // MARK: Answers

    private func reply(to request: HTTPRequest) -> Reply<HTTPServer.Answer> {
        let path = String(request.path)
        if path == "/health" { return .now(HTTPServer.Answer(answerHealth(request.method))) }
        guard let call = VolumeDriver.Call(path) else {
            let text = "there is no \(path.prefix(100))\n"
            return .now(HTTPServer.Answer(HTTPResponse(status: 404, text: text)))
        }
        guard request.method == "POST" else {
            return .now(HTTPServer.Answer(Self.methodNotAllowed("POST")))
        }
        switch driver.reply(to: call, body: request.body) {
        case .now(let answer):
            log.debug("answered", metadata: ["path": "\(path)"])
            return .now(Self.answer(answer))
        case .later(let work):
            return .later { @RingActor in
                let asked = RingActor.ring.now
                let answer = await work()
                self.log.debug(
                    "answered",
                    metadata: [
                        "path": "\(path)",
                        "ms": "\((RingActor.ring.now - asked).milliseconds)",
                    ])
                return Self.answer(answer)
            }
        }
    }

    private func answerHealth(_ method: String) -> HTTPResponse {
        guard ["GET", "HEAD", "POST"].contains(method) else {
            return Self.methodNotAllowed("GET, HEAD, POST")
        }
        return HTTPResponse(status: 200, contentType: "application/json", body: health.body)
    }

    // Created only once, because creating them takes a third of the time of a response.
    private static let answerHeaders: HTTPHeaders = [
        "Content-Type": "application/vnd.docker.plugins.v1.2+json"
    ]

    private static func answer(_ answer: VolumeDriver.Answer) -> HTTPServer.Answer {
        HTTPServer.Answer(
            HTTPResponse(status: 200, headers: answerHeaders, body: answer.body),
            sent: answer.sent)
    }

    private static func methodNotAllowed(_ allowed: String) -> HTTPResponse {
        var response = HTTPResponse(status: 405, text: "the methods are \(allowed)\n")
        response.headers["Allow"] = allowed
        return response
    }

    // MARK: Whether EC2 answers

    /// Reports the problem in /health, and retries until EC2 has answered. So the first Mount finds
    /// a connection, credentials and the names in use.
    private func reachEC2(after problem: String) {
        guard reaching == nil else { return }
        health.problem = problem
        reaching = RingActor.spawn {
            await self.tryToReachEC2()
            self.reaching = nil
        }
    }

    private func tryToReachEC2() async {
        var pause = Limit.startRetryMin
        while !Task.isCancelled {
            do {
                try await volumes.learnAttachments()
                health.problem = nil
                log.info("EC2 answers")
                return
            } catch {
                health.problem = "\(error)"
                log.warning(
                    "EC2 is not available yet: trying again",
                    metadata: ["error": "\(error)", "retry_s": "\(pause.components.seconds)"])
            }
            do { try await RingActor.ring.sleep(until: RingActor.ring.now + pause) } catch {
                return
            }
            pause = min(pause * 2, Limit.startRetryMax)
        }
    }
}
