package import Base

/// What an earlier run of the daemon has saved.
package struct SavedState: Sendable {
    /// Nil where nothing was saved, or by a version that did not say.
    package var owner: StateOwner?
    package var records: [VolumeRecord]
    /// The records of volumes that were neither attached nor mounted, not looked into.
    package var resting: [RestingRecord]

    package init(
        owner: StateOwner? = nil, records: [VolumeRecord] = [], resting: [RestingRecord] = []
    ) {
        self.owner = owner
        self.records = records
        self.resting = resting
    }
}

/// A saved record of one name as its text, with what it is found by: of the many volumes that a
/// long-lived instance comes to know few are ever asked for, and the others are to cost nothing.
package struct RestingRecord: Sendable {
    package var id: VolumeID
    package var name: String
    /// JSON.
    package var text: ArraySlice<UInt8>

    package init(id: VolumeID, name: String, text: ArraySlice<UInt8>) {
        self.id = id
        self.name = name
        self.text = text
    }
}

/// A change of what is saved.
package enum SavedChange: Sendable, Equatable {
    case put(VolumeRecord)
    case forget(VolumeID)

    package var id: VolumeID {
        switch self {
        case .put(let record): record.id
        case .forget(let id): id
        }
    }
}

/// The instance that a state is of, and the boot that it was saved in. A root volume is copied with
/// all that lies on it: into images, and into snapshots.
package struct StateOwner: Sendable, Equatable {
    /// Nil while it is not known.
    package var instance: InstanceID?
    /// The kernel's random id of the boot. It tells whether mounts and their counts can still be.
    package var boot: String

    package init(instance: InstanceID?, boot: String) {
        self.instance = instance
        self.boot = boot
    }
}
