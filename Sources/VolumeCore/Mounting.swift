package import Base

/// When the lease of a volume whose device is here is seen to, seen from the mounting.
package enum LeaseOrder: Sendable, Equatable {
    /// It is there: it was written, and seen by a look after that.
    case done
    /// While the file system is mounted.
    case beside
    /// Before the file system is mounted.
    case before

    /// It goes on beside the mounting where nothing but the lease can be amiss: the device tells
    /// which volume it is, which on Xen EC2 alone knows, and a look since its attachment, in this
    /// run, has shown that it is no Multi-Attach volume.
    ///
    /// - Parameters:
    ///   - isSecured: whether the lease was seen to while this Mount awaited the device.
    ///   - isCertain: whether an earlier Mount saw to it, and no removal has begun since.
    ///   - bearsVolumeID: whether the device tells which volume it is.
    ///   - isSeenHere: whether a look of this run has shown the present attachment.
    ///   - isMultiAttach: nil where it is not known.
    package init(
        isSecured: Bool, isCertain: Bool, bearsVolumeID: Bool, isSeenHere: Bool,
        isMultiAttach: Bool?
    ) {
        if isSecured || isCertain && bearsVolumeID {
            self = .done
        } else {
            self =
                bearsVolumeID && isSeenHere && isMultiAttach == false ? .beside : .before
        }
    }
}

/// What to do about a volume that is thought to be mounted, as another Mount of it comes.
package enum JoinStep: Sendable, Equatable {
    /// It is mounted, and works.
    case join
    /// Its file system has shut down: unmount it, and mount it anew.
    case remount
    /// Somebody has unmounted it.
    case mountAnew
    /// It was unmounted or mounted anew while it was looked at.
    case lookAgain

    /// - Parameter isSameMount: whether it is still the mount that was looked at.
    package init(_ state: MountState, isSameMount: Bool) {
        guard isSameMount else {
            self = .lookAgain
            return
        }
        self =
            switch state {
            case .mounted: .join
            case .broken: .remount
            case .notMounted: .mountAnew
            }
    }
}
