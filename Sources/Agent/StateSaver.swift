import Base
import Logging
import VolumeCore

/// Writes the table to disk. It is in two files: what must survive a restart of the machine, and
/// what must survive the process.
///
/// An actor on the manager's executor: what it shares with the manager, the table, is never in use
/// by both, and a call between them needs no turn of the executor.
actor StateSaver {
    private enum Part { case volumes, counts }

    private struct Progress {
        /// The save in progress.
        var running: Task<Void, any Error>?
        /// How many saves were requested, and how many of them are written.
        var asked = 0
        var written = 0
    }

    private let table: VolumeTable
    private let state: any StatePort
    private let time: any TimeSource
    private let log: Logger
    private nonisolated let executor: VolumeManager.Executor
    private var volumes = Progress()
    private var counts = Progress()
    /// Retries a failed save until it succeeds.
    private var repeating: Task<Void, Never>?

    nonisolated var unownedExecutor: UnownedSerialExecutor {
        // The saver keeps its executor alive, and nobody holds the reference for longer.
        unsafe executor.asUnownedSerialExecutor()
    }

    init(
        of table: VolumeTable, to state: any StatePort, time: any TimeSource,
        executor: VolumeManager.Executor, log: Logger
    ) {
        self.table = table
        self.state = state
        self.time = time
        self.executor = executor
        self.log = log
    }

    /// Returns when everything that is in the table now is on disk.
    func save() async throws { try await save(.volumes) }

    /// Returns when the counts survive the process, because Docker relies on the response. If they
    /// cannot be saved, this is logged, but does not fail the Mount.
    func saveCounts() async {
        do { try await save(.counts) } catch {
            log.error("the counts could not be saved", metadata: ["error": "\(error)"])
        }
    }

    /// Saves everything in a form that every version can read, because the next daemon may be an
    /// older version.
    func conclude() async throws {
        repeating?.cancel()
        try await save()
        try await state.conclude(of: table.origin.owner)
    }

    private subscript(part: Part) -> Progress {
        get {
            switch part {
            case .volumes: volumes
            case .counts: counts
            }
        }
        set {
            switch part {
            case .volumes: volumes = newValue
            case .counts: counts = newValue
            }
        }
    }

    /// Saves that are requested while one is written are merged into one more.
    private func save(_ part: Part) async throws {
        self[part].asked += 1
        let mine = self[part].asked
        while self[part].written < mine {
            if let running = self[part].running {
                // It may not include this call's records; its error belongs to its own caller.
                _ = try? await running.value
            } else {
                let running = Task(executorPreference: executor) { try await self.write(part) }
                self[part].running = running
                try await running.value
            }
        }
    }

    private func write(_ part: Part) async throws {
        // A save that has ended must not be waited for: otherwise it would seem to run forever.
        defer { self[part].running = nil }
        let covered = self[part].asked
        switch part {
        case .volumes: try await writeChanges()
        case .counts:
            try await state.saveCounts(
                table.values.map(\.record).filter { !$0.mounts.isEmpty }, of: table.origin.owner)
        }
        self[part].written = covered
    }

    /// Writes what has changed, and then publishes the names that are on disk to Docker.
    private func writeChanges() async throws {
        guard !table.isSaved else { return }
        let ids = table.takeUnsaved()
        let changes = ids.map { id in
            table.awakened(id)?.toBeSaved.map { SavedChange.put($0) } ?? .forget(id)
        }
        let proposed = ids.compactMap { table.awakened($0) }
            .compactMap { volume in volume.proposal.map { (volume, $0) } }
        let owner = table.origin.owner
        do { try await state.save(changes, of: owner) } catch {
            // The disk may contain them or not: the present state is written again.
            table.noteUnsaved(ids)
            for (volume, proposal) in proposed { volume.withdraw(proposal, after: error) }
            repeatSaving(after: error)
            throw error
        }
        table.origin.saved = owner
        for (volume, proposal) in proposed { volume.publish(proposal) }
    }

    private func repeatSaving(after error: any Error) {
        guard repeating == nil else { return }
        log.error(
            "the state could not be saved: retrying until it is",
            metadata: ["error": "\(error)"])
        repeating = Task(executorPreference: executor) { await self.saveUntilSaved() }
    }

    private func saveUntilSaved() async {
        defer { repeating = nil }
        var backoff = Backoff(from: Limit.saveRetryMin, to: Limit.saveRetryMax, .twofold)
        while true {
            do { try await time.sleep(until: time.now + backoff.next()) } catch {
                return
            }
            if (try? await save()) != nil { break }
        }
        log.notice("the state is saved after an earlier failure")
    }
}

// MARK: Waiting for a save that may hang

/// A wait for a save that is limited in time. Only the saver uses it: hence `@unchecked`.
private final class BoundedWait: @unchecked Sendable {
    var waiter: CheckedContinuation<Void, Never>?

    func end() {
        waiter?.resume()
        waiter = nil
    }
}

extension StateSaver {
    /// Returns when everything is on disk or could not be saved, or after that time, so that a disk
    /// that hangs does not delay a volume for longer.
    func save(atMost bound: Duration) async {
        let wait = BoundedWait()
        let end = time.now + bound
        Task(executorPreference: executor) { await self.save(ending: wait) }
        let alarm = Task(executorPreference: executor) {
            await self.sleep(until: end, ending: wait)
        }
        // Neither of the two begins before this waits.
        await withCheckedContinuation { wait.waiter = $0 }
        alarm.cancel()
    }

    private func save(ending wait: BoundedWait) async {
        try? await save()
        wait.end()
    }

    private func sleep(until instant: Instant, ending wait: BoundedWait) async {
        try? await time.sleep(until: instant)
        wait.end()
    }
}

// MARK: The manager's calls

extension VolumeManager {
    /// Returns when everything that is in the table now is on disk.
    package func save() async throws { try await saver.save() }

    func save(atMost time: Duration) async { await saver.save(atMost: time) }

    /// Saves without making anybody wait. A failure is logged, and the save is retried.
    func saveInBackground() { Task(executorPreference: executor) { try? await self.save() } }

    func saveCounts() async { await saver.saveCounts() }

    /// Saves everything for the next daemon, as the last call of this one.
    package func conclude() async throws { try await saver.conclude() }
}
