package import Base

// The ports: what the life of a volume needs from outside. The daemon fulfils them with the edge
// modules, a simulation with seeded twins. Every wait for EC2, a device or a program carries its
// deadline; a system call, such as mount(2) or fsync(2), cannot be cut.

/// The EC2 API, for volumes in this instance's region. Calls throw `EC2Failure`.
///
/// A call that changes what other instances rely on is justified by what EC2 said before. It
/// carries the instant until which those facts are new enough, `latest`: the request goes out by
/// then, or it fails with `EC2Failure.outdated` and was not sent. AttachVolume needs none: EC2
/// itself refuses what is attached by then.
package protocol EC2Port: Sendable {
    /// Nil when EC2 knows no such volume.
    func describeVolume(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> VolumeDescription?

    /// Nil when EC2 knows no such instance.
    func describeInstance(
        _ id: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription?

    /// How many volumes an instance of that type takes; nil when EC2 does not tell.
    func attachmentLimit(
        of instanceType: String, by deadline: Instant
    ) async throws -> AttachmentLimit?

    /// Returns when EC2 has accepted the attachment; the device comes later.
    func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment

    /// Returns when EC2 has accepted the detachment; the volume is free later. It is sent once, and
    /// not repeated by itself, not even where EC2 throttles it.
    func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment

    /// Sets tags, in place of those with the same keys.
    func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws

    /// Whether this host's role may set these tags; sets none.
    func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool

    /// Removes a tag if it has that value; one that is not there, or has another, is no error.
    func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws
}

/// The block devices of this instance. Calls throw `OperationError`.
package protocol DevicePort: Sendable {
    /// The volume's device, if it is here now. `deviceName` is the name it was attached by, where
    /// that is known: on Xen instances nothing else tells.
    func find(_ volume: VolumeID, attachedAs deviceName: String?) async throws -> BlockDevice?

    /// Waits until the volume's device is here.
    func arrival(
        of volume: VolumeID, attachedAs deviceName: String, by deadline: Instant
    ) async throws -> BlockDevice

    /// Waits until the device is gone.
    func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws

    /// The volume's partition of that number, 1 the first. Waits until the kernel shows it, and
    /// throws at the deadline.
    func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice
}

/// File systems on this instance's devices. Calls throw `OperationError`.
package protocol FileSystemPort: Sendable {
    /// What is on the device, after its identity was proved on the open device.
    func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent

    /// Makes a file system on a device that is proved to be the volume, unheld and blank.
    func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws

    /// Mends a file system of `type` that is not mounted, where that is done before mounting
    /// (e2fsck) and the kernel would warn of damage. Returns what was done, for the log; nil where
    /// there was nothing to do. What takes longer than the deadline goes on, and the next call
    /// joins it.
    func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String?

    /// Mounts at a folder that it creates.
    @discardableResult
    func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome

    /// Makes the file system of `type` that is mounted at `mountpoint` as large as its device.
    /// Returns nil where it already is.
    func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth?

    /// Sets what is not nil of the mounted file system's root.
    func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws

    /// Unmounts, never lazily, and removes the folder.
    func unmount(_ mountpoint: String, of volume: VolumeID) async throws

    /// Whether it is this device that is mounted there, as this process sees it, and works.
    func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState

    /// Whether any mount namespace, or anything else, holds the device.
    func isHeld(_ device: BlockDevice) async throws -> Bool

    /// What this process sees mounted.
    func mounted() async throws -> [MountedFileSystem]

    /// The running kernel's release, `6.1.0-18-amd64`.
    func kernelRelease() async -> String

    /// The system call or the program that has been at work on the volume's device for longest; nil
    /// where there is none. Never waits for the device.
    func workUnderWay(on volume: VolumeID) async -> WorkUnderWay?
}

extension FileSystemPort {
    package func workUnderWay(on volume: VolumeID) async -> WorkUnderWay? { nil }
}

/// What must outlive the process.
package protocol StatePort: Sendable {
    /// What was saved last; without counts that were saved in another boot than this one.
    func load(inBoot boot: String) async throws -> SavedState

    /// Returns when the changes are on the disk; the records' counts need not be. Where it throws,
    /// the disk may hold any of the changes, until they or others of the same volumes are saved.
    func save(_ changes: [SavedChange], of owner: StateOwner) async throws

    /// Returns when the counts of these records, of all that have some, survive the process. They
    /// are of no use after a restart of the machine, and need not survive that.
    func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws

    /// Keeps a copy of what is saved, for people. Returns where.
    func keepCopy(named suffix: String) async throws -> String

    /// Leaves all that is saved in the form that every version reads.
    func conclude(of owner: StateOwner) async throws

    /// The save that has been under way for longest; nil where there is none. Never waits for it.
    func workUnderWay() async -> WorkUnderWay?
}

extension StatePort {
    package func workUnderWay() async -> WorkUnderWay? { nil }
}

/// The instance that the daemon runs on.
package struct Host: Sendable, Equatable {
    package var instance: InstanceID
    package var availabilityZone: String

    package init(instance: InstanceID, availabilityZone: String) {
        self.instance = instance
        self.availabilityZone = availabilityZone
    }
}

package protocol HostPort: Sendable {
    /// Throws `OperationError` when the metadata service has not told by the deadline.
    func host(by deadline: Instant) async throws -> Host

    /// The kernel's random id of this boot.
    var boot: String { get }
}
