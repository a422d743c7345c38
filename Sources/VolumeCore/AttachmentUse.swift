package import Base

/// What counts against this instance's attachment limit.
package struct AttachmentUse: Sendable, Equatable {
    private let limit: AttachmentLimit
    private let instance: InstanceID
    /// The plugin's volumes.
    private let own: Int
    /// The root volume, and what other tools attached.
    private let others: Int
    private let networkInterfaces: Int

    /// - Parameters:
    ///   - instance: EC2's last description of this instance.
    ///   - own: The plugin's volumes that are here or being attached here, whatever EC2 said.
    ///   - known: Those of the instance's volumes that the plugin knows, and so whether they are
    ///     here or not.
    package init(
        of limit: AttachmentLimit, on instance: InstanceDescription, own: Set<VolumeID>,
        known: Set<VolumeID>
    ) {
        self.limit = limit
        self.instance = instance.id
        self.own = own.count
        others = Set(instance.mappings.compactMap(\.volume)).subtracting(known).count
        networkInterfaces = instance.networkInterfaces
    }

    /// Whether there is no room for another volume.
    package var isFull: Bool {
        let interfaces = limit.isShared ? max(0, networkInterfaces - 1) : 0
        return own + others + interfaces >= limit.volumesMax
    }

    /// The error for one more volume.
    ///
    /// - Parameter kept: unused volumes, and why each could not be detached.
    package func refusal(
        of volume: VolumeID, kept: [(volume: VolumeID, reason: String)]
    ) -> OperationError {
        var found =
            "EC2 lets an instance of type \(limit.instanceType) have "
            + counted(limit.volumesMax, "volume")
        if limit.isShared { found += ", one less for each network interface after the first" }
        if limit.instanceStoreDisks > 0 {
            found += " (\(limit.instanceStoreDisks) of its instance store are already subtracted)"
        }
        found +=
            "; it has \(counted(own + others, "volume")), \(own) of them the plugin's, and "
            + counted(networkInterfaces, "network interface")
        var advice = "place the task on another instance, or stop one here that has a volume"
        for (volume, reason) in kept.prefix(Limit.volumesNamedMax) {
            advice += "; \(volume), which nobody uses, could not be detached: \(reason)"
        }
        return OperationError(
            .limitReached, doing: "attach \(volume) to \(instance)", found: found, advice: advice)
    }
}

private func counted(_ number: Int, _ noun: String) -> String {
    "\(number) \(noun)\(number == 1 ? "" : "s")"
}
