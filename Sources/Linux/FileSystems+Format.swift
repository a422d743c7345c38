package import Base
import Glibc
import Ring
import Synchronization
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
        let held = try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            try openBlank(
                device, of: volume, in: tree, orUnfinished: plan.overwritesUnfinished, doing: doing)
        }
        // Without -f or -F it refuses by itself what it recognises.
        let force = plan.overwritesUnfinished ? [plan.type == .xfs ? "-f" : "-F"] : []
        let program = Program(
            path: "\(toolPath)/mkfs.\(plan.type)", arguments: force + plan.arguments)
        let result = try await program.run(
            on: held, of: volume, doing: doing, by: deadline,
            adviceIfLate: "the volume may hold a part of a file system and is not formatted again; "
                + "where it is new, delete it and take another")
        guard result.end != .exited(0) else { return }
        throw OperationError(
            .system, doing: doing,
            found: "\(program.text(on: device)) \(result.ending): \(result.output)",
            advice: "the volume may hold a part of a file system and is not formatted again then")
    }
}

/// An open device that outlives the worker's call. While it is open, the kernel gives the device's
/// number to no other device.
final class HeldDevice: Sendable {
    let device: BlockDevice
    let number: Int32
    private let descriptor: Mutex<Descriptor?>

    init(_ descriptor: consuming Descriptor, _ device: BlockDevice) {
        self.device = device
        number = descriptor.rawValue
        self.descriptor = Mutex(consume descriptor)
    }

    /// On a worker: the last one to close a device waits until what was written to it is on it.
    func close(for volume: VolumeID) async {
        await RingActor.ring.blocking(for: .volume(volume), doing: "close \(device.path)") {
            self.descriptor.withLock { $0 = nil }
        }
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
struct Program {
    var path: String
    var arguments: [String]

    func text(on device: BlockDevice) -> String {
        ([path] + arguments + [device.path]).joined(separator: " ")
    }

    /// Runs it to its end on the device that is held, whatever its path has come to stand for
    /// meanwhile, and gives the device up. The result's output is one line, and names the device by
    /// its path.
    ///
    /// Returns only when nothing of the program acts on the device any more. Where the device hangs
    /// that may be long after the deadline, at which it is killed.
    @RingActor
    func run(
        on held: HeldDevice, of volume: VolumeID, doing: String, by deadline: Instant,
        adviceIfLate: String, takesLine: (@RingActor (String) -> Bool)? = nil
    ) async throws -> ChildResult {
        let result: Result<ChildResult, any Error>
        do {
            result = .success(
                try await end(
                    on: held, of: volume, doing: doing, by: deadline, adviceIfLate, takesLine))
        } catch { result = .failure(error) }
        await held.close(for: volume)
        return try result.get()
    }

    @RingActor
    private func end(
        on held: HeldDevice, of volume: VolumeID, doing: String, by deadline: Instant,
        _ adviceIfLate: String, _ takesLine: (@RingActor (String) -> Bool)?
    ) async throws -> ChildResult {
        let target = "/proc/\(getpid())/fd/\(held.number)"
        let text = text(on: held.device)
        do {
            var result = try await ChildProcess.run(
                path, arguments + [target], by: deadline, for: .volume(volume), doing: text,
                takesLine: takesLine)
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
        } catch let error as ChildOutlivesKill {
            await error.end()
            throw OperationError(
                .deadline, doing: doing,
                found: "\(text) had not ended in time, was killed, and hung until now, for the "
                    + "device did not answer",
                advice: adviceIfLate)
        }
    }
}

extension ChildResult {
    var ending: String {
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
