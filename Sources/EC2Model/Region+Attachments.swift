package import Base

/// The life cycle of an attachment: attaching, attached, detaching or busy, gone.
extension Region {
    func requireAttachable(_ volume: Volume, to instance: Instance) throws(APIError) {
        if volume.state == .inUse {
            let here = volume.index(of: instance.id) != nil
            guard volume.multiAttach, !here else {
                throw APIError(
                    "VolumeInUse", "\(volume.id) is already attached to an instance")
            }
        } else if volume.state != .available {
            throw APIError("IncorrectState", "Volume '\(volume.id)' is not 'available'.")
        }
        guard modifications[volume.id]?.last?.state != .modifying else {
            // Message and code: github.com/hashicorp/terraform/issues/24610.
            throw APIError(
                "OperationNotPermitted",
                "Cannot attach volume \(volume.id) when it is in modification state: MODIFYING")
        }
        guard instance.zone == volume.zone else {
            throw APIError(
                "InvalidVolume.ZoneMismatch",
                "The volume '\(volume.id)' is not in the same availability zone as instance "
                    + "'\(instance.id)'")
        }
        guard instance.state == .running || instance.state == .stopped else {
            throw APIError("IncorrectState", "Instance '\(instance.id)' is not 'running'.")
        }
    }

    /// The name as mappings list it, if the instance has room for one more volume and the name is
    /// free.
    func freeDeviceName(_ name: String, on instance: Instance) throws(APIError) -> String {
        guard let canonical = DeviceNameRules.canonical(name) else {
            throw .invalidValue(name, for: "device", "\(name) is not a valid EBS device name.")
        }
        let names = attachments(of: instance.id).map(\.attachment.deviceName)
        let taken = hasRootVolume(instance) ? names : names + [instance.rootDeviceName]
        let clash = taken.contains {
            $0 == canonical
                || instance.mode == .xen
                    && DeviceNameRules.xenNode($0) == DeviceNameRules.xenNode(canonical)
        }
        if clash {
            throw APIError(
                "InvalidParameterValue",
                "Invalid value '\(name)' for unixDevice. Attachment point \(name) is already in use"
            )
        }
        let isShared = instance.mode == .nitro && instance.limitType != .dedicated
        let interfaces = isShared ? instance.networkInterfaces - 1 : 0
        guard taken.count + interfaces < instance.attachmentsMax else {
            throw APIError(
                "AttachmentLimitExceeded",
                "The maximum number of attachments (\(instance.attachmentsMax)) of instance "
                    + "'\(instance.id)' has been reached.")
        }
        return canonical
    }

    /// Whether one of the Region's volumes is the instance's root volume.
    func hasRootVolume(_ instance: Instance) -> Bool {
        attachments(of: instance.id).contains {
            $0.attachment.deviceName == instance.rootDeviceName
        }
    }

    /// The instance's attachments, ordered by device name.
    func attachments(
        of instance: InstanceID
    ) -> [(volume: VolumeID, attachment: Attachment)] {
        volumes.values.flatMap { volume in
            volume.attachments.filter { $0.instance == instance }.map { (volume.id, $0) }
        }.sorted { $0.attachment.deviceName < $1.attachment.deviceName }
    }

    /// Attaches a volume that was found to be attachable; the device appears later.
    mutating func beginAttach(
        _ id: VolumeID, to instance: InstanceID, as deviceName: String, at now: Moment
    ) {
        var plug = plug(id, to: instance, as: deviceName)
        var plugAt: Instant? = now.instant + latency.device
        var attachedAt: Instant? = now.instant + latency.attached
        switch faults.take("Device", subject: id.description) {
        case .deviceNever(let stuck):
            plugAt = nil
            if stuck { attachedAt = nil }
        case .deviceLate(let milliseconds):
            plugAt = now.instant + latency.device + .milliseconds(milliseconds)
        case .deviceNumber(let wanted): plug.number = wanted
        case .deviceSerial(let serial): plug.serial = serial
        case .deviceStays: plug.stays = true
        case .attachmentEnds(let milliseconds):
            let number = addAttachment(id, to: instance, as: deviceName, plug, at: now)
            note("attach-accepted", id, instance, deviceName, at: now.instant)
            schedule(
                .attachmentEnds(id, attachment: number),
                at: now.instant + .milliseconds(milliseconds))
            return
        default: break
        }
        let number = addAttachment(id, to: instance, as: deviceName, plug, at: now)
        note("attach-accepted", id, instance, deviceName, at: now.instant)
        if let plugAt { schedule(.plug(id, attachment: number), at: plugAt) }
        if let attachedAt { schedule(.attached(id, attachment: number), at: attachedAt) }
    }

    /// Makes a volume attached since before the simulation began. Fails for the same reasons as
    /// AttachVolume, except that the name of the root device is allowed: it makes the volume the
    /// root volume.
    package mutating func setAttached(
        _ id: VolumeID, to instance: InstanceID, as deviceName: String,
        deleteOnTermination: Bool? = nil, at now: Moment
    ) throws(APIError) {
        guard let volume = volumes[id] else { throw .volumesNotFound([id.description]) }
        let described = try required(instance.description)
        try requireAttachable(volume, to: described)
        let isRoot = deviceName == described.rootDeviceName && !hasRootVolume(described)
        let name = isRoot ? deviceName : try freeDeviceName(deviceName, on: described)
        var plug = plug(id, to: instance, as: name)
        if isRoot, described.mode == .nitro { plug.number = 0 }
        let number = addAttachment(id, to: instance, as: name, plug, at: now)
        changeAttachment(id, number, at: now) {
            $0.state = .attached
            $0.deleteOnTermination = deleteOnTermination ?? isRoot
        }
        schedule(.plug(id, attachment: number), at: now.instant)
    }

    private func plug(
        _ id: VolumeID, to instance: InstanceID, as deviceName: String
    ) -> DeviceOrder.Plug {
        let isXen = instances[instance]?.mode == .xen
        return DeviceOrder.Plug(
            serial: id.nvmeSerial, xenNode: isXen ? DeviceNameRules.xenNode(deviceName) : nil)
    }

    private mutating func addAttachment(
        _ id: VolumeID, to instance: InstanceID, as deviceName: String, _ plug: DeviceOrder.Plug,
        at now: Moment
    ) -> Int {
        let number = nextAttachmentNumber()
        let attachment = Attachment(
            instance: instance, deviceName: deviceName, state: .attaching,
            attachedAt: now.unixSeconds, number: number, plug: plug)
        change(id, at: now) { (volume: inout Volume) in
            volume.state = .inUse
            volume.attachments.append(attachment)
        }
        return number
    }

    /// Begins the end of an attachment, or with `force` accelerates it.
    mutating func beginDetach(
        _ id: VolumeID, _ attachment: Attachment, force: Bool, at now: Moment
    ) {
        let isRepeated = attachment.state == .detaching || attachment.state == .busy
        changeAttachment(id, attachment.number, at: now) {
            if !isRepeated { $0.state = .detaching }
            if force { $0.force = true }
        }
        if isRepeated { return }
        note(
            force ? "detach-forced" : "detach-accepted", id, attachment.instance, at: now.instant)
        schedule(.unplug(id, attachment: attachment.number), at: now.instant + latency.detach)
    }

    mutating func orderPlug(_ id: VolumeID, _ number: Int, at now: Moment) {
        guard let attachment = attachment(id, number), attachment.device == .absent,
            attachment.state == .attaching || attachment.state == .attached,
            instances[attachment.instance]?.state == .running
        else { return }
        changeAttachment(id, number, at: now) { $0.device = .present }
        order(.plug(attachment.plug), id, attachment)
    }

    mutating func orderUnplug(_ id: VolumeID, _ number: Int, at now: Moment) {
        guard let attachment = attachment(id, number) else { return }
        switch attachment.device {
        case .absent: endAttachment(id, number, at: now)
        case .leaving: break
        case .present:
            let holdsBack = instances[attachment.instance]?.holdsDetachBack ?? false
            changeAttachment(id, number, at: now) { $0.device = .leaving }
            order(.unplug(force: attachment.force || !holdsBack), id, attachment)
        }
    }

    // MARK: Reports

    /// The device of a plug order appeared as `node`.
    package mutating func plugged(_ order: DeviceOrder, node: String, at now: Moment) {
        note("device-created", order.volume, order.instance, node, at: now.instant)
        changeAttachment(order.volume, order.attachment, at: now) {
            $0.node = node
        }
    }

    /// A plug order could not be carried out: the attachment stays without a device.
    package mutating func plugFailed(_ order: DeviceOrder, _ reason: String, at now: Moment) {
        note("device-failed", order.volume, order.instance, reason, at: now.instant)
        changeAttachment(order.volume, order.attachment, at: now) {
            if $0.device == .present { $0.device = .absent }
        }
    }

    /// The device of an unplug order is gone.
    package mutating func unplugged(_ order: DeviceOrder, at now: Moment) {
        note("device-removed", order.volume, order.instance, at: now.instant)
        guard let attachment = attachment(order.volume, order.attachment) else { return }
        if attachment.state == .detaching || attachment.state == .busy {
            endAttachment(order.volume, order.attachment, at: now)
        } else {
            changeAttachment(order.volume, order.attachment, at: now) {
                $0.device = .absent
                $0.node = nil
            }
            if instances[order.instance]?.state == .running {
                schedule(.plug(order.volume, attachment: order.attachment), at: now.instant)
            }
        }
    }

    /// The device of an unplug order is held (mounted): EC2 reports `busy` and keeps trying.
    package mutating func held(_ order: DeviceOrder, at now: Moment) {
        if attachment(order.volume, order.attachment)?.state != .busy {
            note("detach-busy", order.volume, order.instance, at: now.instant)
        }
        changeAttachment(order.volume, order.attachment, at: now) {
            $0.state = .busy
            $0.device = .present
        }
        schedule(
            .unplug(order.volume, attachment: order.attachment),
            at: now.instant + Self.busyRetryTime)
    }

    mutating func endAttachment(_ id: VolumeID, _ number: Int, at now: Moment) {
        guard let attachment = attachment(id, number) else { return }
        let instance = attachment.instance
        change(id, at: now) { (volume: inout Volume) in
            volume.attachments.removeAll { $0.number == number }
            if volume.attachments.isEmpty { volume.state = .available }
        }
        note("detached", id, instance, at: now.instant)
        guard attachment.deleteOnTermination, instances[instance]?.state == .terminated else {
            return
        }
        beginDelete(id, at: now)
    }
}
