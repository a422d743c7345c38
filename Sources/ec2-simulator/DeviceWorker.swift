import Base
import EC2Model
import Glibc
import Ring

/// Executes the model's orders: binds loop devices, and makes them appear and disappear.
///
/// The orders of one attachment are executed one after another, those of several in parallel.
@RingActor
final class DeviceWorker {
    /// The outcome of an order.
    enum Outcome: Sendable {
        case plugged(node: String, at: Instant)
        case unplugged(at: Instant)
        case held
        case failed(String)
    }

    /// A device that is present.
    private struct Plugged: Sendable {
        var loop: LoopDevice
        var device: InstanceDevices.Device
        /// Whether its node survives it while something has it mounted.
        var stays = false
    }

    private struct Key: Hashable {
        var volume: VolumeID
        var instance: InstanceID

        init(_ order: DeviceOrder) {
            volume = order.volume
            instance = order.instance
        }
    }

    private var trees: [InstanceID: InstanceDevices] = [:]
    private var plugged: [Key: Plugged] = [:]
    /// Devices that were removed but are still mounted.
    private var dead: [(instance: InstanceID, made: Plugged)] = []
    private var reaper: Task<Void, Never>?
    private var queues: [Key: [DeviceOrder]] = [:]
    /// The tasks that execute the orders of an attachment.
    private var workers: [Key: Task<Void, Never>] = [:]
    private var isStopped = false
    private let backing: (VolumeID) -> String
    private let storage: Storage
    private let report: (DeviceOrder, Outcome) -> Void

    /// `backing` names a volume's file, which `storage` keeps.
    init(
        backing: @escaping (VolumeID) -> String, storage: Storage,
        report: @escaping (DeviceOrder, Outcome) -> Void
    ) {
        self.backing = backing
        self.storage = storage
        self.report = report
    }

    func add(_ tree: InstanceDevices, for instance: InstanceID) { trees[instance] = tree }

    func tree(of instance: InstanceID) -> InstanceDevices? { trees[instance] }

    func enqueue(_ orders: [DeviceOrder]) {
        for order in orders {
            let key = Key(order)
            queues[key, default: []].append(order)
            guard workers[key] == nil else { continue }
            workers[key] = RingActor.spawn { await self.work(on: key) }
        }
    }

    /// Returns when the present orders have been executed.
    func settle() async {
        for worker in workers.values { await worker.value }
    }

    private func work(on key: Key) async {
        while !isStopped, let order = queues[key]?.first {
            queues[key]?.removeFirst()
            let outcome = await carryOut(order)
            report(order, outcome)
        }
        queues[key] = nil
        workers[key] = nil
    }

    private func carryOut(_ order: DeviceOrder) async -> Outcome {
        do {
            switch order.kind {
            case .plug(let plug): return try await self.plug(plug, order)
            case .unplug(let force): return try await unplug(order, force: force)
            }
        } catch {
            return .failed("\(error)")
        }
    }

    private func plug(_ plug: DeviceOrder.Plug, _ order: DeviceOrder) async throws -> Outcome {
        guard let tree = trees[order.instance] else { preconditionFailure("an unknown instance") }
        let file = backing(order.volume)
        await storage.settle()
        let (made, appeared) = try await RingActor.ring.blocking { () throws(SystemError) in
            let loop = try LoopDevice(backing: file)
            var appeared = Instant(nanoseconds: 0)
            var device = try tree.add(plug, minor: loop.minor, bytes: size(of: file)) {
                appeared = RingActor.ring.now
            }
            do throws(SystemError) {
                try tree.add(try loop.showPartitions(), of: &device)
            } catch {
                tree.remove(device)
                throw error
            }
            return (Plugged(loop: loop, device: device, stays: plug.stays), appeared)
        }
        plugged[Key(order)] = made
        return .plugged(node: made.device.node, at: appeared)
    }

    private func unplug(_ order: DeviceOrder, force: Bool) async throws -> Outcome {
        let key = Key(order)
        guard let tree = trees[order.instance], let made = plugged[key] else {
            return .unplugged(at: RingActor.ring.now)
        }
        let isHeld = try await RingActor.ring.blocking { () throws(SystemError) in
            let isHeld = try made.loop.isHeld()
            guard isHeld else {
                tree.remove(made.device)
                made.loop.release()
                return false
            }
            guard force else { return true }
            try made.loop.tear()
            try tree.kill(made.device, stays: made.stays)
            return true
        }
        if isHeld {
            guard force else { return .held }
            await storage.inTurn {
                do {
                    try await self.replaceBacking(of: order.volume, tornFrom: key)
                } catch {
                    say("\(order.volume): \(error)")
                }
            }.value
            dead.append((order.instance, made))
            reaper = reaper ?? RingActor.spawn { await self.reap() }
        }
        plugged[key] = nil
        return .unplugged(at: RingActor.ring.now)
    }

    /// Gives the volume its own file, so that a torn-away device, which still has one sector,
    /// neither reads nor writes it.
    private func replaceBacking(of volume: VolumeID, tornFrom key: Key) async throws {
        let isShared = plugged.keys.contains { $0.volume == volume && $0 != key }
        // The other instances of a Multi-Attach volume write to the same file.
        guard !isShared else { return }
        let (file, copy) = (backing(volume), backing(volume) + ".copy")
        try await run("/bin/cp", ["--sparse=always", file, copy])
        try await RingActor.ring.blocking { () throws(SystemError) in
            let old = open(file, O_RDWR | O_CLOEXEC)
            guard old >= 0 else { throw SystemError("open \(file)") }
            defer { close(old) }
            guard rename(copy, file) == 0 else { throw SystemError("rename \(copy)") }
            // Reading beyond the end fails.
            guard ftruncate(old, 0) == 0 else { throw SystemError("truncate what was \(file)") }
        }
    }

    /// Releases dead devices once nothing has them mounted; there is no event for that.
    private func reap() async {
        while !isStopped, !dead.isEmpty {
            try? await RingActor.ring.sleep(until: RingActor.ring.now + Region.busyRetryTime)
            for (instance, made) in dead {
                let isHeld = try? await RingActor.ring.blocking { () throws(SystemError) in
                    try made.loop.isHeld()
                }
                guard isHeld == false, !isStopped else { continue }
                made.loop.release()
                trees[instance]?.bury(made.device)
                dead.removeAll { $0.made.loop === made.loop }
            }
        }
        reaper = nil
    }

    /// Adapts the devices of a grown volume to its file.
    func resize(_ volume: VolumeID) async throws {
        let file = backing(volume)
        for (key, made) in plugged where key.volume == volume {
            guard let tree = trees[key.instance] else { continue }
            try await RingActor.ring.blocking { () throws(SystemError) in
                try made.loop.resize()
                try tree.resize(made.device, bytes: size(of: file))
            }
        }
    }

    /// Accepts no more orders, and releases the loop devices once the current orders are done.
    func stop() async {
        isStopped = true
        await settle()
        await reaper?.value
        for made in plugged.values { made.loop.release() }
        for (_, made) in dead { made.loop.release() }
        plugged = [:]
        dead = []
    }
}
