package import Base
import Glibc
import Ring
import SystemPackage

extension FileSystems {
    /// Makes a file system on a device that is proved to be the volume, held by nothing, and blank,
    /// or bearing an unfinished file system if the plan says so.
    /// Probe again afterwards.
    ///
    /// When the deadline cuts it short, mkfs is killed and the device is no longer blank.
    package func format(
        _ device: BlockDevice, of volume: VolumeID, plan: FormatPlan, by deadline: Instant
    ) async throws {
        let doing = "format \(volume) on \(device.path)"
        let tree = tree
        let held = try await RingActor.ring.blocking { () throws(OperationError) in
            try openBlank(
                device, of: volume, in: tree, orUnfinished: plan.overwritesUnfinished, doing: doing)
        }
        // Without -f or -F it refuses by itself what it recognises.
        let force = plan.overwritesUnfinished ? [plan.type == .xfs ? "-f" : "-F"] : []
        let program = Program(
            path: "\(toolPath)/mkfs.\(plan.type)", arguments: force + plan.arguments)
        let result = try await program.run(
            on: held, doing: doing, by: deadline,
            adviceIfLate: "the volume may hold a part of a file system and is not formatted again; "
                + "where it is new, delete it and take another")
        guard result.end != .exited(0) else { return }
        throw OperationError(
            .system, doing: doing,
            found: "\(program.text(on: device)) \(result.ending): \(result.output)",
            advice: "the volume may hold a part of a file system and is not formatted again then")
    }

    /// Runs e2fsck -p on an ext2, ext3 or ext4 that asks for it, and returns what it said; nil
    /// where it does not ask, is mounted in any mount namespace, or is another file system: an xfs
    /// is mended by the kernel, which replays its log.
    package func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String? {
        guard ["ext2", "ext3", "ext4"].contains(type) else { return nil }
        let doing = "check the \(type) of \(volume) on \(device.path) before mounting it"
        let tree = tree
        let asking = try await RingActor.ring.blocking { () throws(OperationError) -> HeldDevice? in
            let proven = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
            let superblock = try proven.extSuperblock()
            guard superblock.asksForCheck(unixSeconds: Int64(time(nil))) else { return nil }
            // While it is mounted it looks as if it had not been unmounted.
            let isMounted = try explaining("open", .device, doing: doing) { () throws(Errno) in
                try isClaimed(device)
            }
            if isMounted { return nil }
            return HeldDevice(proven.descriptor, device)
        }
        guard let asking else { return nil }
        let program = Program(path: "\(toolPath)/e2fsck", arguments: ["-p"])
        let result = try await program.run(
            on: asking, doing: doing, by: deadline,
            adviceIfLate: "run 'e2fsck -p' on it by hand, which may take long")
        // e2fsck(8): 1 is "errors corrected", 2 is "reboot", meant for a mounted file system.
        if case .exited(let code) = result.end, code & ~3 == 0 { return result.output }
        throw OperationError(
            .content, doing: doing,
            found: "\(program.text(on: device)) \(result.ending): \(result.output)",
            advice: "the file system is not mounted as it is; take a snapshot of the volume, then "
                + "run 'e2fsck' on it by hand")
    }
}

/// An open device that outlives the worker's call. While it is open, the kernel gives the device's
/// number to no other device.
private final class HeldDevice: Sendable {
    let descriptor: Descriptor
    let device: BlockDevice

    init(_ descriptor: consuming Descriptor, _ device: BlockDevice) {
        self.descriptor = descriptor
        self.device = device
    }
}

/// Proves on an exclusive open that the volume is blank and held by nothing, and returns the device
/// opened anew, but not exclusively, which would bar mkfs.
private func openBlank(
    _ device: BlockDevice, of volume: VolumeID, in tree: DeviceTree, orUnfinished: Bool,
    doing: String
) throws(OperationError) -> HeldDevice {
    let shared = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
    let content = try ProvenDevice.open(
        device, of: volume, in: tree, exclusive: true, doing: doing
    ).content()
    // mkfs opens it exclusively itself.
    ChildProcess.awaitStarts()
    guard content == .blank || orUnfinished && content == .unfinished(type: "xfs") else {
        throw OperationError(
            .content, doing: doing, found: "the device is not blank: it has \(content.text)",
            advice: "nothing was written to it; if its data are not wanted, wipe the volume")
    }
    return HeldDevice(shared.descriptor, device)
}

/// A program that works on a device.
private struct Program {
    var path: String
    var arguments: [String]

    func text(on device: BlockDevice) -> String {
        ([path] + arguments + [device.path]).joined(separator: " ")
    }

    /// Runs it to its end on the device that is held, whatever its path has come to stand for
    /// meanwhile. The result's output is one line, and names the device by its path.
    @RingActor
    func run(
        on held: HeldDevice, doing: String, by deadline: Instant, adviceIfLate: String
    ) async throws -> ChildResult {
        defer { withExtendedLifetime(held) {} }
        let target = "/proc/\(getpid())/fd/\(held.descriptor.rawValue)"
        let text = text(on: held.device)
        do {
            var result = try await ChildProcess.run(path, arguments + [target], by: deadline)
            result.output = result.output.replacingAll(target, by: held.device.path)
                .split(whereSeparator: \.isNewline).joined(separator: " / ")
            return result
        } catch let error as Errno {
            throw OperationError(
                .system, doing: doing,
                found: "\(text) does not start: \(refusal(of: "exec", error))")
        } catch is DeadlineExceeded {
            throw OperationError(
                .deadline, doing: doing, found: "\(text) had not ended in time and was killed",
                advice: adviceIfLate)
        }
    }
}

extension ChildResult {
    fileprivate var ending: String {
        switch end {
        case .exited(let code): "failed with exit status \(code)"
        case .signaled(let number): "was ended by signal \(number)"
        }
    }
}

extension DeviceContent {
    /// As the object of "it has".
    fileprivate var text: String {
        switch self {
        case .fileSystem(let type, let label, _):
            "a file system of type \(type)" + (label.map { ", labelled '\($0)'" } ?? "")
        case .signature(let name): "the signature of \(name)"
        case .several(let names): names.joined(separator: " and ")
        case .unfinished(let type): "an unfinished \(type)"
        case .unknownData: "data of an unknown kind"
        case .blank: "nothing"
        }
    }
}
