import Base
import EC2Model
import Glibc
import Ring

/// Keeps the contents of volumes and snapshots, each a sparse file, as the model orders it.
///
/// The orders are executed one after another, so that a copy is complete before its source changes
/// or goes.
@RingActor
final class Storage {
    private let directory: StateDirectory
    private var last: Task<Void, Never>?
    /// Called when a volume's file has a new size.
    var grown: (VolumeID) async throws -> Void = { _ in }

    init(_ directory: StateDirectory) { self.directory = directory }

    func enqueue(_ orders: [StorageOrder]) {
        for order in orders {
            inTurn {
                do {
                    try await self.carryOut(order)
                } catch {
                    say("\(order): \(error)")
                }
            }
        }
    }

    /// Executes something after the present orders and before later ones.
    @discardableResult
    func inTurn(_ body: @escaping @RingActor @Sendable () async -> Void) -> Task<Void, Never> {
        let previous = last
        let task: Task<Void, Never> = RingActor.spawn {
            await previous?.value
            await body()
        }
        last = task
        return task
    }

    /// Returns when the present orders have been executed.
    func settle() async { await last?.value }

    private func carryOut(_ order: StorageOrder) async throws {
        switch order {
        case .make(let volume, let bytes, .blank):
            try await VolumeContent.blank.make(at: directory.backing(volume), bytes: bytes)
        case .make(let volume, let bytes, .snapshot(let snapshot)):
            try await copy(directory.snapshot(snapshot), to: directory.backing(volume))
            try directory.resizeBacking(volume, bytes: bytes)
        case .make(let volume, let bytes, .volume(let source)):
            try await copy(directory.backing(source), to: directory.backing(volume))
            try directory.resizeBacking(volume, bytes: bytes)
        case .grow(let volume, let bytes):
            try directory.resizeBacking(volume, bytes: bytes)
            try await grown(volume)
        case .remove(let volume): directory.removeBacking(volume)
        case .takeSnapshot(let snapshot, let volume):
            try await copy(directory.backing(volume), to: directory.snapshot(snapshot))
        case .removeSnapshot(let snapshot): directory.removeSnapshot(snapshot)
        }
    }

    /// How often a copy is repeated because its source was written meanwhile.
    private static let copiesMax = 100

    /// Copies a sparse file as it was at one point in time, as EC2 does: again, if the source has
    /// been written meanwhile.
    private func copy(_ source: String, to target: String) async throws {
        for _ in 1...Self.copiesMax {
            let isWhole = try await RingActor.ring.blocking { () throws(SystemError) in
                let begin = coarseTime()
                try copySparse(source, to: target)
                return changeTime(of: source) < begin
            }
            if isWhole { return }
        }
        throw InputError(
            "copy \(source): it was written during each of \(Self.copiesMax) copies; the last one "
                + "may mix its states")
    }
}

/// The clock that marks changes of files, in nanoseconds.
private func coarseTime() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME_COARSE, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// When a file was last written, on that clock; 0 if there is none.
private func changeTime(of path: String) -> Int64 {
    var status = stat()
    guard stat(path, &status) == 0 else { return 0 }
    return Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
}
