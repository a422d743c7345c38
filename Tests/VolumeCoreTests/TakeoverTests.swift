import Base
import Testing
import VolumeCore

@Suite struct TakeoverTests {
    private static let id = VolumeID(literal: "vol-0123456789abcdef0")
    private static let owner = InstanceID(literal: "i-0fedcba9876543210")
    private static let look = Instant(nanoseconds: 100_000_000_000)

    /// A volume whose running owner has no lease; this is the second look, just now.
    private func facts(
        _ policy: TakeoverPolicy = .unlessMounted, _ state: InstanceDescription.State? = .running,
        tags: [String: String] = [:]
    ) -> TakeoverFacts {
        let attachment = VolumeAttachment(
            volume: Self.id, instance: Self.owner, device: "/dev/sdf", state: .attached)
        return TakeoverFacts(
            policy: policy, owner: Self.owner,
            volume: VolumeDescription(
                id: Self.id, state: .inUse, availabilityZone: "a", size: 1,
                attachments: [attachment], tags: tags),
            lookedAt: Self.look,
            ownerLook: OwnerLook(
                id: Self.owner,
                description: state.map { InstanceDescription(id: Self.owner, state: $0) },
                askedAt: Self.look),
            hasSeenLease: false, unleasedSince: Self.look + (.zero - Limit.tagLagMax),
            mayLease: true, patience: Self.look)
    }

    private static let leased = [Lease.tag: "\(owner)"]
    private static let soon = TakeoverStep.detach(sentBy: look + Limit.takeoverLookAgeMax)

    private func step(
        _ facts: TakeoverFacts, after age: Duration = .milliseconds(50)
    ) throws(OperationError) -> TakeoverStep {
        try TakeoverStep.next(facts, now: Self.look + age)
    }

    private func refusal(of facts: TakeoverFacts) -> String {
        let error = #expect(throws: OperationError.self) { try step(facts) }
        return error.map { "\($0)" } ?? ""
    }

    @Test func `a volume without a lease is taken, by a request that is sent at once`() throws {
        #expect(try step(facts()) == Self.soon)
        #expect(Limit.takeoverLookAgeMax < Limit.leaseSettleTime)
    }

    @Test func `a look that has become too old is repeated before anything is taken`() throws {
        let late = Limit.takeoverLookAgeMax
        #expect(try step(facts(), after: late) == .lookAgain(at: Self.look + late))
        #expect(try step(facts(.always), after: late) == .lookAgain(at: Self.look + late))
        #expect(
            try step(facts(.unlessMounted, .stopped, tags: Self.leased), after: late)
                == .lookAgain(at: Self.look + late))
    }

    @Test func `nothing is done before the owner was looked at, and that look is new`() throws {
        var unseen = facts(.always)
        unseen.ownerLook = nil
        #expect(try step(unseen) == .askOwner)
        var another = facts(.always)
        another.ownerLook?.id = InstanceID(literal: "i-0123456789abcdef0")
        #expect(try step(another) == .askOwner)
        #expect(try step(facts(.always), after: Limit.ownerLookAgeMax) == .askOwner)
    }

    @Test
    func `a running owner without a lease is looked at twice, unless the lease was seen to go`()
        throws
    {
        var first = facts()
        first.unleasedSince = Self.look
        #expect(try step(first) == .lookAgain(at: Self.look + Limit.tagLagMax))
        first.hasSeenLease = true
        #expect(try step(first) == Self.soon)
    }

    @Test func `never applies even if the owner is down`() {
        for state in [InstanceDescription.State.running, .stopped] {
            #expect(refusal(of: facts(.never, state)).contains("takeover is never"))
        }
    }

    @Test func `always takes a mounted volume, but no root volume`() throws {
        #expect(try step(facts(.always, tags: Self.leased)) == Self.soon)
        var root = facts(.always, .stopped)
        root.ownerLook?.description?.rootDeviceName = "/dev/sdf"
        #expect(refusal(of: root).contains("root volume of \(Self.owner)"))
        root.ownerLook?.description?.rootDeviceName = "/dev/xvda"
        #expect(try step(root) == Self.soon)
    }

    @Test(arguments: [InstanceDescription.State.running, .pending, .other("odd")])
    func `a running owner's lease is waited for, and then protects the volume`(
        state: InstanceDescription.State
    ) throws {
        var patient = facts(.unlessMounted, state, tags: Self.leased)
        #expect(refusal(of: patient).contains("\(Self.owner), which is running"))
        patient.patience = Self.look + .seconds(1)
        #expect(try step(patient) == .lookAgain(at: nil))
    }

    @Test(arguments: [InstanceDescription.State.stopping, .shuttingDown])
    func `an owner that is shutting down is waited for`(state: InstanceDescription.State) throws {
        #expect(
            try step(facts(.unlessMounted, state, tags: Self.leased)) == .lookAgain(at: nil))
    }

    @Test(arguments: [InstanceDescription.State.stopped, .terminated, nil])
    func `the lease of an owner that is down is ignored`(state: InstanceDescription.State?) throws {
        for policy in [TakeoverPolicy.unlessMounted, .ifReleased] {
            #expect(try step(facts(policy, state, tags: Self.leased)) == Self.soon)
        }
    }

    @Test func `a hibernated owner keeps what it has mounted`() {
        var hibernated = facts(.unlessMounted, .stopped, tags: Self.leased)
        hibernated.ownerLook?.description?.isHibernated = true
        #expect(hibernated.ownerLook?.isDown == false)
        #expect(refusal(of: hibernated).contains("hibernated"))
    }

    @Test func `nothing is forced from an instance that EC2 merely does not report`() {
        func isDown(_ state: InstanceDescription.State?) -> Bool? {
            facts(.always, state).ownerLook?.isDown
        }
        #expect(isDown(.stopped) == true && isDown(.terminated) == true)
        for state in [nil, InstanceDescription.State.running, .stopping, .pending] {
            #expect(isDown(state) == false)
        }
    }

    @Test func `a lease of another instance is stale, and blocks nobody`() throws {
        #expect(try step(facts(tags: [Lease.tag: "i-0123456789abcdef0"])) == Self.soon)
    }

    @Test func `if-released takes only what this plugin attached there`() throws {
        let mark = AttachmentMark.value(of: Self.id, on: Self.owner, as: "/dev/sdf")
        #expect(try step(facts(.ifReleased, tags: [AttachmentMark.tag: mark])) == Self.soon)
        let copied = "\(Self.owner) vol-0aaaaaaaaaaaaaaaa /dev/sdf"
        let ended = AttachmentMark.value(of: Self.id, on: Self.owner, as: "/dev/sdg")
        for tags in [[:], [AttachmentMark.tag: copied], [AttachmentMark.tag: ended]] {
            #expect(refusal(of: facts(.ifReleased, tags: tags)).contains("no tag says"))
        }
    }

    @Test func `without leases nothing is taken from a running instance, except with always`()
        throws
    {
        var unknown = facts()
        unknown.mayLease = nil
        #expect(try step(unknown) == .askPermission)
        var forbidden = facts()
        forbidden.mayLease = false
        let refused = refusal(of: forbidden)
        #expect(refused.contains("may not write tags") && refused.contains("ec2:CreateTags"))
        let many = Dictionary(uniqueKeysWithValues: (0..<50).map { ("k\($0)", "") })
        let full = refusal(of: facts(tags: many))
        #expect(full.contains("no room for a tag") && full.contains("remove a tag"))
        #expect(
            try step(facts(tags: many.merging(["aws:a": ""]) { $1 }.filter { $0.key != "k1" }))
                == Self.soon)
        // The lease that another instance left behind gives its place.
        let leftOver = many.filter { $0.key != "k1" }.merging([Lease.tag: "i-0123456789abcdef0"]) {
            $1
        }
        #expect(try step(facts(tags: leftOver)) == Self.soon)
        forbidden.policy = .always
        #expect(try step(forbidden) == Self.soon)
    }
}
