import Base
import EC2Model
import Ring
import TLS

/// Wires the simulator together: its listeners, and the order in which it starts and stops.
@RingActor
final class Server {
    private let configuration: Configuration
    private let stateDirectory: StateDirectory
    private let simulator: Simulator
    private var endpoints: [Task<Void, Never>] = []
    private var imdsPorts: [InstanceID: UInt16] = [:]

    init(_ configuration: Configuration, _ stateDirectory: StateDirectory) {
        self.configuration = configuration
        self.stateDirectory = stateDirectory
        simulator = Simulator(configuration, stateDirectory)
    }

    /// Returns when every listener answers and every volume of the configuration exists.
    func start() async throws {
        let certificates = Certificates(
            directory: stateDirectory.path, addresses: configuration.addresses)
        try await certificates.make()
        for setting in configuration.instances { _ = try serve(setting) }
        for setting in configuration.volumes { try await simulator.add(setting) }
        for setting in configuration.snapshots { try await simulator.add(setting) }
        let port = try serveQueries(certificates)
        try serveControl(certificates, port: port)
    }

    /// Stops the listeners, and removes everything that was created outside the state directory.
    func stop() async {
        for endpoint in endpoints { endpoint.cancel() }
        for endpoint in endpoints { await endpoint.value }
        await simulator.stop()
        stateDirectory.footprint.removeAll()
        let held = stateDirectory.heldLoops
        if !held.isEmpty {
            say(
                "still mounted or open, and gone once they are not: \(held.joined(separator: ", "))"
            )
        }
    }

    private func serve(_ setting: Configuration.InstanceSetting) throws -> UInt16 {
        let id = setting.instance.id
        guard imdsPorts[id] == nil else { throw InputError("\(id) exists") }
        let listener = try listen(setting.imdsPort, "the metadata service of \(id)")
        try simulator.add(setting)
        imdsPorts[id] = listener.port
        let metadata = MetadataEndpoint(simulator, id)
        run(FaultyHTTPServer(listener) { await metadata.handle($0) })
        return listener.port
    }

    private func serveQueries(_ certificates: Certificates) throws -> UInt16 {
        let listener = try listen(configuration.ec2Port, "the EC2 API")
        let context = try TLSContext.server(
            certificate: certificates.server, key: certificates.serverKey)
        let simulator = simulator
        let queries = QueryEndpoint(simulator)
        let events = FaultyHTTPServer.Events(
            accepted: { simulator.counters.connections += 1 },
            handshaken: { resumed in
                simulator.counters.handshakes += 1
                if resumed { simulator.counters.resumed += 1 }
            })
        run(FaultyHTTPServer(listener, tls: context, events: events) { await queries.handle($0) })
        return listener.port
    }

    private func serveControl(_ certificates: Certificates, port: UInt16) throws {
        let listener = try Listener(unixPath: stateDirectory.controlSocket, mode: 0o600)
        let control = ControlEndpoint(
            simulator: simulator, endpoint: "https://127.0.0.1:\(port)",
            authorityFile: certificates.authority,
            serveInstance: { [unowned self] in try serve($0) },
            imdsPort: { [unowned self] in imdsPorts[$0] })
        run(FaultyHTTPServer(listener) { await control.handle($0) })
    }

    private func listen(_ port: UInt16, _ what: String) throws -> Listener {
        do {
            return try Listener(address: .ipv4(.loopback, port: port))
        } catch {
            throw InputError("listen on 127.0.0.1:\(port) for \(what): \(error)")
        }
    }

    private func run(_ endpoint: FaultyHTTPServer) {
        endpoints.append(RingActor.spawn { await endpoint.run() })
    }
}
