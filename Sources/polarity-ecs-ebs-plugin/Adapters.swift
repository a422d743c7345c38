import AWSWire
import Base
import EC2Client
import Linux
import VolumeCore

// How the edge modules implement the ports of VolumeCore.

extension EC2Client: EC2Port {}
extension DeviceWatch: DevicePort {}
extension FileSystems: FileSystemPort {}
extension StateFiles: StatePort {}

/// This instance's identity: from the settings if they contain it, otherwise from the metadata
/// service.
struct HostIdentity: HostPort {
    let settings: Settings
    /// Nil if the metadata service is disabled.
    let metadata: InstanceMetadata?
    let boot: String

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
