import Agent
import Base
import Glibc
import JSON
import Linux
import Logging
import Ring
import VolumeCore

/// Stores the records in a JSON file, and those of mounted volumes with their counts in another
/// one, in a folder that no other daemon uses at the same time. A file that cannot be understood is
/// set aside; the other file, the mounts and the devices provide the rest.
///
/// A small document is rewritten completely by each save. For a large one, changes are appended to
/// a journal; when the journal has become as large as the document, both are merged.
@RingActor
final class StateFiles {
    private let lock: FolderLock
    private let volumes: AtomicFile
    private let journal: JournalFile
    private let mounts: AtomicFile
    private let log: Logger
    /// The contents on disk, from the document and its journal.
    private var document = StateDocument()
    private var documentSize = 0
    /// How many bytes of the journal are valid; 0 if there is no journal of this document.
    private var journalSize = 0

    /// Throws if another daemon uses the folder. `plugin` is the name of this plugin.
    init(
        folder: String, plugin: String?, version: String, commit: String, log: Logger
    ) throws(OperationError) {
        var holder = "version \(version), commit \(commit)"
        if let plugin { holder = "the plugin \(plugin), \(holder)" }
        // A plugin is the first process of its own PID namespace.
        if getpid() != 1 { holder += ", process \(getpid())" }
        lock = try FolderLock(folder, holder: holder)
        volumes = AtomicFile(path: folder + "/volumes.json", sizeMax: Limit.stateFileMax)
        journal = JournalFile(path: folder + "/volumes.journal")
        mounts = AtomicFile(path: folder + "/mounts.json", sizeMax: Limit.stateFileMax)
        self.log = log
    }

    // MARK: Loading

    func load(inBoot boot: String) async throws -> SavedState {
        let saved = try await load(volumes)
        if let saved {
            document = saved.document
            documentSize = saved.size
        }
        try await loadJournal()
        if document.nameless > 0 {
            log.error(
                "some saved records do not name their volume: they are kept but not used",
                metadata: ["records": "\(document.nameless)", "file": "\(volumes.path)"])
        }
        let mounted = try await load(mounts)?.document.state
        return SavedState(saved.map { _ in document.state }, mounted: mounted, boot: boot)
    }

    /// Nil if there is no such file, or if it cannot be understood.
    private func load(_ file: AtomicFile) async throws -> (document: StateDocument, size: Int)? {
        guard let bytes = try await file.read() else { return nil }
        do {
            let document = try StateDocument(parsing: bytes)
            if !document.damaged.isEmpty {
                let copy = try await file.keepCopy(of: bytes)
                log.error(
                    "a state file has damaged lines: the volumes in these lines are forgotten",
                    metadata: ["lines": "\(document.damaged.count)", "kept_as": "\(copy)"])
            }
            return (document, bytes.count)
        } catch {
            let aside = try await file.setAside()
            log.error(
                "a state file cannot be understood: mounts are found without it",
                metadata: ["error": "\(error)", "kept_as": "\(aside)"])
            return nil
        }
    }

    private func loadJournal() async throws {
        let file = AtomicFile(path: journal.path, sizeMax: Limit.stateFileMax)
        guard let bytes = try await file.read(), !bytes.isEmpty else { return }
        guard let whole = document.apply(journal: bytes) else {
            let aside = try await file.setAside()
            log.notice(
                "a journal belongs to another state file: it is not used",
                metadata: ["kept_as": "\(aside)"])
            return
        }
        journalSize = whole
        // After a crash, at most the last line is incomplete.
        guard bytes[whole...].contains(UInt8(ascii: "\n")) else { return }
        let copy = try await file.keepCopy(of: bytes)
        log.error(
            "the state's journal is damaged: the changes after the damage are not used",
            metadata: ["byte": "\(whole)", "kept_as": "\(copy)"])
    }

    // MARK: Saving

    func save(_ changes: [SavedChange], of owner: StateOwner) async throws {
        guard let generation = document.generation,
            documentSize > Limit.stateRewriteMax || journalSize > 0
        else { return try await rewrite(with: changes, of: owner) }
        var lines = StateDocument.journal(
            of: changes, owner: document.owner == owner ? nil : owner)
        if journalSize == 0 { lines = StateDocument.journalHead(generation) + lines }
        guard journalSize + lines.count <= max(documentSize, Limit.stateRewriteMax) else {
            return try await rewrite(with: changes, of: owner)
        }
        try await journal.append(lines, at: journalSize)
        journalSize += lines.count
        document.apply(changes)
        document.owner = owner
    }

    private func rewrite(with changes: [SavedChange], of owner: StateOwner) async throws {
        var next = document
        next.apply(changes)
        next.owner = owner
        next.generation = String(UInt64.random(in: .min ... .max), radix: 16)
        let bytes = try await RingActor.ring.blocking { [next] () throws(OperationError) in
            next.bytes
        }
        try await volumes.replace(with: bytes)
        document = next
        documentSize = bytes.count
        guard journalSize > 0 else { return }
        journalSize = 0
        // Otherwise the next start would report the useless journal.
        try? await journal.append([], at: 0)
    }

    func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws {
        try await mounts.replace(with: mountsDocument(of: records, owner: owner), syncing: false)
    }

    func keepCopy(named suffix: String) async throws -> String {
        try await volumes.keepCopy(of: document.bytes, named: suffix)
    }

    func workUnderWay() async -> WorkUnderWay? { RingActor.ring.workUnderWay(for: .state) }

    func conclude(of owner: StateOwner) async throws {
        if journalSize > 0 { try await rewrite(with: [], of: owner) }
    }
}
