import Base
import Logging
import VolumeCore

// What is remembered on the disk, and when.

/// The table lies in two files: what must outlive the machine, and what must outlive the process.
enum SavedPart { case volumes, counts }

struct Saves {
    var volumes = SaveProgress()
    var counts = SaveProgress()

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

    /// Returns when everything that is to be saved is on the disk; writes nothing where it is.
    func finishSaving() async throws {
        if saves.volumes.written < saves.volumes.asked { try await save() }
    }

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
        // One that has ended is nothing to wait for: whoever found it running would find it for ever.
        defer { saves[part].running = nil }
        let covered = saves[part].asked
        let records = volumes.values.filter(\.isRemembered)
            .sorted { $0.id.description < $1.id.description }.map(\.record)
        switch part {
        case .volumes: try await ports.state.save(records)
        case .counts: try await ports.state.saveCounts(records)
        }
        saves[part].written = covered
    }
}
