import Agent
import Base
import JSON
import VolumeCore

/// A state is the same after it was written and read again, as are its records alone.
func brokenState(_ bytes: [UInt8]) -> String? {
    let parts = bytes.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
    guard var document = try? StateDocument(parsing: Array(parts[0])) else { return nil }
    if parts.count > 1 {
        let journal = Array(parts[1])
        let whole = document.apply(journal: journal) ?? 0
        guard whole <= journal.count else { return "more of the journal is used than there is" }
    }
    let written = document.bytes
    guard let again = try? StateDocument(parsing: written) else { return "written, it is refused" }
    guard again.bytes == written, again.damaged.isEmpty else { return "written, it differs" }
    var state = document.state
    guard isSame(state, again.state) else { return "written, its records differ" }
    // Of a damaged record that is not UTF-8, the text is kept, not each byte.
    state.resting.removeAll { String(validating: $0.text, as: UTF8.self) == nil }
    let records = all(state)
    for record in records where readAgain(record)?.savedText != record.savedText {
        return "\(record.id) differs when it is saved again"
    }
    return brokenMounts(state, records)
}

private func all(_ state: SavedState) -> [VolumeRecord] {
    state.records + state.resting.map(VolumeRecord.init)
}

private func isSame(_ left: SavedState, _ right: SavedState) -> Bool {
    left.owner == right.owner && left.records == right.records
        && left.resting.map(VolumeRecord.init) == right.resting.map(VolumeRecord.init)
}

/// The record as it is found after it alone was saved; nil if it is not found, or another one.
private func readAgain(_ record: VolumeRecord) -> VolumeRecord? {
    var document = StateDocument()
    document.apply([.put(record)])
    guard let state = try? StateDocument(parsing: document.bytes).state,
        let found = all(state).first, all(state).count == 1
    else { return nil }
    return found.isSavedLike(record) && found.others == record.others
        && found.verbatim == record.verbatim ? found : nil
}

/// What is mounted is known from the other file too, and can be counted further.
private func brokenMounts(_ state: SavedState, _ records: [VolumeRecord]) -> String? {
    let owner = StateOwner(instance: state.owner?.instance, boot: "b")
    let mounted = try? StateDocument(parsing: mountsDocument(of: records, owner: owner)).state
    guard let mounted else { return "the document of what is mounted is refused" }
    let merged = SavedState(state, mounted: mounted, boot: "b")
    for record in records where !record.mounts.isEmpty {
        guard var found = merged.records.first(where: { $0.id == record.id })?.mounts,
            found == record.mounts
        else { return "\(record.id) has other counts when it is read again" }
        let total = found.total
        guard let id = found.counts.keys.first, found.remove(id), (try? found.add(id)) != nil,
            found.total == total
        else { return "\(record.id) cannot be counted further" }
    }
    return nil
}
