import Base
import Testing
import VolumeCore

@Suite struct LeaseProofTests {
    private static let here = InstanceID(literal: "i-0123456789abcdef0")
    private static let other = InstanceID(literal: "i-0fedcba9876543210")

    /// A volume that is attached here, with that instance's lease.
    private static func volume(
        leasedBy instance: InstanceID?, isMultiAttach: Bool = false
    ) -> VolumeDescription {
        VolumeDescription(
            id: VolumeID(literal: "vol-0123456789abcdef0"), state: .inUse,
            availabilityZone: "eu-west-1a", size: 1, multiAttachEnabled: isMultiAttach,
            tags: instance.map { [Lease.tag: $0.description] } ?? [:])
    }

    private static let own = volume(leasedBy: here)
    private static let bare = volume(leasedBy: nil)
    private static let others = volume(leasedBy: other)
    private static let shared = volume(leasedBy: here, isMultiAttach: true)

    private func steps(
        _ writings: [LeaseWriting], seen: VolumeDescription?, isTimeLeft: Bool = true
    ) -> [LeaseProof.Step] {
        var proof = LeaseProof()
        return writings.map {
            proof.next(after: $0, seen: seen, on: Self.here, isTimeLeft: isTimeLeft)
        }
    }

    @Test(
        arguments: [
            // The first column is what the look shows.
            (nil, .notHere, .notHere, .notHere),
            (own, .certain, .goWithout, .writeAgain),
            (bare, .writeAgain, .goWithout, .writeAgain),
            (others, .writeAgain, .goWithout, .writeAgain),
            (shared, .goWithout, .goWithout, .goWithout),
        ]
            as [(VolumeDescription?, LeaseProof.Step, LeaseProof.Step, LeaseProof.Step)])
    func `what a look shows decides whether the lease is written again`(
        seen: VolumeDescription?, done: LeaseProof.Step, refused: LeaseProof.Step,
        outdated: LeaseProof.Step
    ) {
        #expect(steps([.done], seen: seen) == [done])
        #expect(steps([.refused], seen: seen) == [refused])
        #expect(steps([.outdated], seen: seen) == [outdated])
    }

    @Test func `a lease that EC2 does not show is written a few times`() {
        let tries = Limit.leaseTriesMax
        let expected = Array(repeating: LeaseProof.Step.writeAgain, count: tries - 1)
        let written = Array(repeating: LeaseWriting.done, count: tries)
        #expect(steps(written, seen: Self.others) == expected + [.leaveUnproved])
        // What was never sent does not count.
        let unsent = Array(repeating: LeaseWriting.outdated, count: 2 * tries)
        #expect(steps(unsent, seen: Self.others).allSatisfy { $0 == .writeAgain })
    }

    @Test func `when the time is over, only a certain answer ends it well`() {
        #expect(steps([.done], seen: Self.own, isTimeLeft: false) == [.certain])
        #expect(steps([.refused], seen: Self.bare, isTimeLeft: false) == [.goWithout])
        #expect(steps([.done], seen: Self.bare, isTimeLeft: false) == [.giveUp])
        #expect(steps([.outdated], seen: Self.own, isTimeLeft: false) == [.giveUp])
    }

    @Test func `a look at a mounted volume shows whether it is here, and has its lease`() throws {
        let host = Host(instance: Self.here, availabilityZone: "eu-west-1a")
        func check(_ seen: VolumeDescription, on instance: InstanceID?) throws -> LeaseCheck {
            var seen = seen
            seen.attachments =
                instance.map {
                    [
                        VolumeAttachment(
                            volume: seen.id, instance: $0, device: "/dev/sdf", state: .attached)
                    ]
                } ?? []
            return try LeaseCheck(seen, on: host)
        }
        #expect(try check(Self.own, on: Self.here) == .held)
        #expect(try check(Self.bare, on: Self.here) == .missing)
        #expect(try check(Self.others, on: Self.here) == .missing)
        #expect(try check(Self.own, on: Self.other) == .taken(.elsewhere(Self.other)))
        #expect(try check(Self.own, on: nil) == .taken(.free))
    }
}
