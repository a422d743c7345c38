import Base
import Logging
import VolumeCore

// What is saved on disk, and when.

/// The table is in two files: what must survive a restart of the machine, and what must survive the
/// process.
enum SavedPart { case volumes, counts }

struct Saves {
    var volumes = SaveProgress()
    var counts = SaveProgress()
    /// Retries a failed save until it succeeds.
    var repeating: Task<Void, Never>?

    subscript(part: SavedPart) -> SaveProgress {
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
}

struct SaveProgress {
    /// The save in progress.
    var running: Task<Void, any Error>?
    /// How many saves were requested, and how many of them are written.
    var asked = 0
    var written = 0
}

extension VolumeManager {
    /// Returns when everything that is in the table now is on disk.
    package func save() async throws { try await save(.volumes) }

    /// Saves without making anybody wait. A failure is logged, and the save is retried.
    func saveInBackground() { Task(executorPreference: executor) { try? await self.save() } }

    /// Returns when the counts survive the process, because Docker relies on the response. If they
    /// cannot be saved, this is logged, but does not fail the Mount.
    func saveCounts() async {
        do { try await save(.counts) } catch {
            log.error("the counts could not be saved", metadata: ["error": "\(error)"])
        }
    }

    /// Saves that are requested while one is written are merged into one more.
    private func save(_ part: SavedPart) async throws {
        saves[part].asked += 1
        let mine = saves[part].asked
        while saves[part].written < mine {
            if let running = saves[part].running {
                // It may not include this call's records; its error belongs to its own caller.
                _ = try? await running.value
            } else {
                let running = Task(executorPreference: executor) { try await self.write(part) }
                saves[part].running = running
                try await running.value
            }
        }
    }

    private func write(_ part: SavedPart) async throws {
        // A save that has ended must not be waited for: otherwise it would seem to run forever.
        defer { saves[part].running = nil }
        let covered = saves[part].asked
        switch part {
        case .volumes: try await writeChanges()
        case .counts:
            try await ports.state.saveCounts(
                volumes.values.map(\.record).filter { !$0.mounts.isEmpty }, of: origin.owner)
        }
        saves[part].written = covered
    }

    /// Writes what has changed, and then publishes the names that are on disk to Docker.
    private func writeChanges() async throws {
        guard !volumes.isSaved || !origin.isSaved else { return }
        let ids = volumes.takeUnsaved()
        let changes = ids.map { id in
            volumes.awakened(id)?.toBeSaved.map { SavedChange.put($0) } ?? .forget(id)
        }
        let proposed = ids.compactMap { volumes.awakened($0) }
            .compactMap { volume in volume.proposal.map { (volume, $0) } }
        let owner = origin.owner
        do { try await ports.state.save(changes, of: owner) } catch {
            // The disk may contain them or not: the present state is written again.
            volumes.noteUnsaved(ids)
            for (volume, proposal) in proposed { volume.withdraw(proposal, after: error) }
            repeatSaving(after: error)
            throw error
        }
        origin.saved = owner
        for (volume, proposal) in proposed { volume.publish(proposal) }
    }

    private func repeatSaving(after error: any Error) {
        guard saves.repeating == nil else { return }
        log.error(
            "the state could not be saved: retrying until it is",
            metadata: ["error": "\(error)"])
        saves.repeating = Task(executorPreference: executor) { await self.saveUntilSaved() }
    }

    private func saveUntilSaved() async {
        defer { saves.repeating = nil }
        var backoff = Backoff(from: Limit.saveRetryMin, to: Limit.saveRetryMax, .twofold)
        while true {
            do { try await ports.time.sleep(until: ports.time.now + backoff.next()) } catch {
                return
            }
            if (try? await save()) != nil { break }
        }
        log.notice("the state is saved after an earlier failure")
    }

    /// Saves everything in a form that every version can read, because the next daemon may be an
    /// older version.
    package func conclude() async throws {
        saves.repeating?.cancel()
        try await save()
        try await ports.state.conclude(of: origin.owner)
    }
}
