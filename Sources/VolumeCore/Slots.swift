package import Base

/// The room for volumes on this instance: how many EC2 lets it have, what takes them up besides the
/// volumes of the table, and the device names.
package struct Slots: Sendable {
    package var names = DeviceNames()
    /// Nil while unknown; then only EC2 enforces it.
    package private(set) var limit: AttachmentLimit?
    /// EC2's last description of this instance.
    private var instance: InstanceDescription?
    /// Volumes whose AttachVolume is in progress.
    private var reserved: Set<VolumeID> = []
    /// Volumes that are released before their time, until EC2 has taken note of it.
    package private(set) var leaving: Set<VolumeID> = []
    /// When a volume's device went last because it was released.
    private var lastDeparture: Instant?

    package init() {}

    /// What takes up the volumes that EC2 allows, the volume `id` itself not counted; nil where the
    /// limit is not known.
    ///
    /// - Parameters:
    ///   - here: the table's volumes that are attached here.
    ///   - isKnown: whether the table knows a volume, and so whether it is here.
    package func use(
        besides id: VolumeID, here: [VolumeID], isKnown: (VolumeID) -> Bool
    ) -> AttachmentUse? {
        guard let limit, let instance else { return nil }
        var own = reserved.union(leaving).union(here)
        own.remove(id)
        let known = instance.mappings.compactMap(\.volume).filter(isKnown)
        return AttachmentUse(of: limit, on: instance, own: own, known: Set(known))
    }

    /// Whether EC2 may be about to notice that a volume is gone, some time after its device.
    package func isOneComing(at now: Instant) -> Bool {
        lastDeparture.map { now < $0 + Limit.slotTimeMax } ?? false
    }

    package mutating func limitTold(_ limit: AttachmentLimit?) { self.limit = limit }

    package mutating func instanceTold(_ instance: InstanceDescription) {
        self.instance = instance
    }

    /// AttachVolume is about to be asked for.
    package mutating func reserve(_ id: VolumeID) { reserved.insert(id) }
    package mutating func endReservation(of id: VolumeID) { reserved.remove(id) }

    /// A volume is about to be released before its time.
    package mutating func releaseBegan(of id: VolumeID) { leaving.insert(id) }
    package mutating func releaseEnded(of id: VolumeID) { leaving.remove(id) }

    /// The device of a volume that was released has gone.
    package mutating func deviceGone(at now: Instant) { lastDeparture = now }

    /// EC2 has taken note that a volume has gone. The table may have forgotten it by now, and then
    /// it would count as foreign.
    package mutating func freed(by id: VolumeID) {
        instance?.mappings.removeAll { $0.volume == id }
    }
}
