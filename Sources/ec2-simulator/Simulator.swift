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
    private let storage: Storage
    private var worker: DeviceWorker?
    private var timer: Task<Void, Never>?
    private var isStopped = false
    /// Calls that are held until the faults are removed.
    private var held: [UnsafeContinuation<Void, Never>] = []

    init(_ configuration: Configuration, _ stateDirectory: StateDirectory) {
        region = configuration.region
        credentials = CredentialStore(configuration.credentials)
        self.stateDirectory = stateDirectory
        storage = Storage(stateDirectory)
        worker = DeviceWorker(backing: stateDirectory.backing, storage: storage) { [weak self] in
            self?.report($0, $1)
        }
        storage.grown = { [weak self] in try await self?.worker?.resize($0) }
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
        // A volume that had this id may still have to be removed.
        await storage.settle()
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

    func add(_ setting: Configuration.SnapshotSetting) async throws {
        let snapshot = setting.snapshot
        guard region.snapshots[snapshot.id] == nil else {
            throw InputError("\(snapshot.id) exists")
        }
        stateDirectory.removeSnapshot(snapshot.id)
        try await setting.content.make(
            at: stateDirectory.snapshot(snapshot.id), bytes: snapshot.bytes)
        region.add(snapshot)
    }

    /// Executes an EC2 call; everything that it creates or changes on disk is done when it returns.
    func perform(
        _ action: String, _ parameters: QueryParameters
    ) async throws(APIError) -> [XMLNode] {
        let members = try region.perform(action, parameters, at: now) { randomHex(17) }
        if advance() { await storage.settle() }
        return members
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

    /// Executes what is due, and wakes up again for the next timer; whether there were orders for
    /// the storage.
    @discardableResult
    func advance() -> Bool {
        guard !isStopped else { return false }
        let orders = region.advance(to: now)
        let storageOrders = region.takeStorageOrders()
        storage.enqueue(storageOrders)
        worker?.enqueue(orders)
        wakeUp()
        return !storageOrders.isEmpty
    }

    private func wakeUp() {
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
        await storage.settle()
    }
}
