import Base
import Glibc
import Testing

@testable import Linux

@Suite struct NamesTests {
    @Test(arguments: [
        ("/dev/sdf", ["xvdf", "sdf"]), ("sdf", ["xvdf", "sdf"]), ("/dev/xvdba", ["xvdba"]),
        ("/dev/sda1", ["xvda1", "sda1"]), ("/dev/nvme1n1", []), ("/dev/../sdf", []),
        ("/dev/sd", []), ("", []), ("xvd", []), ("/dev/sdf/../../etc", []),
    ])
    func `Xen's names for an attachment's`(asked: String, names: [String]) {
        #expect(xenNames(for: asked) == names)
    }

    @Test(arguments: [
        ("nvme0n1", true), ("nvme12n3", true), ("nvme0", false), ("nvme0n1p1", false),
        ("nvmen1", false), ("nvme0n", false), ("xvdf", false), ("nvme0c0n1", false),
    ])
    func `only whole NVMe namespaces are NVMe disks`(name: String, answer: Bool) {
        #expect(isNVMe(name) == answer)
    }
}

@Suite struct NVMeControllerTests {
    private func answer(
        vendor: UInt16 = 0x1D0F, serial: String = "vol0123456789abcde1f",
        model: String = "Amazon Elastic Block Store"
    ) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        bytes[0] = UInt8(vendor & 0xff)
        bytes[1] = UInt8(vendor >> 8)
        let space = UInt8(ascii: " ")
        bytes.replaceSubrange(4..<64, with: [UInt8](repeating: space, count: 60))
        bytes.replaceSubrange(4..<4 + serial.utf8.count, with: serial.utf8)
        bytes.replaceSubrange(24..<24 + model.utf8.count, with: model.utf8)
        bytes.replaceSubrange(3072..<3104, with: [UInt8](repeating: space, count: 32))
        bytes.replaceSubrange(3072..<3075, with: "sdf".utf8)
        return bytes
    }

    @Test func `an EBS controller's response is parsed`() {
        let controller = NVMeController(answer())
        #expect(controller.vendor == 0x1D0F)
        #expect(controller.serial == "vol0123456789abcde1f")
        #expect(controller.model == "Amazon Elastic Block Store")
        #expect(controller.requestedName == "sdf")
        #expect(controller.isVolume(volume(1)))
    }

    @Test func `another volume, vendor or model is not the volume`() {
        #expect(!NVMeController(answer()).isVolume(volume(2)))
        #expect(!NVMeController(answer(vendor: 0x144D)).isVolume(volume(1)))
        let model = "Amazon EC2 NVMe Instance Storage"
        #expect(!NVMeController(answer(model: model)).isVolume(volume(1)))
        #expect(!NVMeController(answer(serial: "")).isVolume(volume(1)))
    }
}

@Suite struct MountOptionsTests {
    private func options(
        _ options: [String], type: String = "xfs", readOnly: Bool = false
    ) -> MountOptions {
        MountOptions(type: type, readOnly: readOnly, options: options)
    }

    @Test func `only what is asked for is set, and nouuid for xfs`() {
        #expect(options([]).flags == 0)
        #expect(options([]).data == "nouuid")
        #expect(options([], type: "ext4").data.isEmpty)
        #expect(options(["logbsize=256k"]).data == "logbsize=256k,nouuid")
    }

    @Test func `options that are flags become flags, the others text`() {
        let several = options(["noatime", "discard", "nodev"], type: "ext4", readOnly: true)
        #expect(several.flags == UInt(MS_NOATIME | MS_NODEV | MS_RDONLY))
        #expect(several.data == "discard")
    }

    @Test func `the journal is skipped only on request`() {
        #expect(options([], readOnly: true).data == "nouuid")
        #expect(options([], readOnly: true).withoutReplay.data == "nouuid,norecovery")
        #expect(options([], type: "ext4", readOnly: true).withoutReplay.data == "norecovery")
    }
}
