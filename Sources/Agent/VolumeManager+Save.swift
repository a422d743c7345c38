import Base
import Logging
import VolumeCore

// What is remembered on the disk, and when.

/// The table lies in two files: what must outlive the machine, and what must outlive the process.
enum SavedPart { case volumes, counts }

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

    /// Saves without keeping anybody waiting; a failure is logged.
    func saveInBackground() {
        Task(executorPreference: executor) {
            do { try await self.save() } catch {
                self.log.error("the state could not be saved", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Returns when the counts survive the process, for Docker takes an answer for a promise. A
    /// count that cannot be saved is told, and no reason to refuse a container its data.
    func saveCounts() async {
        do { try await save(.counts) } catch {
            log.error("the counts could not be saved", metadata: ["error": "\(error)"])
        }
    }

    /// Saves that are asked for while one is written become one more.
    private func save(_ part: SavedPart) async throws {
        saves[part, default: SaveProgress()].asked += 1
        let mine = saves[part, default: SaveProgress()].asked
        while saves[part, default: SaveProgress()].written < mine {
            if let running = saves[part]?.running {
                // It may hold less than this call's records; its error is its own caller's.
                _ = await running.result
            } else {
                try await write(part)
            }
        }
    }

    private func write(_ part: SavedPart) async throws {
        let covered = saves[part]?.asked ?? 0
        let records = volumes.values.filter(\.isRemembered)
            .map(\.record).sorted { $0.id.description < $1.id.description }
        let state = ports.state
        let task = Task(executorPreference: executor) {
            switch part {
            case .volumes: try await state.save(records)
            case .counts: try await state.saveCounts(records)
            }
        }
        saves[part]?.running = task
        defer { saves[part]?.running = nil }
        try await task.value
        saves[part]?.written = covered
    }
}
