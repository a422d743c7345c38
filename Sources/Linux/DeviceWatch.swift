package import Base
package import Ring
import SystemPackage

/// Finds the devices of volumes, and waits until they appear or disappear.
///
/// A device is identified by its contents, not by its path: see `DeviceTree`. All waiting callers
/// share one inotify watch of the device folder; while nobody waits, nothing is watched.
@RingActor
package final class DeviceWatch: Sendable {
    private let tree: DeviceTree
    private let inotify: Inotify
    /// What sysfs showed when it was last read, and how often it was read.
    private var census = DeviceTree.Census()
    private(set) var changes = 0
    /// How many calls of `arrival` and `departure` are in progress.
    private(set) var watchers = 0
    private var sleepers: [Int: CheckedContinuation<Void, any Error>] = [:]
    private var nextSleeper = 0
    /// Reads inotify events while there are sleeping watchers.
    private var listener: Task<Void, Never>?

    /// `devPath` is the folder of the device nodes, `sysPath` the mountpoint of sysfs.
    package init(devPath: String = "/dev", sysPath: String = "/sys") throws {
        tree = DeviceTree(devPath: devPath, sysPath: sysPath)
        inotify = try explaining(
            "inotify_init1", .system, doing: "watch \(devPath)",
            advice: "raise the sysctl fs.inotify.max_user_instances"
        ) { () throws(Errno) in try Inotify(path: devPath) }
    }

    /// Looks once. `name` is the device name of the attachment, `/dev/sdf`; without it a Xen device
    /// is not found.
    package func find(
        _ volume: VolumeID, attachedAs name: String?
    ) async throws -> BlockDevice? {
        let census = tree.census()
        if let trouble = census.trouble {
            // A device that cannot be seen is not proved to be gone.
            throw OperationError(.device, doing: "find the device of \(volume)", found: trouble)
        }
        switch tree.sighting(of: volume, attachedAs: name, in: census) {
        case .present(let device): return device
        case .absent: return nil
        case .unclear(let found):
            // Code that detaches the volume or drops its lease must know that nobody holds it.
            throw OperationError(
                .device, doing: "find the device of \(volume)", found: found,
                advice: "try again; if it persists, 'dmesg' on the instance shows what is wrong "
                    + "with that disk")
        case .ambiguous(let found):
            throw OperationError(
                .device, doing: "find the device of \(volume)", found: found,
                advice: "none of them is used; detach the volume and attach it again")
        }
    }

    /// Returns when the device of `volume`, attached as `name`, is here; at once if it already is.
    /// Throws `CancellationError` if the task is cancelled.
    package func arrival(
        of volume: VolumeID, attachedAs name: String, by deadline: Instant
    ) async throws -> BlockDevice {
        let doing = "find the device of \(volume), attached as \(name)"
        let tree = tree
        do {
            return try await RingActor.ring.withDeadline(deadline) {
                try await self.watching(doing: doing) { census in
                    guard
                        case .present(let device) = tree.sighting(
                            of: volume, attachedAs: name, in: census)
                    else { return nil }
                    return device
                }
            }
        } catch is DeadlineExceeded {
            switch tree.sighting(of: volume, attachedAs: name, in: tree.census()) {
            case .present(let device): return device
            case .absent(let found), .unclear(let found), .ambiguous(let found):
                throw OperationError(
                    .deadline, doing: doing, found: "it did not appear in time: \(found)",
                    advice: "check in EC2 whether the attachment is stuck in 'attaching'; if so, "
                        + "detach the volume and attach it under another name")
            }
        }
    }

    /// Returns when `device` is gone or no longer belongs to `volume`; at once if that is already
    /// so. With a distant deadline this detects the loss of a device that is in use. Throws
    /// `CancellationError` if the task is cancelled.
    package func departure(
        of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws {
        let doing = "wait until \(device.path) of \(volume) is gone"
        let tree = tree
        do {
            try await RingActor.ring.withDeadline(deadline) {
                try await self.watching(doing: doing) { _ in
                    tree.isPresent(device, of: volume) ? nil : ()
                }
            }
        } catch is DeadlineExceeded {
            throw OperationError(
                .deadline, doing: doing, found: "the device is still here",
                advice:
                    "a volume that is in use is detached only once it is unmounted; look at its "
                    + "attachment in EC2")
        }
    }

    /// Returns when the partition with that number on `device` is here; at once if it already is.
    /// The kernel shows a disk before its partitions. 1 is the first.
    package func partition(
        _ number: Int, of device: BlockDevice, volume: VolumeID, by deadline: Instant
    ) async throws -> BlockDevice {
        let doing = "find partition \(number) of \(volume) on \(device.path)"
        let tree = tree
        do {
            return try await RingActor.ring.withDeadline(deadline) {
                try await self.watching(doing: doing) { _ in
                    guard
                        case .present(let found) = tree.partition(
                            number, of: device, volume: volume)
                    else { return nil }
                    return found
                }
            }
        } catch is DeadlineExceeded {
            switch tree.partition(number, of: device, volume: volume) {
            case .present(let found): return found
            case .absent(let found), .unclear(let found), .ambiguous(let found):
                throw OperationError(
                    .device, doing: doing, found: found,
                    advice: "see 'lsblk' on the instance, and create the volume with the number of "
                        + "a partition that it has, or without partition=")
            }
        }
    }

    /// Calls `look` with what sysfs shows, now and after each change, until it returns a value.
    private func watching<T: Sendable>(
        doing: String, _ look: @RingActor (DeviceTree.Census) -> T?
    ) async throws -> T {
        watchers += 1
        defer {
            watchers -= 1
            if watchers == 0 { rest() }
        }
        try arm(doing: doing)
        refresh()
        while true {
            let seen = changes
            if let result = look(census) { return result }
            // The watch is already armed unless the folder was replaced; in that case, changes in
            // between caused no event.
            if try arm(doing: doing) { refresh() }
            try await change(after: seen)
        }
    }

    /// Returns whether the watch was not armed before. A census taken after this misses nothing.
    @discardableResult
    private func arm(doing: String) throws(OperationError) -> Bool {
        try explaining(
            "inotify_add_watch on \(tree.devPath)", .system, doing: doing,
            advice: "check that it is a directory, and raise the sysctl fs.inotify.max_user_watches"
        ) { () throws(Errno) in try inotify.arm() }
    }

    private func rest() {
        listener?.cancel()
        listener = nil
        inotify.disarm()
    }

    /// Takes a new census, and lets all waiting callers examine it.
    private func refresh() {
        census = tree.census()
        changes += 1
        wake(.success(()))
    }

    private func wake(_ result: Result<Void, any Error>) {
        let woken = sleepers
        sleepers = [:]
        for sleeper in woken.values { sleeper.resume(with: result) }
    }

    private func change(after seen: Int) async throws {
        guard changes == seen else { return }
        if listener == nil { listener = RingActor.spawn { await self.listen() } }
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

    /// Reads inotify events until it is cancelled.
    private func listen() async {
        while !Task.isCancelled {
            do {
                try await inotify.wait()
                if inotify.take() { refresh() }
            } catch {
                guard !Task.isCancelled else { return }
                listener = nil
                wake(
                    .failure(
                        OperationError(
                            .system, doing: "watch \(tree.devPath)",
                            found: refusal(of: "poll", error))))
                return
            }
        }
    }
}
