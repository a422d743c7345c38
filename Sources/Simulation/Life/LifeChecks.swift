import Base
import VolumeCore

// The invariants that are checked at each step. Those of a life that has settled are in LifeScript.

extension LifeWorld {
    static var callsAtOnce: Double { 80 }
    static var callsPerSecond: Double { 4 }

    /// A token bucket per host: more calls than that are a loop that runs away.
    func checkBudget(of host: Int) {
        guard takeCallToken(of: host) else {
            trace.broke("EC2 calls stay within their budget", "host \(host)")
            return
        }
    }

    func checkMount(
        of device: LifeKernel.Device, by node: BlockDevice, for volume: VolumeID, on host: Int
    ) {
        if device.volume.isPartitioned, !LifeKernel.isPartition(node) {
            trace.broke("a partition is mounted, not its disk", "host \(host), \(volume)")
        }
        guard device.volume.id != volume else { return }
        trace.broke(
            "a volume is mounted from its own device",
            "host \(host) mounts \(device.node.path), volume \(device.volume.index), for \(volume)")
    }

    func checkFormat(of volume: LifeCloud.Volume, as plan: FormatPlan, on host: Int) {
        var isEmpty = volume.content == .blank
        if case .unfinished = volume.content { isEmpty = plan.overwritesUnfinished }
        guard volume.hadContent || !isEmpty else { return }
        trace.broke(
            "nothing is formatted that had content",
            "host \(host) formats volume \(volume.index) with \(volume.content)")
    }

    /// Called as DetachVolume takes effect.
    func checkDetach(
        of volume: LifeCloud.Volume, from owner: Int, by caller: Int, force: Bool
    ) {
        guard let attachment = volume.attachment, attachment.host == owner,
            hosts[owner].isRunning
        else { return }
        let isHeld = hosts[owner].kernel.isHeld(volume)
        if owner == caller {
            if isHeld {
                trace.broke(
                    "a volume that is held is not detached",
                    "host \(caller) detaches its volume \(volume.index)")
            }
            // Without a place for another volume one is given back early.
            if let linger = plan.detachAfter, plan.attachmentsMax == nil,
                let last = hosts[owner].lastUnmounts[volume.index],
                hosts[owner].kernel.device(of: volume) != nil, scheduler.now < last + linger
            {
                trace.broke(
                    "an unused volume lingers", "host \(caller), volume \(volume.index)")
            }
            return
        }
        if plan.takeover == .never {
            trace.broke(
                "no volume is taken where takeover is never",
                "host \(caller) detaches volume \(volume.index) from host \(owner)")
        }
        // An owner may come up between the look at it and the call that follows.
        if force, hosts[owner].bootedAt.map({ $0 + .seconds(5) < scheduler.now }) ?? true {
            trace.broke(
                "only the volumes of instances that are down are detached by force",
                "host \(caller) forces volume \(volume.index) from host \(owner)")
        }
        let holder = volume.tags[LifeCloud.lease]
        if plan.takeover == .unlessMounted, isHeld, holder == cloud.instances[owner].description,
            let since = volume.leaseSince, since + Self.leaseWindow < scheduler.now
        {
            trace.broke(
                "the lease of a running owner is respected",
                "host \(caller) detaches volume \(volume.index) from host \(owner)")
        }
    }

    /// How old a lease is at least that everybody must have seen: the lag of DescribeVolumes, and
    /// the time from such a look to the call that follows from it.
    private static var leaseWindow: Duration { .seconds(12) }

    /// Called as the plugin unmounts.
    func checkUnmount(of volume: Int, on host: Int) {
        let here = hosts[host]
        // What is lost is no use to a container either.
        guard let superBlock = here.kernel.mounts[mountpoint(volume)], superBlock.device.isPresent,
            here.docker.hasRunning(superBlock), !here.uncertain.contains(volume),
            !here.dropped.contains(volume)
        else { return }
        trace.broke(
            "nothing is unmounted under a running container", "host \(host), volume \(volume)")
    }

    /// Called as dockerd has a Mount's answer.
    func checkMountAnswer(of volume: Int, on host: Int, at path: String) {
        let kernel = hosts[host].kernel
        var what: String { "host \(host), volume \(volume)" }
        guard path == mountpoint(volume), let superBlock = kernel.mounts[path] else {
            trace.broke("a Mount that is answered is mounted", what)
            return
        }
        if superBlock.device.volume.index != volume {
            trace.broke("a volume is mounted from its own device", what)
        }
        if superBlock.readOnly != (readOnlyVolume == volume) {
            trace.broke("read-only is read-only", what)
        }
        if superBlock.view < acknowledgedWrites[volume] {
            trace.broke(
                "acknowledged data is there",
                "\(what): \(superBlock.view) writes of \(acknowledgedWrites[volume])")
        }
        if cloud.volumes[volume].tags[LifeCloud.lease] != cloud.instances[host].description,
            superBlock.device.isPresent, !plan.tagsForbidden, readOnlyVolume != volume
        {
            trace.broke("a volume that is mounted bears its lease", what)
        }
        if let attachment = cloud.volumes[volume].attachment, attachment.host == host,
            attachment.endedBy == host
        {
            trace.broke("a Mount that is answered is not being given back", what)
        }
    }

    /// Called as dockerd has a Mount's error.
    func checkRefusal(_ error: any Error, of volume: Int, on host: Int) {
        guard let error = error as? OperationError else { return }
        if error.reason == .noSuchVolume, hosts[host].isCreated(volume),
            !cloud.volumes[volume].isDeleted
        {
            trace.broke("a volume that was created is known", "host \(host), volume \(volume)")
        }
        if error.found.hasSuffix("device names are taken") {
            trace.broke("no device name leaks", "host \(host), volume \(volume)")
        }
    }
}
