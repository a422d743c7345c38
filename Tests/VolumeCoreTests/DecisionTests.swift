import Base
import Testing
import VolumeCore

private let id = VolumeID(literal: "vol-0123456789abcdef0")
private let here = InstanceID(literal: "i-0123456789abcdef0")
private let other = InstanceID(literal: "i-0fedcba9876543210")
private let host = Host(instance: here, availabilityZone: "eu-west-1a")
private let device = BlockDevice(path: "/dev/nvme1n1", number: DeviceNumber(major: 259, minor: 1))

private func volume(
    _ state: VolumeDescription.State = .available, zone: String = "eu-west-1a",
    snapshot: String? = nil, multiAttach: Bool = false, _ attachments: [VolumeAttachment] = []
) -> VolumeDescription {
    VolumeDescription(
        id: id, state: state, availabilityZone: zone, size: 1, snapshotID: snapshot,
        multiAttachEnabled: multiAttach, attachments: attachments)
}

private func attached(
    _ instance: InstanceID?, _ state: VolumeAttachment.State = .attached
) -> VolumeAttachment {
    VolumeAttachment(volume: id, instance: instance, device: "/dev/sdf", state: state)
}

private func situation(
    _ volume: VolumeDescription, readOnly: Bool = false
) throws(OperationError) -> Situation {
    try Situation(of: volume, seenFrom: host, readOnly: readOnly)
}

@Suite struct SituationTests {
    @Test func `each situation of a volume is recognised`() throws {
        #expect(try situation(volume()) == .free)
        #expect(try situation(volume(.creating)) == .creating)
        #expect(
            try situation(volume(.inUse, [attached(here)])) == .here(deviceName: "/dev/sdf"))
        #expect(try situation(volume(.inUse, [attached(other)])) == .elsewhere(other))
        #expect(try situation(volume(.inUse, [attached(other, .detached)])) == .free)
    }

    @Test(arguments: [VolumeAttachment.State.detaching, .busy])
    func `a volume that is being detached is not mounted, even if from here`(
        state: VolumeAttachment.State
    ) throws {
        #expect(try situation(volume(.inUse, [attached(here, state)])) == .leaving(here))
        #expect(try situation(volume(.inUse, [attached(other, state)])) == .leaving(other))
    }

    @Test func `a volume of another zone is refused with both zones named`() {
        let error = #expect(throws: OperationError.self) {
            try situation(volume(zone: "eu-west-1b"))
        }
        #expect(error?.reason == .unusableVolume)
        #expect(error?.description.contains("eu-west-1b") == true)
        #expect(error?.description.contains("eu-west-1a") == true)
    }

    @Test(arguments: [VolumeDescription.State.deleting, .deleted, .error, .other("odd")])
    func `a volume in a final state is rejected`(state: VolumeDescription.State) {
        #expect(throws: OperationError.self) { try situation(volume(state)) }
    }

    @Test func `an attachment without an instance is an AWS service's and is refused`() {
        #expect(throws: OperationError.self) { try situation(volume(.inUse, [attached(nil)])) }
    }

    @Test func `a Multi-Attach volume can only be read`() throws {
        let shared = volume(.inUse, multiAttach: true, [attached(other)])
        #expect(throws: OperationError.self) { try situation(shared) }
        #expect(try situation(shared, readOnly: true) == .free)
    }
}

@Suite struct ContentDecisionTests {
    private func decide(
        _ content: DeviceContent, snapshot: String? = nil,
        options: VolumeOptions = VolumeOptions()
    ) throws(OperationError) -> ContentDecision {
        try ContentDecision(content, on: device, of: volume(snapshot: snapshot), options: options)
    }

    @Test(arguments: ["xfs", "ext4", "ext3", "ext2"])
    func `a file system is mounted as it is`(type: String) throws {
        let content = DeviceContent.fileSystem(type: type, label: "x y", uuid: nil)
        #expect(try decide(content) == .mount(type: type))
    }

    @Test func `a blank new volume is formatted`() throws {
        #expect(try decide(.blank) == .format)
    }

    @Test func `what an interrupted format left is formatted again, if it was ours`() throws {
        let left = DeviceContent.unfinished(type: "xfs")
        func decide(_ wasFormatting: Bool, _ options: VolumeOptions = VolumeOptions())
            throws(OperationError) -> ContentDecision
        {
            try ContentDecision(
                left, on: device, of: volume(), options: options, wasFormatting: wasFormatting)
        }
        #expect(try decide(true) == .format)
        let error = #expect(throws: OperationError.self) { try decide(false) }
        #expect(error?.description.contains("interrupted") == true)
        #expect(throws: OperationError.self) { try decide(true, VolumeOptions(readOnly: true)) }
    }

    @Test(arguments: [
        DeviceContent.signature("a partition table (dos)"), .signature("LVM2_member"),
        .unknownData, .fileSystem(type: "ntfs", label: nil, uuid: nil),
        .fileSystem(type: "btrfs", label: nil, uuid: nil),
    ])
    func `anything else is neither formatted nor mounted`(content: DeviceContent) {
        let error = #expect(throws: OperationError.self) { try decide(content) }
        #expect(error?.reason == .content)
    }

    @Test func `a partition is mounted if it has a file system, and never formatted`() throws {
        let options = try VolumeOptions(["partition": "1"])
        let xfs = DeviceContent.fileSystem(type: "xfs", label: nil, uuid: nil)
        #expect(try decide(xfs, options: options) == .mount(type: "xfs"))
        #expect(throws: OperationError.self) { try decide(.blank, options: options) }
    }

    @Test func `the error about a partitioned volume names the option for it`() {
        let error = #expect(throws: OperationError.self) {
            try decide(.signature("gpt partition table"))
        }
        #expect(error?.description.contains("partition=") == true)
    }

    @Test func `two signatures are both named, and a partition is suggested`() throws {
        let both = DeviceContent.several(["ext4", "dos partition table"])
        let error = #expect(throws: OperationError.self) { try decide(both) }
        #expect(error?.description.contains("ext4 and dos partition table") == true)
        #expect(error?.description.contains("partition=") == true)
        let inside = #expect(throws: OperationError.self) {
            try decide(
                .several(["xfs", "crypto_LUKS"]), options: VolumeOptions(["partition": "1"]))
        }
        #expect(inside?.description.contains("partition=") == false)
        #expect(throws: OperationError.self) {
            try ContentDecision(
                both, on: device, of: volume(), options: VolumeOptions(), wasFormatting: true)
        }
    }

    @Test func `two signatures without a partition table suggest no partition`() {
        let error = #expect(throws: OperationError.self) {
            try decide(.several(["xfs", "crypto_LUKS"]))
        }
        #expect(error?.description.contains("partition") == false)
    }

    @Test func `a partition is not suggested if one was requested`() {
        let error = #expect(throws: OperationError.self) {
            try decide(
                .several(["ext4", "dos partition table"]),
                options: VolumeOptions(["partition": "1"]))
        }
        #expect(error?.description.contains("partition=") == false)
    }

    @Test func `a partition is suggested only for a partition table`() {
        let error = #expect(throws: OperationError.self) { try decide(.signature("LVM2_member")) }
        #expect(error?.description.contains("partition=") == false)
    }

    @Test func `an unfinished file system in a partition is never formatted`() throws {
        let options = try VolumeOptions(["partition": "1"])
        let error = #expect(throws: OperationError.self) {
            try ContentDecision(
                .unfinished(type: "xfs"), on: device, of: volume(), options: options,
                wasFormatting: true)
        }
        #expect(error?.description.contains("interrupted") == true)
    }

    @Test func `the error says why a blank volume is not formatted`() throws {
        let partition = try VolumeOptions(["partition": "1"])
        let readOnly = VolumeOptions(readOnly: true)
        let refusals = [
            (nil, partition, "partitions are never formatted"),
            (nil, readOnly, "mounted read-only"), ("snap-1", VolumeOptions(), "snapshot snap-1"),
        ]
        for (snapshot, options, words) in refusals {
            let error = #expect(throws: OperationError.self) {
                try decide(.blank, snapshot: snapshot, options: options)
            }
            #expect(error?.description.contains(words) == true)
        }
    }

    @Test func `a blank volume from a snapshot or for reading is not formatted`() {
        #expect(throws: OperationError.self) { try decide(.blank, snapshot: "snap-1") }
        #expect(throws: OperationError.self) {
            try decide(.blank, options: VolumeOptions(readOnly: true))
        }
    }
}

@Suite struct AttachRefusalTests {
    @Test func `EC2's errors are distinguished by code`() {
        func refusal(_ code: String, _ message: String = "") -> AttachRefusal {
            AttachRefusal(code: code, message: message)
        }
        #expect(
            refusal(
                "InvalidParameterValue",
                "Attachment point /dev/sdf is already in use")
                == .nameInUse)
        #expect(refusal("VolumeInUse") == .volumeChanged)
        #expect(refusal("IncorrectState") == .volumeChanged)
        #expect(refusal("InvalidParameterValue", "Invalid device name") == .final)
        #expect(refusal("AttachmentLimitExceeded") == .limitReached)
    }
}

@Suite struct DetachmentFailureTests {
    private func ends(_ code: String, forced: Bool = false) -> Bool {
        isFinal(
            detachmentFailure: .refused(code: code, message: "m", requestID: "r"), isForced: forced)
    }

    @Test(arguments: [
        "RequestLimitExceeded", "IncorrectState", "InvalidAttachment.NotFound",
        "InvalidInstanceID.NotFound", "IncorrectInstanceState", "InternalError", "Unavailable",
    ])
    func `after a transient error or a missing volume there is a new look`(code: String) {
        #expect(!ends(code) && !ends(code, forced: true))
    }

    @Test
    func `other errors are final, for a forced call only a missing permission`() {
        #expect(ends("OperationNotPermitted"))
        #expect(!ends("OperationNotPermitted", forced: true))
        #expect(ends("UnauthorizedOperation"))
        #expect(ends("UnauthorizedOperation", forced: true))
    }

    @Test func `without a response there is a new look, but not without credentials`() {
        let unclear: [EC2Failure] = [
            .unanswered(reason: "no route", mayHaveApplied: true),
            .unanswered(reason: "no route", mayHaveApplied: false),
            .malformed(reason: "no XML"), .outdated(reason: "late"),
        ]
        for failure in unclear {
            #expect(!isFinal(detachmentFailure: failure, isForced: false))
        }
        let failure = EC2Failure.noCredentials(reason: "no role")
        #expect(isFinal(detachmentFailure: failure, isForced: false))
        #expect(isFinal(detachmentFailure: failure, isForced: true))
    }
}

@Suite struct DeletionWarningTests {
    @Test func `a volume that is deleted with its instance has the command to keep it`() throws {
        var own = attached(here)
        #expect(volume(.inUse, [own]).deletionWarning == nil)
        own.deleteOnTermination = true
        let warning = try #require(volume(.inUse, [own]).deletionWarning)
        #expect(warning.contains("--instance-id \(here)"))
        #expect(warning.contains("DeviceName=/dev/sdf,Ebs={DeleteOnTermination=false}"))
    }
}

@Suite struct PlaceTests {
    @Test func `a volume is on an instance while it is attached or being detached`() {
        #expect(Situation.here(deviceName: "/dev/sdf").isOn(here))
        #expect(Situation.leaving(here).isOn(here))
        for situation in [.free, .creating, .elsewhere(other), Situation.leaving(other)] {
            #expect(!situation.isOn(here))
        }
    }

    @Test func `an attachment that has ended, or to another instance, is none`() {
        let here = InstanceID(literal: "i-1a2b3c4d")
        let other = InstanceID(literal: "i-00000000")
        var volume = VolumeDescription(
            id: VolumeID(literal: "vol-1a2b3c4d"), state: .inUse,
            availabilityZone: "eu-west-1a", size: 1)
        for (instance, state) in [(here, VolumeAttachment.State.detached), (other, .attached)] {
            volume.attachments.append(
                VolumeAttachment(
                    volume: volume.id, instance: instance, device: "/dev/sdf", state: state))
        }
        #expect(volume.attachment(to: here) == nil)
        #expect(volume.attachment(to: other)?.state == .attached)
    }
}
