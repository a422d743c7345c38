package import Base
import Glibc
import Ring
import SystemPackage

extension FileSystems {
    /// Repairs an ext2, ext3 or ext4 that the kernel would mount with a warning of damage, or whose
    /// journal must be replayed, because the journal may contain recorded errors. Returns the
    /// output of e2fsck. Returns nil if there is nothing to repair, if any mount namespace has it
    /// mounted, or if it is another file system: the kernel repairs an xfs by replaying its log.
    ///
    /// A check continues after the deadline. The next call joins it, or gets its result.
    package func repair(
        _ device: BlockDevice, of volume: VolumeID, type: String, by deadline: Instant
    ) async throws -> String? {
        guard ["ext2", "ext3", "ext4"].contains(type) else { return nil }
        let doing = "check the \(type) of \(volume) on \(device.path) before mounting it"
        if let running = checks[volume], running.device == device, running.end == nil {
            return try await outcome(of: running, volume, by: deadline)
        }
        let earlier = checks.removeValue(forKey: volume)
        earlier?.stop()
        let need = try await need(of: device, volume, doing: doing)
        if let earlier, earlier.device == device, let end = earlier.end {
            // The failure is reported until somebody has repaired the file system by hand.
            if need == nil { return try? end.get() }
            if case .failure = end { return try end.get() }
        }
        guard let need else { return nil }
        let check = FileSystemCheck(need, doing: doing, program: "\(toolPath)/e2fsck", in: tree)
        checks[volume] = check
        return try await outcome(of: check, volume, by: deadline)
    }

    private func outcome(
        of check: FileSystemCheck, _ volume: VolumeID, by deadline: Instant
    ) async throws -> String? {
        do {
            try await RingActor.ring.withDeadline(deadline) { try await check.waitForEnd() }
        } catch is DeadlineExceeded {
            throw OperationError(
                .deadline, doing: check.doing,
                found: "\(check.command) \(check.progress) and continues",
                advice: "mount the volume again later: the mount then joins this check instead of "
                    + "starting another; only stopping the plugin ends it early")
        }
        if checks[volume] === check { checks[volume] = nil }
        return try check.end?.get()
    }

    private func need(
        of device: BlockDevice, _ volume: VolumeID, doing: String
    ) async throws -> FileSystemCheck.Need? {
        let tree = tree
        return try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            try FileSystemCheck.need(of: device, volume, in: tree, doing: doing)
        }
    }
}

/// A run of e2fsck, which can outlive the Mount that started it.
@RingActor
final class FileSystemCheck: Sendable {
    /// What must be done before mounting.
    struct Need: Sendable {
        fileprivate var volume: VolumeID
        fileprivate var held: HeldDevice
        /// Only replay the journal; after that it is known whether there is damage.
        fileprivate var isReplay: Bool
    }

    nonisolated let device: BlockDevice
    nonisolated let doing: String
    /// The command as an operator would type it.
    nonisolated let command: String
    private(set) var end: Result<String, any Error>?
    private var task: Task<Void, Never>?
    private var sleepers: [Int: CheckedContinuation<Void, any Error>] = [:]
    private var nextSleeper = 0
    private let start = RingActor.ring.now
    private var lastLine: E2fsckProgress?

    init(_ need: Need, doing: String, program: String, in tree: DeviceTree) {
        device = need.held.device
        self.doing = doing
        command = "\(program) -p \(device.path)"
        task = RingActor.spawn {
            do {
                self.finish(.success(try await self.run(need, program, in: tree)))
            } catch {
                self.finish(.failure(error))
            }
        }
    }

    /// The progress: `is in pass 1 of 5, at 37 % of it, after 95 s`.
    var progress: String {
        let seconds = (RingActor.ring.now - start).components.seconds
        return (lastLine.map { "is \($0)" } ?? "is under way") + ", after \(seconds) s"
    }

    /// Ends the check if it is still running.
    func stop() { task?.cancel() }

    /// Throws `CancellationError` if the calling task is cancelled.
    func waitForEnd() async throws {
        guard end == nil else { return }
        nextSleeper += 1
        let sleeper = nextSleeper
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation {
                (continuation: CheckedContinuation<Void, any Error>) in
                if Task.isCancelled {
                    continuation.resume(throwing: CancellationError())
                } else {
                    sleepers[sleeper] = continuation
                }
            }
        } onCancel: {
            RingActor.spawn {
                self.sleepers.removeValue(forKey: sleeper)?.resume(throwing: CancellationError())
            }
        }
    }

    private func finish(_ result: Result<String, any Error>) {
        end = result
        task = nil
        let woken = sleepers
        sleepers = [:]
        for sleeper in woken.values { sleeper.resume() }
    }

    /// Blocks.
    nonisolated static func need(
        of device: BlockDevice, _ volume: VolumeID, in tree: DeviceTree, doing: String
    ) throws(OperationError) -> Need? {
        let proven = try ProvenDevice.open(device, of: volume, in: tree, doing: doing)
        let superblock = try proven.extSuperblock()
        guard superblock.isDamaged || superblock.needsRecovery else { return nil }
        // A mounted file system looks like one that was not unmounted.
        let isMounted = try explaining("open", .device, doing: doing) { () throws(Errno) in
            try isClaimed(device)
        }
        if isMounted { return nil }
        return Need(
            volume: volume, held: HeldDevice(proven.descriptor, device),
            isReplay: superblock.needsRecovery)
    }

    private func run(
        _ need: Need, _ program: String, in tree: DeviceTree
    ) async throws -> String {
        // With -p alone, e2fsck also completely checks an undamaged file system whose check is due
        // by mount count or date; on a large one this takes hours.
        guard need.isReplay else { return try await run(program, ["-p"], on: need) }
        let replay = try await run(program, ["-p", "-E", "journal_only"], on: need)
        let (device, doing) = (device, doing)
        let volume = need.volume
        let rest = try await RingActor.ring.blocking(for: .volume(volume), doing: doing) {
            () throws(OperationError) in
            try Self.need(of: device, volume, in: tree, doing: doing)
        }
        guard let rest, !rest.isReplay else { return replay }
        return replay + " / " + (try await run(program, ["-p"], on: rest))
    }

    private func run(
        _ path: String, _ arguments: [String], on need: Need
    ) async throws -> String {
        // e2fsck writes its progress to standard output, line by line.
        let program = Program(path: path, arguments: arguments + ["-C", "1"])
        let result = try await program.run(
            on: need.held, of: need.volume, doing: doing,
            by: RingActor.ring.now + Limit.checkTimeMax,
            adviceIfLate: "run 'e2fsck -p' on it by hand",
            takesLine: { line in
                guard let progress = E2fsckProgress(line) else { return false }
                self.lastLine = progress
                return true
            })
        // e2fsck(8): 1 is "errors corrected", 2 is "reboot", meant for a mounted file system.
        if case .exited(let code) = result.end, code & ~3 == 0 { return result.output }
        throw OperationError(
            .content, doing: doing,
            found: "\(program.text(on: device)) \(result.ending): \(result.output)",
            advice:
                "the file system is not mounted in this state; take a snapshot of the volume, then "
                + "run 'e2fsck' on it by hand")
    }
}

/// A line that e2fsck writes with -C: the pass, the position, the maximum position, and the device.
///
/// Source: e2fsck_update_progress in e2fsck/unix.c of e2fsprogs.
struct E2fsckProgress: Equatable, CustomStringConvertible {
    private var pass: Int
    private var percent: Int

    init?(_ line: String) {
        let words = line.split(separator: " ")
        guard words.count == 4, let pass = Int(words[0]), (1...5).contains(pass),
            let now = UInt64(words[1]), let all = UInt64(words[2])
        else { return nil }
        self.pass = pass
        percent = all == 0 ? 0 : Int(100 * Double(min(now, all)) / Double(all))
    }

    var description: String { "in pass \(pass) of 5, at \(percent) % of it" }
}
