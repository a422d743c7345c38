import Base
import CLinux
import SystemPackage

/// What an NVMe controller reports about itself (Identify Controller); no node, link or cached
/// attribute can change this.
///
/// Sources: NVM Express Base Specification, Identify Controller data structure; for what EBS puts
/// there, github.com/amazonlinux/amazon-ec2-utils, ebsnvme-id.
struct NVMeController: Equatable {
    static let answerSize = 4096
    static let amazon: UInt16 = 0x1D0F
    static let ebsModel = "Amazon Elastic Block Store"

    var vendor: UInt16
    var serial: String
    var model: String
    /// The device name that AttachVolume requested, with or without `/dev/`; may be empty.
    var requestedName: String

    init(_ answer: [UInt8]) {
        precondition(answer.count == Self.answerSize)
        vendor = UInt16(answer[0]) | UInt16(answer[1]) << 8
        serial = Self.text(answer[4..<24])
        model = Self.text(answer[24..<64])
        requestedName = Self.text(answer[3072..<3104])
    }

    /// Queries the controller of an open NVMe device. Nil if the device does not accept NVMe
    /// commands, for example because it is a loop device in a test.
    init?(asking device: Int32) throws(Errno) {
        var answer = [UInt8](repeating: 0, count: Self.answerSize)
        let code = answer.withUnsafeMutableBufferPointer {
            CLinux_nvme_identify_controller(device, $0.baseAddress)
        }
        let unsupported: [Errno] = [.inappropriateIOCTLForDevice, .invalidArgument]
        if unsupported.contains(Errno(rawValue: code)) { return nil }
        // A negative code is the NVMe status of a controller that rejects the command.
        guard code >= 0 else { throw .ioError }
        guard code == 0 else { throw Errno(rawValue: code) }
        self.init(answer)
    }

    func isVolume(_ volume: VolumeID) -> Bool {
        vendor == Self.amazon && model == Self.ebsModel && serial == volume.nvmeSerial
    }

    private static func text(_ field: ArraySlice<UInt8>) -> String {
        let end = field.lastIndex { $0 != 0 && $0 != UInt8(ascii: " ") }.map { $0 + 1 }
        return String(decoding: field[..<(end ?? field.startIndex)], as: UTF8.self)
    }
}

extension NVMeController: CustomStringConvertible {
    var description: String {
        "vendor 0x\(String(vendor, radix: 16)), model '\(model)', serial number '\(serial)', "
            + "attached as '\(requestedName)'"
    }
}
