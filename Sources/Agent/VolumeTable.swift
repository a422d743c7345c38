import Base
import VolumeCore

/// The volumes that this instance knows, by their ids and by their names.
///
/// Most of them only have a name that Docker may ask for. These rest: they are kept as the text
/// that they were saved as until somebody uses them, and iterating over the table skips them.
///
/// The manager, `StateSaver` and `LeaseKeeper` share it. These actors have one executor, and
/// nothing else uses the table: hence `@unchecked`.
final class VolumeTable: @unchecked Sendable {
    /// Whose state this is.
    var origin: StateOrigin
    private var awake: [VolumeID: Volume] = [:]
    private var resting: [VolumeID: RestingRecord] = [:]
    private var idsByName: [String: VolumeID] = [:]
    /// Volumes that may be active on this instance, and some that are at rest again.
    private var possiblyActive: Set<VolumeID> = []
    /// Volumes whose saved form may differ.
    private var unsaved: Set<VolumeID> = []

    init(origin: StateOrigin) { self.origin = origin }

    /// Loads the state of an earlier run. None of it is unsaved, except perhaps its owner.
    func take(_ saved: SavedState) {
        origin.take(saved.owner)
        for record in saved.records { self[record.id] = Volume(record) }
        resting.reserveCapacity(saved.resting.count)
        idsByName.reserveCapacity(saved.resting.count)
        for record in saved.resting {
            resting[record.id] = record
            idsByName[record.name] = record.id
        }
        unsaved = []
    }

    /// The number of names.
    var nameCount: Int { idsByName.count }

    subscript(id: VolumeID) -> Volume? {
        get { awake[id] ?? wake(id) }
        set {
            if let old = awake.removeValue(forKey: id) {
                old.table = nil
                drop(old.record.names)
            }
            resting[id] = nil
            unsaved.insert(id)
            guard let volume = newValue else {
                possiblyActive.remove(id)
                return
            }
            awake[id] = volume
            volume.table = self
            for naming in volume.record.names { idsByName[naming.name] = id }
            noteActivity(of: volume)
        }
    }

    /// The volume that Docker knows by that name.
    subscript(name name: String) -> Volume? { idsByName[name].flatMap { self[$0] } }

    func id(named name: String) -> VolumeID? { idsByName[name] }

    /// Whether the volume is in the table and does not rest. For a resting volume, nobody has
    /// checked whether it is here.
    func contains(_ id: VolumeID) -> Bool { awake[id] != nil }

    /// The volume's record; does not wake the volume.
    func record(of id: VolumeID) -> VolumeRecord? {
        awake[id]?.record ?? resting[id].map { VolumeRecord($0) }
    }

    /// The volume, if it does not rest.
    func awakened(_ id: VolumeID) -> Volume? { awake[id] }

    private func wake(_ id: VolumeID) -> Volume? {
        guard let record = resting.removeValue(forKey: id) else { return nil }
        let volume = Volume(VolumeRecord(record))
        awake[id] = volume
        volume.table = self
        return volume
    }

    var ids: [VolumeID] { Array(awake.keys) + resting.keys }

    /// The volumes that are active on this instance, in the order of their ids.
    var values: [Volume] {
        let active = possiblyActive.compactMap { awake[$0] }.filter { !$0.isAtRest }
        possiblyActive = Set(active.map(\.id))
        return active.sorted { $0.id.description < $1.id.description }
    }

    // MARK: What volumes tell of themselves

    func noteActivity(of volume: Volume) { possiblyActive.insert(volume.id) }

    func noteChange(of volume: Volume, from old: VolumeRecord, isSaved: Bool = false) {
        if old.names != volume.record.names {
            drop(old.names)
            for naming in volume.record.names { idsByName[naming.name] = volume.id }
        }
        if !isSaved, !old.isSavedLike(volume.record) { unsaved.insert(volume.id) }
        noteActivity(of: volume)
    }

    /// A name belongs to one volume: Create ensures that.
    private func drop(_ names: [VolumeNaming]) {
        for naming in names { idsByName[naming.name] = nil }
    }

    // MARK: What is to be saved

    var isSaved: Bool { unsaved.isEmpty && origin.isSaved }

    func noteUnsaved(_ ids: some Sequence<VolumeID>) { unsaved.formUnion(ids) }

    /// The volumes to be saved now, in a fixed order. From now on they count as saved.
    func takeUnsaved() -> [VolumeID] {
        defer { unsaved = [] }
        return unsaved.sorted { $0.description < $1.description }
    }
}
