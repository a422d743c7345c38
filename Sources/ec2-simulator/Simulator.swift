import AWSWire
import Base
import EC2Model
import HTTPWire
import Ring

/// The running simulation: the model, its clock, its devices, and its counters.
@RingActor
final class Simulator {
    struct Counters {
        var calls: [String: Int] = [:]
        var errors: [String: Int] = [:]
        var faults = 0
        var imds: [String: Int] = [:]
        var connections = 0
        var handshakes = 0
        var resumed = 0
    }

    var region: Region
    var credentials: CredentialStore
    var counters = Counters()
    let stateDirectory: StateDirectory
    private var worker: DeviceWorker?
    private var timer: Task<Void, Never>?
    private var isStopped = false
    /// Calls that are held until the faults are removed.
    private var held: [UnsafeContinuation<Void, Never>] = []

    init(_ configuration: Configuration, _ stateDirectory: StateDirectory) {
        region = configuration.region
        credentials = CredentialStore(configuration.credentials)
        self.stateDirectory = stateDirectory
        worker = DeviceWorker(backing: stateDirectory.backing) { [weak self] in
            self?.report($0, $1)
        }
    }

    var now: Moment {
        Moment(instant: RingActor.ring.now, unixSeconds: RingActor.ring.unixSeconds)
    }

    // MARK: Inventory

    func add(_ setting: Configuration.InstanceSetting) throws {
        let tree = InstanceDevices(
            devPath: setting.devPath, sysPath: setting.sysPath,
            footprint: stateDirectory.footprint)
        try tree.prepare()
        worker?.add(tree, for: setting.instance.id)
        region.set(setting.instance, at: now)
        advance()
    }

    func add(_ setting: Configuration.VolumeSetting) async throws {
        let id = setting.volume.id
        guard region.volumes[id] == nil else { throw InputError("\(id) exists") }
        let path = stateDirectory.backing(id)
        // Whatever an earlier simulator of this state directory left does not belong to this run.
        stateDirectory.removeBacking(id)
        try await setting.content.make(at: path, bytes: setting.volume.bytes)
        guard region.volumes[id] == nil else { throw InputError("\(id) exists") }
        region.add(setting.volume, at: now)
        region.note("volume-created", id, nil, setting.content.rawValue, at: now.instant)
        guard let (instance, device) = setting.attachedTo else { return }
        do throws(APIError) {
            try region.setAttached(
                id, to: instance, as: device,
                deleteOnTermination: setting.deleteOnTermination, at: now)
        } catch {
            throw InputError("\(id): \(error.code): \(error.message)")
        }
        advance()
        await worker?.settle()
    }

    func tree(of instance: InstanceID) -> InstanceDevices? { worker?.tree(of: instance) }

    /// Executes an EC2 call; everything that it creates or changes on disk is done when it returns.
    func perform(
        _ action: String, _ parameters: QueryParameters
    ) async throws(APIError) -> [XMLNode] {
        let before = region.volumes
        let members = try region.perform(action, parameters, at: now) { randomHex(17) }
        await followVolumes(since: before)
        advance()
        return members
    }

    /// Adapts the backing files to volumes that a call created, grew or deleted.
    private func followVolumes(since before: [VolumeID: Volume]) async {
        for (id, volume) in region.volumes where before[id] != volume {
            do {
                if before[id] == nil {
                    try await VolumeContent.blank.make(
                        at: stateDirectory.backing(id), bytes: volume.bytes)
                } else if volume.state == .deleting {
                    stateDirectory.removeBacking(id)
                } else if before[id]?.bytes != volume.bytes {
                    try stateDirectory.resizeBacking(id, bytes: volume.bytes)
                    try await worker?.resize(id)
                }
            } catch {
                say("\(id): \(error)")
            }
        }
    }

    // MARK: Faults

    func removeFaults() {
        region.faults.removeAll()
        let waiting = held
        held = []
        for continuation in waiting { continuation.resume() }
    }

    func faultsRemoved() async {
        await withUnsafeContinuation { held.append($0) }
    }

    // MARK: Time

    /// Executes what is due, and wakes up again for the next timer.
    func advance() {
        guard !isStopped else { return }
        let orders = region.advance(to: now)
        worker?.enqueue(orders)
        timer?.cancel()
        timer = nil
        guard let next = region.nextTimer else { return }
        timer = RingActor.spawn {
            do { try await RingActor.ring.sleep(until: next) } catch { return }
            self.advance()
        }
    }

    private func report(_ order: DeviceOrder, _ outcome: DeviceWorker.Outcome) {
        switch outcome {
        case .plugged(let node, let instant):
            region.plugged(
                order, node: node, at: Moment(instant: instant, unixSeconds: now.unixSeconds))
        case .unplugged(let instant):
            region.unplugged(
                order, at: Moment(instant: instant, unixSeconds: now.unixSeconds))
        case .held: region.held(order, at: now)
        case .failed(let reason):
            say("\(order.volume) on \(order.instance): \(reason)")
            switch order.kind {
            case .plug: region.plugFailed(order, reason, at: now)
            // It is retried, as for a device that is held.
            case .unplug: region.held(order, at: now)
            }
        }
        advance()
    }

    func stop() async {
        isStopped = true
        removeFaults()
        timer?.cancel()
        await worker?.stop()
    }
}
