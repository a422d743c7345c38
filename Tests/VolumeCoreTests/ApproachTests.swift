import Base
import Testing
import VolumeCore

/// What a Mount does next until EC2 has the volume attached here.
@Suite struct ApproachTests {
    private static let id = VolumeID(literal: "vol-0123456789abcdef0")
    private static let here = InstanceID(literal: "i-0123456789abcdef0")
    private static let owner = InstanceID(literal: "i-0fedcba9876543210")
    private static let start = Instant(nanoseconds: 100_000_000_000)
    private static let deadline = start + Limit.mountTimeMax
    private static let host = Host(instance: here, availabilityZone: "a")

    private func approach(_ policy: TakeoverPolicy = .unlessMounted) -> Approach {
        Approach(of: Self.id, to: Self.host, policy: policy, readOnly: false, since: Self.start)
    }

    private func volume(
        on instance: InstanceID? = nil, as name: String? = "/dev/sdf",
        _ state: VolumeAttachment.State = .attached, tags: [String: String] = [:],
        isCreating: Bool = false
    ) -> VolumeDescription {
        let attachment = instance.map {
            VolumeAttachment(volume: Self.id, instance: $0, device: name, state: state)
        }
        return VolumeDescription(
            id: Self.id, state: isCreating ? .creating : instance == nil ? .available : .inUse,
            availabilityZone: "a", size: 1, attachments: attachment.map { [$0] } ?? [], tags: tags)
    }

    /// An approach that has looked at the volume once, at the start.
    private func looked(
        at volume: VolumeDescription, _ policy: TakeoverPolicy = .unlessMounted,
        isAnothers: Bool = false
    ) throws -> Approach {
        var approach = approach(policy)
        try approach.note(volume, askedAt: Self.start, now: Self.start) { _ in isAnothers }
        return approach
    }

    private func owner(
        _ state: InstanceDescription.State, at instant: Instant = start, root: String? = nil
    ) -> OwnerLook {
        OwnerLook(
            id: Self.owner,
            description: InstanceDescription(id: Self.owner, state: state, rootDeviceName: root),
            askedAt: instant)
    }

    // MARK: Without another look

    @Test func `a volume that was last seen free is attached without another look`() throws {
        var approach = approach()
        try approach.recall(volume(), isAttachUnanswered: false)
        #expect(try approach.next(now: Self.start) == .attach)
        approach.noteNotAttached("it was taken")
        #expect(try approach.next(now: Self.start) == .look)
    }

    @Test func `what was not seen free, or not for sure, is looked at first`() throws {
        #expect(try approach().next(now: Self.start) == .look)
        let seen: [(VolumeDescription, isAttachUnanswered: Bool)] = [
            (volume(), true), (volume(on: Self.here), false), (volume(on: Self.owner), false),
            (volume(on: Self.owner, .detached), false), (volume(isCreating: true), false),
        ]
        for (volume, isAttachUnanswered) in seen {
            var approach = approach()
            try approach.recall(volume, isAttachUnanswered: isAttachUnanswered)
            #expect(try approach.next(now: Self.start) == .look, "\(volume)")
        }
    }

    // MARK: After a look

    @Test func `what a look shows decides the step`() throws {
        let steps: [(VolumeDescription, AttachStep)] = [
            (volume(), .attach), (volume(isCreating: true), .lookAgain(at: nil)),
            (volume(on: Self.here, .attaching), .use(deviceName: "/dev/sdf")),
            (volume(on: Self.here), .use(deviceName: "/dev/sdf")),
            (volume(on: Self.here, .detaching), .lookAgain(at: nil)),
            (volume(on: Self.owner), .askOwner(Self.owner)),
            (volume(on: Self.owner, .busy), .lookAgain(at: nil)),
        ]
        for (volume, step) in steps {
            #expect(try looked(at: volume).next(now: Self.start) == step)
        }
    }

    @Test func `a name that another volume has here shows that the look is old`() throws {
        let approach = try looked(at: volume(on: Self.here), isAnothers: true)
        #expect(try approach.next(now: Self.start) == .lookAgain(at: nil))
    }

    @Test func `an attachment here without a name is no use`() throws {
        let approach = try looked(at: volume(on: Self.here, as: nil))
        #expect(throws: OperationError.self) { try approach.next(now: Self.start) }
    }

    @Test func `a volume that cannot be used is refused as it is looked at`() {
        var other = volume()
        other.availabilityZone = "b"
        #expect(throws: OperationError.self) { try looked(at: other) }
        var approach = approach()
        #expect(throws: OperationError.self) {
            try approach.recall(other, isAttachUnanswered: false)
        }
    }

    @Test func `nothing is asked of EC2 twice on one look`() throws {
        var attaching = try looked(at: volume())
        attaching.noteNotAttached("it was taken")
        #expect(try attaching.next(now: Self.start) == .lookAgain(at: nil))
        var taking = try looked(at: volume(on: Self.owner), .always)
        taking.note(owner(.running))
        let latest = Self.start + Limit.takeoverLookAgeMax
        #expect(
            try taking.next(now: Self.start)
                == .detach(from: Self.owner, force: false, sentBy: latest))
        taking.noteDetach()
        #expect(try taking.next(now: Self.start) == .lookAgain(at: nil))
    }

    // MARK: Pauses

    @Test func `pauses grow, and after each the volume is looked at`() throws {
        var approach = try looked(at: volume(isCreating: true))
        let first = try approach.pause(until: nil, now: Self.start, by: Self.deadline)
        #expect(first == Self.start + Limit.lookIntervalMin)
        #expect(try approach.next(now: first) == .look)
        let second = try approach.pause(until: nil, now: Self.start, by: Self.deadline)
        #expect(second > first)
        let told = Self.start + .seconds(2)
        let third = try approach.pause(until: told, now: Self.start, by: Self.deadline)
        #expect(third == told)
    }

    @Test func `a pause that ends after the deadline tells what keeps the volume`() throws {
        var approach = try looked(at: volume(on: Self.owner, .busy))
        let error = #expect(throws: OperationError.self) {
            try approach.pause(until: Self.deadline, now: Self.start, by: Self.deadline)
        }
        #expect(error?.reason == .deadline)
        #expect(error.map { "\($0)" }?.contains("being detached from \(Self.owner)") == true)
        approach = try looked(at: volume())
        approach.noteNotAttached("EC2 answered VolumeInUse")
        let other = #expect(throws: OperationError.self) {
            try approach.pause(until: Self.deadline, now: Self.start, by: Self.deadline)
        }
        #expect(other.map { "\($0)" }?.contains("EC2 answered VolumeInUse") == true)
    }

    // MARK: Away from another instance

    @Test func `the permission for tags is asked for before a running owner loses the volume`()
        throws
    {
        var approach = try looked(at: volume(on: Self.owner))
        approach.note(owner(.running))
        #expect(try approach.next(now: Self.start) == .askPermission)
        approach.notePermission(true)
        let second = Self.start + Limit.tagLagMax
        #expect(try approach.next(now: Self.start) == .lookAgain(at: second))
        try approach.note(volume(on: Self.owner), askedAt: second, now: second) { _ in false }
        approach.note(owner(.running, at: second))
        #expect(
            try approach.next(now: second)
                == .detach(
                    from: Self.owner, force: false, sentBy: second + Limit.takeoverLookAgeMax))
    }

    @Test func `a lease that was seen to go needs no second look`() throws {
        let lease = [Lease.tag: "\(Self.owner)"]
        var approach = try looked(at: volume(on: Self.owner, tags: lease))
        approach.note(owner(.running))
        approach.notePermission(true)
        #expect(try approach.next(now: Self.start) == .lookAgain(at: nil))
        let later = Self.start + .milliseconds(200)
        try approach.note(volume(on: Self.owner), askedAt: later, now: later) { _ in false }
        #expect(
            try approach.next(now: later)
                == .detach(
                    from: Self.owner, force: false, sentBy: later + Limit.takeoverLookAgeMax))
    }

    @Test func `what was seen of one owner says nothing of the next`() throws {
        let lease = [Lease.tag: "\(Self.owner)"]
        var approach = try looked(at: volume(on: Self.owner, tags: lease))
        approach.note(owner(.running))
        approach.notePermission(true)
        let third = InstanceID(literal: "i-00000000000000003")
        let later = Self.start + .milliseconds(200)
        try approach.note(volume(on: third), askedAt: later, now: later) { _ in false }
        #expect(try approach.next(now: later) == .askOwner(third))
        approach.note(
            OwnerLook(
                id: third, description: InstanceDescription(id: third, state: .running),
                askedAt: later))
        #expect(try approach.next(now: later) == .lookAgain(at: later + Limit.tagLagMax))
    }

    // MARK: By force

    private static let forced = start + Limit.gentleDetachTimeMax

    @Test func `a detachment that does not end is forced after a while where its owner is down`()
        throws
    {
        var approach = try looked(at: volume(on: Self.owner, .busy))
        try approach.note(
            volume(on: Self.owner, .busy), askedAt: Self.forced, now: Self.forced
        ) { _ in false }
        #expect(try approach.next(now: Self.forced) == .askOwner(Self.owner))
        approach.note(owner(.stopped, at: Self.forced))
        #expect(
            try approach.next(now: Self.forced)
                == .detach(
                    from: Self.owner, force: true,
                    sentBy: Self.forced + Limit.ownerLookAgeMax))
        approach.noteDetach()
        #expect(try approach.next(now: Self.forced) == .lookAgain(at: nil))
        try approach.note(
            volume(on: Self.owner, .busy), askedAt: Self.forced, now: Self.forced
        ) { _ in false }
        #expect(try approach.next(now: Self.forced) == .lookAgain(at: nil))
    }

    @Test func `nothing is forced early, nor from an owner that is up, nor on an older look at it`()
        throws
    {
        let early = Self.forced + (.zero - .milliseconds(1))
        var approach = try looked(at: volume(on: Self.owner, .busy))
        #expect(try approach.next(now: early) == .lookAgain(at: nil))
        approach.note(owner(.stopped))
        try approach.note(
            volume(on: Self.owner, .busy), askedAt: Self.forced, now: Self.forced
        ) { _ in false }
        #expect(try approach.next(now: Self.forced) == .askOwner(Self.owner))
        for state in [InstanceDescription.State.running, .stopping, .pending, .shuttingDown] {
            approach.note(owner(state, at: Self.forced))
            #expect(try approach.next(now: Self.forced) == .lookAgain(at: nil))
        }
        approach.note(owner(.stopped, at: Self.forced, root: "/dev/sdf"))
        #expect(throws: OperationError.self) { try approach.next(now: Self.forced) }
    }

    @Test func `the time until a detachment is forced is that of the other instance's alone`()
        throws
    {
        for (first, second) in [(Self.here, Self.owner), (Self.owner, Self.here)] {
            var approach = try looked(at: volume(on: first, .detaching))
            try approach.note(
                volume(on: second, .busy), askedAt: Self.forced, now: Self.forced
            ) { _ in false }
            #expect(try approach.next(now: Self.forced) == .lookAgain(at: nil))
        }
    }

    @Test func `with takeover never, and from this instance, nothing is forced`() throws {
        for (policy, instance) in [(TakeoverPolicy.never, Self.owner), (.always, Self.here)] {
            var approach = try looked(at: volume(on: instance, .detaching), policy)
            try approach.note(
                volume(on: instance, .detaching), askedAt: Self.forced, now: Self.forced
            ) { _ in false }
            #expect(try approach.next(now: Self.forced) == .lookAgain(at: nil))
        }
    }
}
