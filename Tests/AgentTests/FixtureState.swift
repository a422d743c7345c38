import Agent
import Base
import VolumeCore

@testable import Simulation

/// The state file on the life's host, with faults on demand.
final class FixtureState: StatePort, @unchecked Sendable {
    private let stage: Stage
    private var host: LifeHost { stage.host }
    /// Further records that nobody has parsed.
    var resting: [RestingRecord] = []
    private(set) var saves = 0
    /// How many saves were tried, including failed ones.
    private(set) var attempts = 0
    private var isSaving = false
    /// Whether the state is in the form that every version reads.
    private(set) var isConcluded = false
    /// The error of a save.
    var saveError: (any Error)?
    /// Whether its disk responds; nil for a disk that always does.
    var hang: Hang?
    /// Whether a save that fails has been written nevertheless.
    var writesBeforeItFails = false
    private(set) var copies: [String] = []

    init(_ stage: Stage) { self.stage = stage }

    var records: [VolumeRecord] {
        get { host.disk }
        set { host.disk = newValue }
    }

    var owner: StateOwner? {
        get { host.diskOwner }
        set { host.diskOwner = newValue }
    }

    func workUnderWay() async -> WorkUnderWay? { hang?.workUnderWay }

    func load(inBoot boot: String) async throws -> SavedState {
        var saved = try await stage.ports.load(inBoot: boot)
        // As from a file: resting records are not parsed.
        let isAtRest = { (record: VolumeRecord) in
            record.isAtRest && record.names.count == 1 && record.names[0].flaw == nil
        }
        saved.resting += saved.records.filter(isAtRest).map {
            RestingRecord(id: $0.id, name: $0.names[0].name, text: $0.savedText[...])
        }
        saved.records.removeAll(where: isAtRest)
        saved.resting += resting
        return saved
    }

    func save(_ changes: [SavedChange], of owner: StateOwner) async throws {
        precondition(!isSaving, "two saves at once: one may undo the other's")
        isSaving = true
        defer { isSaving = false }
        attempts += 1
        isConcluded = false
        await hang?.pass("save the records")
        if let saveError {
            if writesBeforeItFails { host.disk.apply(changes) }
            throw saveError
        }
        try await stage.ports.save(changes, of: owner)
        saves += 1
    }

    func saveCounts(_ records: [VolumeRecord], of owner: StateOwner) async throws {
        await hang?.pass("save the counts")
        try await stage.ports.saveCounts(records, of: owner)
    }

    func keepCopy(named suffix: String) async throws -> String {
        copies.append(suffix)
        return try await stage.ports.keepCopy(named: suffix)
    }

    func conclude(of owner: StateOwner) async throws {
        try await stage.ports.conclude(of: owner)
        isConcluded = true
    }
}
