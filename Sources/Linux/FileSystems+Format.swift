package import Base
import Glibc
import Ring
import Synchronization
import SystemPackage

extension FileSystems {
    /// Creates a file system on a device that is proved to be the volume, to be held by nothing,
    /// and to be blank; if the plan allows it, an unfinished file system may also be overwritten.
    /// Probe again afterwards.
    ///
    /// At the deadline mkfs is killed; then the device is no longer blank.
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
        // Without -f or -F, mkfs itself rejects everything that it recognises.
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
            advice:
                "the volume may now contain a partial file system, and is then not formatted again")
    }
}

/// An open device that outlives the call on the worker. While it is open, the kernel gives the
/// device's number to no other device.
final class HeldDevice: Sendable {
    let device: BlockDevice
    let number: Int32
    private let descriptor: Mutex<Descriptor?>

    init(_ descriptor: consuming Descriptor, _ device: BlockDevice) {
        self.device = device
        number = descriptor.rawValue
        self.descriptor = Mutex(consume descriptor)
    }

    /// Runs on a worker: the last close of a device waits until all data has been written to it.
    func close(for volume: VolumeID) async {
        await RingActor.ring.blocking(for: .volume(volume), doing: "close \(device.path)") {
            self.descriptor.withLock { $0 = nil }
        }
    }
}

/// Opens the device exclusively, and proves that it is blank and held by nothing. Returns the
/// device opened again, but not exclusively, because that would lock out mkfs.
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
            advice: "nothing was written to it; if you do not need its data, wipe the volume")
    }
    return HeldDevice(shared.descriptor, device)
}

/// A program that operates on a device.
struct Program {
    var path: String
    var arguments: [String]

    func text(on device: BlockDevice) -> String {
        ([path] + arguments + [device.path]).joined(separator: " ")
    }

    /// Runs the program to its end on the device that is held open, even if its path now refers to
    /// something else, and closes the device. The result's output is one line, and names the device
    /// by its path.
    ///
    /// Returns only when the program no longer acts on the device. At the deadline it is killed; if
    /// the device hangs, it may end long after that.
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
                found: "\(text) could not be started: \(refusal(of: "exec", error))")
        } catch is DeadlineExceeded {
            throw OperationError(
                .deadline, doing: doing, found: "\(text) did not end in time and was killed",
                advice: adviceIfLate)
        } catch let error as ChildOutlivesKill {
            await error.end()
            throw OperationError(
                .deadline, doing: doing,
                found: "\(text) did not end in time, was killed, and hung until now because the "
                    + "device did not respond",
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
    /// The object of "it has".
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
