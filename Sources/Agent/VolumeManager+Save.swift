import Base
import Logging
import VolumeCore

// What is remembered on the disk, and when.

/// The table lies in two files: what must outlive the machine, and what must outlive the process.
enum SavedPart { case volumes, counts }

struct Saves {
    var volumes = SaveProgress()
    var counts = SaveProgress()
    /// Saves again and again what could not be saved.
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
    /// The save that is under way.
    var running: Task<Void, any Error>?
    /// How many saves were asked for, and how many of them are written.
    var asked = 0
    var written = 0
}

extension VolumeManager {
    /// Returns when everything that the table holds now is on the disk.
    package func save() async throws { try await save(.volumes) }

    /// Saves without keeping anybody waiting. What cannot be saved is told, and saved later.
    func saveInBackground() { Task(executorPreference: executor) { try? await self.save() } }

    /// Returns when the counts survive the process, for Docker takes an answer for a promise. A
    /// count that cannot be saved is told, and no reason to refuse a container its data.
    func saveCounts() async {
        do { try await save(.counts) } catch {
            log.error("the counts could not be saved", metadata: ["error": "\(error)"])
        }
    }

    /// Saves that are asked for while one is written become one more.
    private func save(_ part: SavedPart) async throws {
        saves[part].asked += 1
        let mine = saves[part].asked
        while saves[part].written < mine {
            if let running = saves[part].running {
                // It may hold less than this call's records; its error is its own caller's.
                _ = try? await running.value
            } else {
                let running = Task(executorPreference: executor) { try await self.write(part) }
                saves[part].running = running
                try await running.value
            }
        }
    }

    private func write(_ part: SavedPart) async throws {
        // One that has ended is nothing to wait for: whoever found it running would find it for
        // ever.
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

    /// Writes what has changed, and lets Docker know the names that are on the disk then.
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
            // The disk may hold them or not: what holds now is written again.
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
            "the state could not be saved; it is tried again until it is",
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
        log.notice("the state is saved again")
    }

    /// Saves all, in the form that every version reads: a daemon that follows may be an older one.
    package func conclude() async throws {
        saves.repeating?.cancel()
        try await save()
        try await ports.state.conclude(of: origin.owner)
    }
}
