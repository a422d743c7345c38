import VolumeCore

extension [VolumeRecord] {
    /// Like a state file: the counts are in another file.
    mutating func apply(_ changes: [SavedChange]) {
        for change in changes {
            let place = firstIndex { $0.id == change.id }
            switch change {
            case .forget: if let place { remove(at: place) }
            case .put(var record):
                record.mounts = place.map { self[$0].mounts } ?? MountCounts()
                if let place { self[place] = record } else { append(record) }
            }
        }
    }

    mutating func takeCounts(of records: [VolumeRecord]) {
        for index in indices {
            let counted = records.first { $0.id == self[index].id }
            self[index].mounts = counted?.mounts ?? MountCounts()
            guard let counted else { continue }
            self[index].name = counted.name
            self[index].options = counted.options
        }
    }
}
