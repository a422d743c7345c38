import Base
import VolumeCore

/// The kernel of one host: devices, mounts and their holders. It outlives the daemon.
final class LifeKernel: @unchecked Sendable {
    /// One appearance of a volume on this host: a device that disappeared and came back is another
    /// one.
    final class Device {
        let volume: LifeCloud.Volume
        let node: BlockDevice
        /// When it disappeared.
        var goneSince: Instant?

        var isPresent: Bool { goneSince == nil }

        init(volume: LifeCloud.Volume, node: BlockDevice) {
            self.volume = volume
            self.node = node
        }
    }

    /// A file system that the kernel has mounted, in whatever namespace.
    final class SuperBlock {
        let device: Device
        /// The device's node, or that of its partition.
        let node: BlockDevice
        /// `xfs`, `ext4`.
        let type: String
        let readOnly: Bool
        /// How many writes it knows of: if the volume has another number, somebody else wrote to
        /// it.
        var view: Int
        var references = 0
        let since: Instant
        /// Since when the kernel has shut it down after an error: nothing on it can be accessed.
        var shutDownSince: Instant?
        var isShutDown: Bool { shutDownSince != nil }

        init(device: Device, node: BlockDevice, type: String, readOnly: Bool, at now: Instant) {
            since = now
            self.type = type
            self.device = device
            self.node = node
            self.readOnly = readOnly
            view = device.volume.data.count
        }
    }

    let host: Int
    unowned let world: LifeWorld
    private(set) var devices: [Device] = []
    /// The mounts in the plugin's mount namespace, by mountpoint.
    private(set) var mounts: [String: SuperBlock] = [:]
    private var superBlocks: [SuperBlock] = []
    /// Until when devices hang.
    private var hangs: [Int: Instant] = [:]
    /// Volumes whose devices some other program has open.
    var opened: Set<VolumeID> = []
    /// Those that somebody mounted by hand, in another mount namespace.
    private var byHand: [SuperBlock] = []
    /// When somebody unmounted each volume's mountpoint last.
    private(set) var unmountedByHand: [Int: Instant] = [:]
    private var watchers: [(volume: LifeCloud.Volume, reply: SimulatedProcess.Reply<Bool>)] = []

    init(host: Int, world: LifeWorld) {
        self.host = host
        self.world = world
    }

    // MARK: Devices

    func device(of volume: LifeCloud.Volume) -> Device? {
        devices.first { $0.volume === volume && $0.isPresent }
    }

    /// The device of a node, its own or that of its partition.
    func device(_ node: BlockDevice) -> Device? {
        devices.first {
            $0.node.number.minor == node.number.minor && node.path.hasPrefix($0.node.path)
                && $0.isPresent
        }
    }

    /// The device with the name that a volume was attached under, on a host that uses these names.
    func device(attachedAs name: String) -> Device? {
        devices.first { $0.node.path == Self.xenNode(of: name) && $0.isPresent }
    }

    private static let diskMajor: UInt32 = 259
    private static let partitionMajor: UInt32 = 260

    static func partition(_ number: Int, of disk: BlockDevice) -> BlockDevice {
        BlockDevice(
            path: disk.path + "p\(number)",
            number: DeviceNumber(major: partitionMajor, minor: disk.number.minor))
    }

    static func isPartition(_ node: BlockDevice) -> Bool { node.number.major == partitionMajor }

    func plug(_ volume: LifeCloud.Volume) {
        guard device(of: volume) == nil else { return }
        // A number is free again once nothing holds its device.
        let taken = Set(devices.map(\.node.number.minor))
        var minor = UInt32(world.scheduler.random.below(4) + 1)
        while taken.contains(minor) { minor += 1 }
        let node = BlockDevice(
            path: path(of: volume, minor),
            number: DeviceNumber(major: Self.diskMajor, minor: minor))
        devices.append(Device(volume: volume, node: node))
        world.trace.note(.device, host: host, volume: volume.index, Int(minor))
        wakeWatchers(of: volume)
    }

    /// On Nitro, the controller of a removed device that is still held also gets the next one.
    private func path(of volume: LifeCloud.Volume, _ minor: UInt32) -> String {
        if world.hosts[host].isXen, let name = volume.attachment(on: host)?.name {
            return Self.xenNode(of: name)
        }
        let dead = devices.first { $0.volume === volume }?.node.number.minor
        return dead.map { "/dev/nvme\($0)n2" } ?? "/dev/nvme\(minor)n1"
    }

    private static func xenNode(of name: String) -> String {
        name.hasPrefix("/dev/sd") ? "/dev/xvd" + name.dropFirst(7) : name
    }

    func unplug(_ volume: LifeCloud.Volume) {
        guard let device = device(of: volume) else { return }
        device.goneSince = world.scheduler.now
        world.trace.note(.deviceGone, host: host, volume: volume.index)
        forgetUnheld()
        wakeWatchers(of: volume)
    }

    private func forgetUnheld() {
        superBlocks.removeAll { $0.references == 0 }
        devices.removeAll { device in
            !device.isPresent && !superBlocks.contains { $0.device === device }
        }
    }

    /// Waits until the device of the volume, or one that may be mistaken for it, appears or
    /// disappears.
    func deviceChange(
        of volume: LifeCloud.Volume, by deadline: Instant, _ process: SimulatedProcess
    ) async throws {
        let _: Bool = try await process.wait { reply in
            watchers.append((volume, reply))
            world.scheduler.at(deadline) { reply.succeed(false) }
        }
    }

    private func wakeWatchers(of volume: LifeCloud.Volume) {
        let isXen = world.hosts[host].isXen
        let woken = watchers.filter { isXen || $0.volume === volume }
        watchers.removeAll { isXen || $0.volume === volume || !$0.reply.isAwaited }
        for watcher in woken { watcher.reply.succeed(true) }
    }

    // MARK: Mounts

    func isHeld(_ volume: LifeCloud.Volume) -> Bool {
        superBlocks.contains { $0.device.volume === volume && $0.device.isPresent }
            || opened.contains(volume.id)
    }

    /// Whether something has held it since before that.
    func isHeld(_ volume: LifeCloud.Volume, since instant: Instant) -> Bool {
        superBlocks.contains {
            $0.device.volume === volume && $0.device.isPresent && $0.since < instant
        }
    }

    /// Whether something has held it for longer than the maximum age of a proof that nothing does.
    func isLongHeld(_ volume: LifeCloud.Volume) -> Bool {
        superBlocks.contains {
            $0.device.volume === volume && $0.device.isPresent
                && $0.since + .seconds(4) < world.scheduler.now
        }
    }

    func mount(
        _ device: Device, by node: BlockDevice, type: String, at mountpoint: String, readOnly: Bool
    ) -> Bool {
        guard mounts[mountpoint] == nil else { return false }
        let shared = superBlocks.first { $0.device === device }
        // The kernel mounts a mounted device again only in the same mode.
        if let shared, shared.isShutDown || shared.readOnly != readOnly { return false }
        let superBlock =
            shared
            ?? SuperBlock(
                device: device, node: node, type: type, readOnly: readOnly,
                at: world.scheduler.now)
        if shared == nil { superBlocks.append(superBlock) }
        mounts[mountpoint] = superBlock
        superBlock.references += 1
        return true
    }

    func unmount(_ mountpoint: String) -> Bool {
        guard let superBlock = mounts.removeValue(forKey: mountpoint) else { return false }
        release(superBlock)
        return true
    }

    /// A container's own reference to the mount.
    func hold(_ mountpoint: String) -> SuperBlock? {
        guard let superBlock = mounts[mountpoint] else { return nil }
        superBlock.references += 1
        return superBlock
    }

    func release(_ superBlock: SuperBlock) {
        superBlock.references -= 1
        if superBlock.references == 0 { forgetUnheld() }
    }

    /// What `docker plugin disable --force` does to the plugin's mounts.
    func dropMounts() { for mountpoint in mounts.keys.sorted() { _ = unmount(mountpoint) } }

    /// Somebody mounts a volume where the plugin does not see it.
    func mountByHand(_ volume: LifeCloud.Volume) {
        guard case .fileSystem(let type, _, _) = volume.content,
            let device = device(of: volume),
            !superBlocks.contains(where: { $0.device === device })
        else { return }
        let node = volume.partition.map { Self.partition($0, of: device.node) } ?? device.node
        let superBlock = SuperBlock(
            device: device, node: node, type: type, readOnly: false, at: world.scheduler.now)
        superBlock.references = 1
        superBlocks.append(superBlock)
        byHand.append(superBlock)
        world.trace.note(.byHand, host: host, volume: volume.index, 2)
    }

    /// Somebody unmounts the volume; false if it is not mounted.
    func unmountByHand(_ volume: LifeCloud.Volume) -> Bool {
        guard unmount(volume.mountpoint) else { return false }
        unmountedByHand[volume.index] = world.scheduler.now
        return true
    }

    func unmountByHand() {
        for superBlock in byHand { release(superBlock) }
        byHand = []
    }

    /// A device error, after which one of the file systems shuts down.
    func shutDownOne() {
        let alive = superBlocks.filter { !$0.isShutDown }
        world.scheduler.random.pick(alive).map(shutDown)
    }

    func shutDown(_ superBlock: SuperBlock) {
        guard !superBlock.isShutDown else { return }
        superBlock.shutDownSince = world.scheduler.now
        world.trace.note(.shutDown, host: host, volume: superBlock.device.volume.index)
    }

    /// A volume's device does not respond for a while; every read and write waits.
    func makeHang(_ volume: LifeCloud.Volume, for duration: Duration) {
        hangs[volume.index] = world.scheduler.now + duration
        world.trace.note(.hang, host: host, volume: volume.index, 0, "\(duration)")
    }

    func hang(of volume: LifeCloud.Volume) -> Duration {
        guard let end = hangs[volume.index] else { return .zero }
        return max(.zero, end - world.scheduler.now)
    }

    /// The end of everything that is in memory.
    func reset() {
        hangs = [:]
        mounts = [:]
        byHand = []
        superBlocks = []
        devices = []
        watchers = []
    }

    // MARK: Data

    /// A synced write through a mount. False when the device is gone.
    func write(_ superBlock: SuperBlock) -> Bool {
        let volume = superBlock.device.volume
        guard superBlock.device.isPresent else {
            shutDown(superBlock)
            return false
        }
        guard !superBlock.readOnly, !superBlock.isShutDown else { return false }
        if volume.data.count != superBlock.view {
            world.trace.broke(
                "a file system is written by one host at a time",
                "volume \(volume.index) has \(volume.data.count) writes, host \(host) knows of \(superBlock.view)"
            )
        }
        for other in world.hosts where other.kernel !== self {
            let isWritable = other.kernel.superBlocks.contains {
                $0.device.volume === volume && $0.device.isPresent && !$0.readOnly
            }
            if isWritable {
                world.trace.broke(
                    "a file system is written by one host at a time",
                    "volume \(volume.index) is mounted on hosts \(host) and \(other.index)")
            }
        }
        volume.data.append(host)
        volume.hadContent = true
        superBlock.view = volume.data.count
        return true
    }
}
