import Base
import JSON
import Testing

@testable import AWSWire

/// Recorded answers of EC2, each held against its meaning in JSON.
@Suite(.enabled(if: Vectors.runnable, Vectors.skipped)) struct EC2VectorTests {
    private func json(_ name: String) throws -> JSONValue {
        try JSONValue.parse(Vectors.bytes("ec2/\(name).json"))
    }

    private func xml(_ name: String) throws -> [UInt8] { try Vectors.bytes("ec2/\(name).xml") }

    @Test func `recorded volumes are read as their JSON says`() throws {
        let expected = try #require(try json("describe-volumes")["Volumes"]?.array)
        let volumes = try EC2Answer.volumes(xml("describe-volumes"))
        #expect(volumes.count == expected.count)
        for (volume, json) in zip(volumes, expected) {
            #expect(volume.id.description == json["VolumeId"]?.string)
            #expect(volume.availabilityZone == json["AvailabilityZone"]?.string)
            #expect(Int64(volume.size) == json["Size"]?.integer)
            #expect(volume.snapshotID == json["SnapshotId"]?.string)
            #expect(volume.volumeType == json["VolumeType"]?.string)
            #expect(json["State"]?.string == "in-use" && volume.state == .inUse)
            #expect(volume.tags.isEmpty && !volume.multiAttachEnabled)
            let attachments = try #require(json["Attachments"]?.array)
            #expect(volume.attachments.count == attachments.count)
            for (attachment, json) in zip(volume.attachments, attachments) {
                expectSame(attachment, json)
            }
        }
    }

    @Test func `a recorded attachment is read as its JSON says`() throws {
        let volume = try #require(VolumeID("vol-1a2b3c4d"))
        let attachment = try EC2Answer.attachment(
            xml("attach-volume"), of: volume, action: "AttachVolume")
        expectSame(attachment, try json("attach-volume"))
    }

    private func expectSame(_ attachment: VolumeAttachment, _ json: JSONValue) {
        let states: [String: VolumeAttachment.State] = [
            "attached": .attached, "attaching": .attaching,
        ]
        #expect(attachment.volume.description == json["VolumeId"]?.string)
        #expect(attachment.instance?.description == json["InstanceId"]?.string)
        #expect(attachment.device == json["Device"]?.string)
        #expect(attachment.state == json["State"]?.string.flatMap { states[$0] })
    }

    @Test func `recorded instances are read as their JSON says`() throws {
        let reservations = try #require(try json("describe-instances")["Reservations"]?.array)
        let expected = reservations.flatMap { $0["Instances"]?.array ?? [] }
        let instances = try EC2Answer.instances(xml("describe-instances"))
        let states: [String: InstanceDescription.State] = [
            "running": .running, "stopped": .stopped,
        ]
        #expect(instances.count == expected.count)
        for (instance, json) in zip(instances, expected) {
            #expect(instance.id.description == json["InstanceId"]?.string)
            #expect(instance.instanceType == json["InstanceType"]?.string)
            #expect(instance.availabilityZone == json["Placement"]?["AvailabilityZone"]?.string)
            #expect(instance.state == json["State"]?["Name"]?.string.flatMap { states[$0] })
            let mappings = json["BlockDeviceMappings"]?.array ?? []
            #expect(
                instance.mappings.map(\.deviceName) == mappings.map { $0["DeviceName"]?.string })
            #expect(
                instance.mappings.map(\.volume?.description)
                    == mappings.map { $0["Ebs"]?["VolumeId"]?.string })
        }
    }

    @Test func `a recorded error is read as its JSON says`() throws {
        let expected = try json("error-describe-instances")
        let failure = EC2Answer.refusal(
            status: 400, body: try xml("error-describe-instances"), requestIDHeader: nil)
        guard case .refused(let code, let message, let requestID) = failure else {
            Issue.record("\(failure)")
            return
        }
        #expect(code == expected["Error"]?["Code"]?.string)
        #expect(message == expected["Error"]?["Message"]?.string)
        #expect(requestID == expected["ResponseMetadata"]?["RequestId"]?.string)
    }

    @Test func `an answer to another call is malformed`() throws {
        let body = try xml("describe-instance-status")
        #expect(throws: EC2Failure.self) { try EC2Answer.instances(body) }
        #expect(throws: EC2Failure.self) { try EC2Answer.volumes(body) }
    }
}
