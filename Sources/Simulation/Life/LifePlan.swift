import VolumeCore

/// The parameters of a life, drawn from its seed.
struct LifePlan {
    let hosts: Int
    let volumes: Int
    /// Calls of docker that each host's workload makes.
    let operations: Int
    /// How many of a thousand calls to EC2 fail.
    let cloudFaults: Int
    /// How many of a thousand steps of the kernel fail.
    let kernelFaults: Int
    let detachAfter: Duration?
    /// Docker's own timeout of a call, 30 s by default.
    let callTimeout: Duration
    let takeover: TakeoverPolicy
    /// How many of a thousand calls wait in the client before they are sent. Of the calls whose
    /// delay is harmful, a quarter as many take long to arrive.
    let slowCalls: Int
    /// How many of a thousand Mounts meet a Mount of the same volume on another host.
    let rivals: Int
    /// How many of a thousand Mounts are abandoned by their client.
    let cuts: Int
    /// No host may write tags.
    let tagsForbidden: Bool
    /// Only a few device names are free.
    let namesAreScarce: Bool
    /// How late DescribeVolumes may be.
    let lagMax: Duration
    /// Crashes and restarts, whole life.
    let disasters: Int
    /// How many volumes an instance can have, in lives in which this is less than there are.
    var attachmentsMax: Int? { volumes > 1 && operations % 4 == 0 ? volumes - 1 : nil }

    /// A life in which nothing fails and nobody acts unless a test makes it so.
    init(detachAfter: Duration?, takeover: TakeoverPolicy) {
        hosts = 0
        volumes = 0
        operations = 0
        cloudFaults = 0
        kernelFaults = 0
        self.detachAfter = detachAfter
        callTimeout = .seconds(120)
        self.takeover = takeover
        slowCalls = 0
        rivals = 0
        cuts = 0
        tagsForbidden = false
        namesAreScarce = false
        lagMax = .zero
        disasters = 0
    }

    init(_ random: inout SeededRandom) {
        hosts = random.chance(900) ? 2 : 3
        volumes = 1 + random.below(3)
        operations = 3 + random.below(5)
        cloudFaults = random.pick([0, 0, 20, 60, 150]) ?? 0
        kernelFaults = random.pick([0, 0, 10, 40]) ?? 0
        detachAfter =
            random.pick([.seconds(15), .seconds(15), .seconds(15), .seconds(0), .seconds(60), nil])
            ?? nil
        callTimeout = random.chance(600) ? .seconds(30) : .seconds(120)
        takeover =
            random.chance(650) ? .unlessMounted : random.pick(TakeoverPolicy.allCases) ?? .never
        slowCalls = random.pick([0, 0, 0, 20, 100, 300]) ?? 0
        rivals = random.pick([0, 100, 400]) ?? 0
        cuts = random.pick([0, 0, 100]) ?? 0
        tagsForbidden = random.chance(60)
        namesAreScarce = random.chance(200)
        lagMax = random.pick([.zero, .seconds(1), .seconds(3)]) ?? .zero
        disasters = random.pick([0, 1, 2, 4, 6]) ?? 0
    }
}

/// A fault planted in the parts around the manager, to check that the simulation finds it.
package enum PlantedFault: String, CaseIterable, Sendable {
    /// The first device that is here is mistaken for the volume.
    case anyDeviceTaken
    /// The device that the volume had last is taken, whatever it is now.
    case oldDeviceTaken
    /// Anything but a known file system counts as blank.
    case unknownIsBlank
    /// A read error counts as blank.
    case readErrorIsBlank
    /// It is concealed that a volume was created from a snapshot.
    case snapshotForgotten
    /// Tags are not read.
    case leaseIgnored
    /// Tags are not written.
    case leaseNotWritten
    /// Tags are not removed.
    case leaseKept
    /// DescribeVolumes always returns its first response.
    case staleDescribe
    /// A save returns before it is written.
    case saveAcknowledgedEarly
    /// Nothing is ever saved.
    case nothingSaved
    /// The records are not read at the start.
    case nothingLoaded
    /// Mounts that exist at the start are overlooked.
    case mountsNotAdopted
    /// The end of a detachment is not awaited.
    case departureNotAwaited
    /// A device is never held.
    case neverHeld
    /// A failed unmount is no error.
    case unmountErrorDropped
    /// Unmounting does nothing.
    case unmountDropped
    /// A second Mount of an ID is not counted, its Unmount is.
    case countsAreASet
    /// An abandoned call continues, and its response counts as sent.
    case cutCallCounted
    /// Unmount removes any count that exists.
    case unmountTakesAny
    /// DetachVolume is answered but not executed.
    case detachDropped
    /// Calls are sent however old the facts behind them are.
    case sentLate
    /// A look may be arbitrarily old, whatever the host was told before.
    case looksGoBack
    /// It is concealed that an instance is hibernated.
    case hibernationHidden
    /// It is concealed that a volume is a Multi-Attach volume.
    case multiAttachHidden
    /// A host that may not write tags is told that it may.
    case permissionAssumed
    /// A file system that has shut down seems to work.
    case shutDownHidden
    /// Every detachment is forced.
    case detachForced
    /// Volumes are taken where takeover is never.
    case takeoverIgnored
    /// Every other instance seems to be stopped.
    case ownersSeemStopped
    /// A device is awaited forever.
    case arrivalWithoutDeadline
    /// Read-only is not passed to the kernel.
    case readOnlyDropped
    /// Waits end at once.
    case noPatience
    /// The Mount is answered before the volume is mounted.
    case mountAcknowledgedEarly
}
