import Base
import Testing
import VolumeCore

@Suite struct GiveBackStepTests {
    private func next(
        _ isMounted: Bool, _ hasLease: Bool, _ isHere: Bool, _ linger: Duration?
    ) -> GiveBackStep? {
        GiveBackStep.next(
            isMounted: isMounted, hasLease: hasLease, isHere: isHere, linger: linger)?.step
    }

    @Test func `it is unmounted first, then loses its lease, and is detached last`() {
        for linger in [Duration.zero, .seconds(15)] {
            #expect(next(true, true, true, linger) == .unmount)
            #expect(next(false, true, true, linger) == .dropLease)
            #expect(next(false, false, true, linger) == .detach)
            #expect(next(false, false, false, linger) == nil)
        }
    }

    @Test func `a volume that is not here also loses its lease`() {
        #expect(next(false, true, false, .seconds(15)) == .dropLease)
    }

    @Test func `without a linger it stays attached, but not mounted nor leased`() {
        #expect(next(true, true, true, nil) == .unmount)
        #expect(next(false, true, true, nil) == .dropLease)
        #expect(next(false, false, true, nil) == nil)
    }

    @Test(arguments: [
        (Duration.zero, Duration.zero, Duration.zero), (.seconds(1), .seconds(1), .seconds(1)),
        (.seconds(15), .seconds(15), Limit.leaseDropDelay),
        (.seconds(600), Limit.unusedMountTimeMax, Limit.leaseDropDelay),
        (nil, Limit.unusedMountTimeMax, Limit.leaseDropDelay),
    ])
    func `a long linger only keeps the attachment for so long`(
        linger: Duration?, mount: Duration, lease: Duration
    ) {
        func after(_ isMounted: Bool, _ hasLease: Bool) -> Duration? {
            GiveBackStep.next(
                isMounted: isMounted, hasLease: hasLease, isHere: true, linger: linger)?.after
        }
        #expect(after(true, true) == mount)
        #expect(after(false, true) == lease)
        #expect(after(false, false) == linger)
    }

    private static let lastUse = Instant(nanoseconds: 100_000_000_000)

    /// When a step would be taken that was due at the last use.
    private func due(_ change: (inout GiveBackPace) -> Void) -> Instant {
        var pace = GiveBackPace(since: Self.lastUse)
        change(&pace)
        return pace.due(after: .zero)
    }

    @Test func `a step waits until it is due, and longer after a failure`() {
        let now = Self.lastUse + .seconds(60)
        #expect(due { _ in } == Self.lastUse)
        #expect(due { $0.failed(at: now) } == now + Limit.leaseDropDelay)
        let twice = due {
            $0.failed(at: now)
            $0.failed(at: now)
        }
        #expect(twice == now + Limit.leaseDropDelay * 2)
        var late = GiveBackPace(since: Self.lastUse)
        late.failed(at: now)
        #expect(late.due(after: .seconds(600)) == Self.lastUse + .seconds(600))
    }

    @Test func `only a step that had no effect makes the next one wait`() {
        let now = Self.lastUse + .seconds(60)
        #expect(due { $0.ended(.detach, next: .detach, at: now) } == now + Limit.leaseDropDelay)
        #expect(due { $0.ended(.unmount, next: .dropLease, at: now) } == Self.lastUse)
        #expect(due { $0.ended(.detach, next: nil, at: now) } == Self.lastUse)
    }
}
