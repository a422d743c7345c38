import Base
import Testing
import VolumeCore

@Suite struct TakeoverTests {
    private static let id = VolumeID(literal: "vol-0123456789abcdef0")
    private static let owner = InstanceID(literal: "i-0fedcba9876543210")

    private func decide(
        _ policy: TakeoverPolicy, lease: String? = nil
    ) throws(OperationError) -> TakeoverDecision {
        let volume = VolumeDescription(
            id: Self.id, state: .inUse, availabilityZone: "a", size: 1,
            tags: lease.map { [Lease.tag: $0] } ?? [:])
        return try TakeoverDecision(of: volume, from: Self.owner, policy: policy)
    }

    @Test func `without a lease a volume is taken, and never is never`() throws {
        #expect(try decide(.unlessMounted) == .detach)
        #expect(try decide(.always, lease: "\(Self.owner)") == .detach)
        #expect(throws: OperationError.self) { try decide(.never) }
    }

    @Test func `the owner's lease asks for the owner's state, another's is left over`() throws {
        #expect(try decide(.unlessMounted, lease: "\(Self.owner)") == .askOwner)
        #expect(
            try decide(.unlessMounted, lease: "i-0123456789abcdef0") == .detach)
    }

    @Test(arguments: [InstanceDescription.State.stopped, .terminated, nil])
    func `a dead owner's lease is broken`(state: InstanceDescription.State?) throws {
        let decision = try TakeoverDecision(of: Self.id, from: Self.owner, in: state)
        #expect(decision == .detach)
    }

    @Test func `nothing is forced from an instance that EC2 merely does not tell of`() {
        #expect(isDown(.stopped) && isDown(.terminated))
        #expect(!isDown(nil) && !isDown(.running) && !isDown(.stopping) && !isDown(.pending))
    }

    @Test(arguments: [InstanceDescription.State.stopping, .shuttingDown])
    func `an owner on its way down is waited for`(state: InstanceDescription.State) throws {
        #expect(try TakeoverDecision(of: Self.id, from: Self.owner, in: state) == .wait)
    }

    @Test(arguments: [InstanceDescription.State.running, .pending, .other("odd")])
    func `a living owner keeps the volume and is named`(state: InstanceDescription.State) {
        let error = #expect(throws: OperationError.self) {
            try TakeoverDecision(of: Self.id, from: Self.owner, in: state)
        }
        #expect(error?.description.contains("\(Self.owner)") == true)
    }
}
