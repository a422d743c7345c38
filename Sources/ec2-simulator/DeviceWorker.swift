import Base
import EC2Model
import Ring

/// Carries out the model's orders: binds loop devices, and makes them appear and go.
///
/// The orders of one attachment are carried out one after the other, those of several side by side.
@RingActor
final class DeviceWorker {
    /// What came of an order.
    enum Outcome: Sendable {
        case plugged(node: String, at: Instant)
        case unplugged(at: Instant)
        case held
        case failed(String)
    }

    /// A device that is there.
    private struct Plugged: Sendable {
        var loop: LoopDevice
        var device: DeviceTree.Device
    }

    private struct Key: Hashable {
        var volume: VolumeID
        var instance: InstanceID

        init(_ order: DeviceOrder) {
            volume = order.volume
            instance = order.instance
        }
    }

    private var trees: [InstanceID: DeviceTree] = [:]
    private var plugged: [Key: Plugged] = [:]
    private var queues: [Key: [DeviceOrder]] = [:]
    /// Those who carry out the orders of an attachment that has some.
    private var workers: [Key: Task<Void, Never>] = [:]
    private var isStopped = false
    private let backing: (VolumeID) -> String
    private let report: (DeviceOrder, Outcome) -> Void

    /// `backing` names a volume's file.
    init(
        backing: @escaping (VolumeID) -> String,
        report: @escaping (DeviceOrder, Outcome) -> Void
    ) {
        self.backing = backing
        self.report = report
    }

    func add(_ tree: DeviceTree, for instance: InstanceID) { trees[instance] = tree }

    func tree(of instance: InstanceID) -> DeviceTree? { trees[instance] }

    func enqueue(_ orders: [DeviceOrder]) {
        for order in orders {
            let key = Key(order)
            queues[key, default: []].append(order)
            guard workers[key] == nil else { continue }
            workers[key] = RingActor.spawn { await self.work(on: key) }
        }
    }

    /// Returns when the orders that there are now have been carried out.
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
            return (Plugged(loop: loop, device: device), appeared)
        }
        plugged[Key(order)] = made
        return .plugged(node: made.device.node, at: appeared)
    }

    private func unplug(_ order: DeviceOrder, force: Bool) async throws -> Outcome {
        let key = Key(order)
        guard let tree = trees[order.instance], let made = plugged[key] else {
            return .unplugged(at: RingActor.ring.now)
        }
        let isGone = try await RingActor.ring.blocking { () throws(SystemError) in
            if try made.loop.isHeld() {
                guard force else { return false }
                try made.loop.tear()
            }
            tree.remove(made.device)
            made.loop.release()
            return true
        }
        guard isGone else { return .held }
        plugged[key] = nil
        return .unplugged(at: RingActor.ring.now)
    }

    /// Lets the devices of a volume that has grown follow its file.
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

    /// Takes no more orders, and releases the loop devices once the orders under way are done.
    func stop() async {
        isStopped = true
        await settle()
        for made in plugged.values { made.loop.release() }
        plugged = [:]
    }
}
