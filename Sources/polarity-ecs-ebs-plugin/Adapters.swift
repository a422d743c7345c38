import AWSWire
import Agent
import Base
import EC2Client
import Glibc
import JSON
import Linux
import Logging
import Ring
import VolumeCore

// How the edge modules fulfil the ports of VolumeCore.

extension EC2Client: EC2Port {}
extension DeviceWatch: DevicePort {}
extension FileSystems: FileSystemPort {}

/// The instance: from the settings where they tell, else from the metadata service.
struct HostIdentity: HostPort {
    let settings: Settings
    /// Nil where the metadata service is switched off.
    let metadata: InstanceMetadata?

    func host(by deadline: Instant) async throws -> Host {
        if let instance = settings.instanceID, let zone = settings.availabilityZone {
            return Host(instance: instance, availabilityZone: zone)
        }
        guard let metadata else {
            throw OperationError(
                .cloud, doing: "find out which instance this is",
                found: "AWS_EC2_METADATA_DISABLED is set",
                advice: "set INSTANCE_ID and AVAILABILITY_ZONE")
        }
        let identity = try await metadata.identity(by: deadline)
        return Host(
            instance: settings.instanceID ?? identity.instanceID,
            availabilityZone: settings.availabilityZone ?? identity.availabilityZone)
    }
}

/// The records in a JSON file; those of what is mounted, with their counts, in another. They lie in
/// a folder that no other daemon uses meanwhile. One that cannot be understood is kept aside: the
/// other, mounts and devices tell the rest.
final class StateFiles: StatePort {
    private let lock: FolderLock
    private let volumes: AtomicFile
    private let mounts: AtomicFile
    private let log: Logger

    /// Throws where another daemon has the folder.
    init(folder: String, version: String, commit: String, log: Logger) throws(OperationError) {
        var holder = "version \(version), commit \(commit)"
        // A plugin is the first process of a PID namespace of its own.
        if getpid() != 1 { holder += ", process \(getpid())" }
        lock = try FolderLock(folder, holder: holder)
        volumes = AtomicFile(path: folder + "/volumes.json", sizeMax: Limit.stateFileMax)
        mounts = AtomicFile(path: folder + "/mounts.json", sizeMax: Limit.stateFileMax)
        self.log = log
    }

    func load() async throws -> [VolumeRecord] {
        merged(try await load(volumes), mounted: try await load(mounts) ?? [])
    }

    /// Nil where there is no such file, or none that can be understood.
    private func load(_ file: AtomicFile) async throws -> [VolumeRecord]? {
        guard let bytes = try await file.read() else { return nil }
        do { return try records(from: JSONValue.parse(bytes)) } catch {
            let aside = try await file.setAside()
            log.error(
                "a state file cannot be understood; what is mounted is found without it",
                metadata: ["error": "\(error)", "kept_as": "\(aside)"])
            return nil
        }
    }

    func save(_ records: [VolumeRecord]) async throws {
        try await volumes.replace(with: stateDocument(of: records).serialised())
    }

    func saveCounts(_ records: [VolumeRecord]) async throws {
        try await mounts.replace(
            with: mountsDocument(of: records).serialised(), syncing: false)
    }

    func workUnderWay() async -> WorkUnderWay? {
        await RingActor.ring.workUnderWay(for: .state)
    }
}
