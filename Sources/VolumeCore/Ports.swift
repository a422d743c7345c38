package import Base

// The ports: what the life of a volume needs from outside. The daemon implements them with the edge
// modules, the simulation with seeded twins. Every wait for EC2, a device or a program has a
// deadline; a system call such as mount(2) or fsync(2) cannot be interrupted.

/// The EC2 API, for volumes in this instance's region. Calls throw `EC2Failure`.
///
/// A call that changes something that other instances rely on is justified by an earlier response
/// of EC2. Its `latest` is the instant until which those facts are fresh enough: the request is
/// sent by then, or fails with `EC2Failure.outdated` without being sent. AttachVolume needs no such
/// limit: EC2 itself rejects it if the volume has been attached.
package protocol EC2Port: Sendable {
    /// Nil if EC2 knows no such volume.
    func describeVolume(
        _ id: VolumeID, by deadline: Instant
    ) async throws -> VolumeDescription?

    /// Nil if EC2 knows no such instance.
    func describeInstance(
        _ id: InstanceID, by deadline: Instant
    ) async throws -> InstanceDescription?

    /// How many volumes an instance of that type can have; nil if EC2 does not say.
    func attachmentLimit(
        of instanceType: String, by deadline: Instant
    ) async throws -> AttachmentLimit?

    /// Returns when EC2 has accepted the attachment; the device appears later.
    func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment

    /// Returns when EC2 has accepted the detachment; the volume is free later. It is sent only
    /// once, even if EC2 throttles it.
    func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment

    /// Sets tags, replacing those with the same keys.
    func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws

    /// Whether this host's role may set these tags; sets none.
    func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool

    /// Removes a tag if it has that value; a missing tag or another value is not an error.
    func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws
}

/// The block devices of this instance. Calls throw `OperationError`.
package protocol DevicePort: Sendable {
    /// The volume's device, if it is here now. `deviceName` is the name of the attachment, if
    /// known: on Xen instances nothing else identifies the device.
    func find(_ volume: VolumeID, attachedAs deviceName: String?) async throws -> BlockDevice?

    /// Waits until the volume's device is here.
    func arrival(
        of volume: VolumeID, attachedAs deviceName: String, by deadline: Instant
    ) async throws -> BlockDevice

    /// Waits until the device is gone.
    func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws

    /// The volume's partition with that number, counted from 1. Waits until the kernel shows it;
    /// throws at the deadline.
    func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice
}

/// File systems on this instance's devices. Calls throw `OperationError`.
package protocol FileSystemPort: Sendable {
    /// What is on the device. Proves the device's identity first.
    func probe(_ device: BlockDevice, of volume: VolumeID) async throws -> DeviceContent

    /// Creates a file system on a device that is proved to be the volume, unheld and blank.
    func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws

    /// Repairs a file system of `type` before it is mounted, if the type needs that (e2fsck) and
    /// the kernel would warn of damage. Returns what was done, for the log; nil if there was
    /// nothing to do. A repair that takes longer than the deadline continues, and the next call
    /// joins it.
    func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String?

    /// Mounts at a folder, which it creates.
    @discardableResult
    func mount(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String,
        access: MountAccess, options: [String]
    ) async throws -> MountOutcome

    /// Grows the file system of `type` that is mounted at `mountpoint` to the size of its device.
    /// Returns nil if it already has that size.
    func grow(
        _ device: BlockDevice, of volume: VolumeID, type: String, at mountpoint: String
    ) async throws -> Growth?

    /// Sets those attributes of the mounted file system's root that are not nil.
    func setOwnership(
        of mountpoint: String, volume: VolumeID, uid: UInt32?, gid: UInt32?, mode: UInt32?
    ) async throws

    /// Unmounts, never lazily, and removes the folder.
    func unmount(_ mountpoint: String, of volume: VolumeID) async throws

    /// Whether this device is mounted there in this process's mount namespace, and works.
    func mountState(of device: BlockDevice, at mountpoint: String) async -> MountState

    /// Whether any mount namespace, or anything else, holds the device.
    func isHeld(_ device: BlockDevice) async throws -> Bool

    /// The mounts that this process sees.
    func mounted() async throws -> [MountedFileSystem]

    /// The running kernel's release, `6.1.0-18-amd64`.
    func kernelRelease() async -> String

    /// The system call or program that has been running on the volume's device for longest; nil if
    /// there is none. Never waits for the device.
    func workUnderWay(on volume: VolumeID) async -> WorkUnderWay?
}

extension FileSystemPort {
    package func workUnderWay(on volume: VolumeID) async -> WorkUnderWay? { nil }
}

/// Stores what must survive the process.
package protocol StatePort: Sendable {
    /// The last saved state, without counts from another boot.
    func load(inBoot boot: String) async throws -> SavedState

    /// Returns when the changes are on disk, not necessarily including the records' counts. If it
    /// throws, any of the changes may be on disk, until they or others of the same volumes are
    /// saved.
    func save(_ changes: [SavedChange], of owner: StateOwner) async throws

    /// Returns when the counts of these records survive the process. The records are all those with
    /// counts. The counts need not survive a restart of the machine, after which they are useless.
    func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws

    /// Keeps a copy of the saved state for the operator. Returns its path.
    func keepCopy(named suffix: String) async throws -> String

    /// Saves everything in a form that every version can read.
    func conclude(of owner: StateOwner) async throws

    /// The save that has been in progress for longest; nil if there is none. Never waits for it.
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
    /// Throws `OperationError` if the metadata service has not answered by the deadline.
    func host(by deadline: Instant) async throws -> Host

    /// The kernel's random id of this boot.
    var boot: String { get }
}
