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
}
