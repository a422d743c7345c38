import Base
import VolumeCore

// The invariants that are checked at each step. LifeScript has those of a settled life.

extension LifeWorld {
    static var callsPerSecond: Double { 4 }

    /// A token bucket per host: more calls than that mean a runaway loop.
    func checkBudget(of host: Int) {
        guard takeCallToken(of: host) else {
            trace.broke("EC2 calls stay within their budget", "host \(host)")
            return
        }
    }

    func checkMount(
        of device: LifeKernel.Device, by node: BlockDevice, for volume: VolumeID, on host: Int,
        readOnly: Bool
    ) {
        if device.volume.isMultiAttach, !readOnly, isMultiAttachKnowable(device.volume, to: host) {
            trace.broke(
                "a Multi-Attach volume is not mounted writable", "host \(host), \(volume)")
        }
        if device.volume.isPartitioned, !LifeKernel.isPartition(node) {
            trace.broke("a partition is mounted, not its disk", "host \(host), \(volume)")
        }
        guard device.volume.id != volume else { return }
        trace.broke(
            "a volume is mounted from its own device",
            "host \(host) mounts \(device.node.path), volume \(device.volume.index), for \(volume)")
    }

    /// Whether the host would know, if it had looked since EC2 reports it.
    private func isMultiAttachKnowable(_ volume: LifeCloud.Volume, to host: Int) -> Bool {
        let looks = cloud.looks(at: volume, by: host, until: scheduler.now)
        guard let look = looks.last else { return true }
        return look.isWild
            ? false
            : look.told >= volume.multiAttachVersion || look.newest < volume.multiAttachVersion
    }

    /// Called before a step that writes to a volume, whatever is mounted.
    func checkChange(_ what: String, _ volume: LifeCloud.Volume, on host: Int) {
        guard hosts[host].isLongReadOnly(volume.index) else { return }
        trace.broke("read-only is not written", "host \(host) \(what) volume \(volume.index)")
    }

    /// Called when something mounted is changed.
    func checkChange(_ what: String, _ superBlock: LifeKernel.SuperBlock, on host: Int) {
        guard superBlock.readOnly else { return }
        trace.broke(
            "read-only is not written",
            "host \(host) \(what) volume \(superBlock.device.volume.index)")
    }

    func checkFormat(
        of volume: LifeCloud.Volume, for id: VolumeID, as plan: FormatPlan, on host: Int
    ) {
        if volume.id != id {
            trace.broke(
                "nothing is formatted but the volume", "host \(host) formats \(volume.id) for \(id)"
            )
        }
        var isEmpty = volume.content == .blank
        if case .unfinished = volume.content { isEmpty = plan.overwritesUnfinished }
        guard volume.hadContent || !isEmpty else { return }
        trace.broke(
            "nothing is formatted that had content",
            "host \(host) formats volume \(volume.index) with \(volume.content)")
    }

    /// Called when DetachVolume takes effect.
    func checkDetach(
        of volume: LifeCloud.Volume, from owner: Int, by caller: Int, force: Bool,
        _ call: LifeCloud.Call
    ) {
        guard let attachment = volume.attachment(on: owner), !attachment.isLeaving || force else {
            return
        }
        // A call that takes seconds to arrive can meet a state that nobody could foresee.
        attachment.isJudged = call.isLate
        guard hosts[owner].isRunning, !call.isLate else { return }
        if owner == caller {
            checkGivingBack(volume, by: caller)
        } else {
            checkTaking(volume, from: owner, by: caller, force: force, call)
        }
    }

    /// A host detaches its own volume.
    private func checkGivingBack(_ volume: LifeCloud.Volume, by host: Int) {
        if let attachment = volume.attachment(on: host), attachment.isByHand,
            !isConfusing(attachment, of: volume)
        {
            trace.broke(
                "what somebody attached by hand stays", "host \(host), volume \(volume.index)")
        }
        if hosts[host].kernel.isLongHeld(volume) {
            trace.broke(
                "a volume that is held is not detached",
                "host \(host) detaches its volume \(volume.index)")
        }
        // If there is no room for another volume, one is released early.
        if let linger = plan.detachAfter, plan.attachmentsMax == nil,
            let last = hosts[host].lastUnmounts[volume.index],
            hosts[host].kernel.device(of: volume) != nil, scheduler.now < last + linger
        {
            trace.broke("an unused volume lingers", "host \(host), volume \(volume.index)")
        }
    }

    /// Whether somebody ended the plugin's own attachment and made another one instead, or made one
    /// with the name of the last one, whose detachment the daemon could not record because it was
    /// killed.
    private func isConfusing(
        _ attachment: LifeCloud.Attachment, of volume: LifeCloud.Volume
    ) -> Bool {
        guard let last = volume.lastAttachment, last.host == attachment.host, !last.isByHand else {
            return false
        }
        if last.endedBy != attachment.host { return true }
        guard last.name == attachment.name, let asked = last.leavingSince,
            let since = hosts[attachment.host].daemon?.upSince
        else { return false }
        return asked < since
    }

    /// A host detaches a volume from another one that is running.
    private func checkTaking(
        _ volume: LifeCloud.Volume, from owner: Int, by caller: Int, force: Bool,
        _ call: LifeCloud.Call
    ) {
        var what: String { "host \(caller) detaches volume \(volume.index) from host \(owner)" }
        if plan.takeover == .never {
            trace.broke("no volume is taken where takeover is never", what)
        }
        // An owner may start between the look at it and the call that follows.
        let isNew =
            hosts[owner].bootedAt.map {
                scheduler.now <= $0 + .milliseconds(3500) + plan.lagMax
            } ?? false
        if force, !isNew {
            trace.broke("only the volumes of instances that are down are detached by force", what)
        }
        guard plan.takeover != .always else { return }
        // An instance that EC2 does not know counts as gone, and so does one that has just started,
        // for as long as a look at it may be old.
        if isNew { volume.attachment(on: owner)?.isJudged = true }
        let lease = volume.leaseSince
        if isNew, let booted = hosts[owner].bootedAt, let lease, lease < booted,
            !hosts[owner].kernel.isHeld(volume, since: booted)
        {
            return
        }
        if let unknown = cloud.unknownUntil[owner], scheduler.now < unknown + .seconds(5) {
            volume.attachment(on: owner)?.isJudged = true
            return
        }
        if hosts[caller].tagsForbidden, !isNew {
            trace.broke("who may not write tags takes nothing from who runs", what)
        }
        if plan.takeover.rawValue == "if-released", !isNew, !isDisturbed(volume),
            let look = cloud.looks(at: volume, by: caller, until: call.sentAt).last, !look.isWild,
            look.mark != "\(cloud.instances[owner]) \(volume.id) \(look.name ?? "")"
        {
            trace.broke("if-released takes what the plugin has released", what)
        }
        // A removed lease need not be back yet.
        if isDisturbed(volume) { volume.attachment(on: owner)?.isJudged = true }
        guard let since = volume.leaseSince,
            volume.tags[LifeCloud.lease] == cloud.instances[owner].description,
            since + Self.lastLook < scheduler.now
        else { return }
        volume.attachment(on: owner)?.isJudged = true
        guard isKnowable(since, on: volume, to: caller, call) else { return }
        if hosts[owner].kernel.isHeld(volume) {
            trace.broke("no host detaches what another has mounted", what)
        } else {
            trace.broke("the lease of a running owner is respected", what)
        }
    }

    /// How long after writing its lease an owner looks for the last time, and sees whether somebody
    /// who had looked before took the volume.
    private static var lastLook: Duration { .milliseconds(300) }

    /// Whether a host that looks correctly knows of a lease that was written at that time. It does
    /// not if an outdated look is the first to show that the previous lease has gone, or if the
    /// second look is outdated and the lease was written after the first.
    private func isKnowable(
        _ since: Instant, on volume: LifeCloud.Volume, to host: Int, _ call: LifeCloud.Call
    ) -> Bool {
        var looks = cloud.looks(at: volume, by: host, until: call.sentAt)
        guard let last = looks.popLast(), last.at >= since else { return true }
        let holder = volume.tags[LifeCloud.lease]
        if last.lease == holder { return true }
        if last.isWild || looks.contains(where: \.isWild) { return false }
        if looks.contains(where: { $0.lease == holder }) { return false }
        return looks.last { $0.at + .seconds(2) <= last.at }.map { $0.at >= since } ?? true
    }

    /// Called when a host drops its lease.
    func checkLeaseDrop(of volume: LifeCloud.Volume, by host: Int, _ call: LifeCloud.Call) {
        guard !call.isLate, hosts[host].isRunning, hosts[host].kernel.isLongHeld(volume) else {
            return
        }
        trace.broke("a volume that is held bears its lease", "host \(host), volume \(volume.index)")
    }

    /// Called when a lease is written.
    func checkLease(on volume: LifeCloud.Volume, by host: Int, _ call: LifeCloud.Call) {
        guard !call.isLate, plan.takeover != .always, let attachment = volume.attachment,
            attachment.host != host, hosts[attachment.host].isRunning,
            volume.tags[LifeCloud.lease] == cloud.instances[attachment.host].description,
            hosts[attachment.host].kernel.isHeld(volume)
        else { return }
        trace.broke(
            "the lease of a host that has the volume mounted is not written over",
            "host \(host) writes over that of host \(attachment.host) on volume \(volume.index)")
    }

    /// Called when the plugin unmounts.
    func checkUnmount(of volume: Int, on host: Int) {
        let here = hosts[host]
        // A lost mount is of no use to a container either.
        guard let superBlock = here.kernel.mounts[mountpoint(volume)], superBlock.device.isPresent,
            !superBlock.isShutDown,
            here.docker.hasRunning(superBlock), !here.uncertain.contains(volume),
            !here.dropped.contains(volume)
        else { return }
        trace.broke(
            "nothing is unmounted under a running container", "host \(host), volume \(volume)")
    }

    /// Called when dockerd receives the response to a Mount.
    func checkMountAnswer(of volume: Int, on host: Int, at path: String, sentAt: Instant) {
        let kernel = hosts[host].kernel
        var what: String { "host \(host), volume \(volume)" }
        guard path == mountpoint(volume), let superBlock = kernel.mounts[path] else {
            // Somebody may unmount it while the response is in transit.
            if let since = kernel.unmountedByHand[volume],
                scheduler.now < since + .milliseconds(100)
            {
                return
            }
            trace.broke("a Mount that is answered is mounted", what)
            return
        }
        if superBlock.device.volume.index != volume {
            trace.broke("a volume is mounted from its own device", what)
        }
        if let isReadOnly = hosts[host].isReadOnly(volume), superBlock.readOnly != isReadOnly {
            trace.broke("read-only is read-only", what)
        }
        if let since = superBlock.shutDownSince, since + .milliseconds(100) < sentAt {
            trace.broke("no Mount is answered on a file system that has shut down", what)
        }
        if superBlock.view < acknowledgedWrites[volume] {
            trace.broke(
                "acknowledged data is there",
                "\(what): \(superBlock.view) writes of \(acknowledgedWrites[volume])")
        }
        if let gone = superBlock.device.goneSince {
            // It may disappear while the response is in transit.
            if gone + .seconds(1) < sentAt {
                trace.broke("no Mount is answered on a device that has gone", what)
            }
            return
        }
        checkHold(on: cloud.volumes[volume], by: host)
    }

    /// A volume whose Mount was answered belongs to the host, and its lease says so.
    private func checkHold(on volume: LifeCloud.Volume, by host: Int) {
        var what: String { "host \(host), volume \(volume.index)" }
        if volume.tags[LifeCloud.lease] != cloud.instances[host].description,
            !hosts[host].tagsForbidden, hosts[host].isReadOnly(volume.index) != true,
            !volume.isMultiAttach, !isDisturbed(volume)
        {
            trace.broke("a volume that is mounted bears its lease", what)
        }
        guard let attachment = volume.attachment(on: host), attachment.isLeaving,
            !attachment.isJudged, let other = attachment.endedBy
        else { return }
        if other == host {
            trace.broke("a Mount that is answered is not being given back", what)
        } else if plan.takeover != .always, !hosts[host].tagsForbidden {
            guard isOverlooked(attachment, of: volume, by: host) else {
                return trace.broke("a Mount that is answered is not being taken", what)
            }
            // If it stays while it is mounted, others join that mount.
            attachment.isJudged = true
        }
    }

    /// Whether the owner's last look was too outdated to show that the volume is being taken.
    private func isOverlooked(
        _ attachment: LifeCloud.Attachment, of volume: LifeCloud.Volume, by host: Int
    ) -> Bool {
        guard let look = cloud.looks(at: volume, by: host, until: scheduler.now).last,
            let since = attachment.leavingSince
        else { return false }
        return look.at >= since && look.told < attachment.leavingVersion
    }

    /// Whether a removed or overwritten lease need not be back yet.
    func isDisturbed(_ volume: LifeCloud.Volume) -> Bool {
        volume.disturbedAt.map { scheduler.now < $0 + .seconds(360) } ?? false
    }

    /// Called when dockerd receives the error of a Mount.
    func checkRefusal(_ error: any Error, of volume: Int, on host: Int) {
        guard let error = error as? OperationError else { return }
        if error.reason == .noSuchVolume, hosts[host].isCreated(volume),
            !cloud.volumes[volume].isDeleted
        {
            trace.broke("a volume that was created is known", "host \(host), volume \(volume)")
        }
        if error.found.hasPrefix("EC2 accepted the attachment, and now says"),
            let attachment = cloud.volumes[volume].attachment(on: host), !attachment.isLeaving,
            !attachment.isByHand, attachment.since + .seconds(4) < scheduler.now
        {
            trace.broke(
                "no attachment is given up for an old look", "host \(host), volume \(volume)")
        }
        if error.found.hasSuffix("device names are taken") {
            trace.broke("no device name leaks", "host \(host), volume \(volume)")
        }
    }
}
