package import Base

/// The saved state of an earlier run of the daemon.
package struct SavedState: Sendable {
    /// Nil if nothing was saved, or if the saving version did not record it.
    package var owner: StateOwner?
    package var records: [VolumeRecord]
    /// The unparsed records of volumes that were neither attached nor mounted.
    package var resting: [RestingRecord]

    package init(
        owner: StateOwner? = nil, records: [VolumeRecord] = [], resting: [RestingRecord] = []
    ) {
        self.owner = owner
        self.records = records
        self.resting = resting
    }
}

/// The text of a saved record with one name, and its keys. Of the many volumes that a long-lived
/// instance gets to know, few are used again, and the others should cost nothing.
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

/// A change of the saved state.
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

/// The instance that a state belongs to, and the boot in which it was saved. Images and snapshots
/// copy the root volume with everything on it.
package struct StateOwner: Sendable, Equatable {
    /// Nil while it is unknown.
    package var instance: InstanceID?
    /// The kernel's random id of the boot. It shows whether mounts and their counts can still
    /// exist.
    package var boot: String

    package init(instance: InstanceID?, boot: String) {
        self.instance = instance
        self.boot = boot
    }
}
