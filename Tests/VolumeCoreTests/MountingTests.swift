import Base
import Testing
import VolumeCore

@Suite struct MountingTests {
    private func order(
        isSecured: Bool = false, isCertain: Bool = false, bearsVolumeID: Bool = true,
        isSeenHere: Bool = true, isMultiAttach: Bool? = false
    ) -> LeaseOrder {
        LeaseOrder(
            isSecured: isSecured, isCertain: isCertain, bearsVolumeID: bearsVolumeID,
            isSeenHere: isSeenHere, isMultiAttach: isMultiAttach)
    }

    @Test func `a lease that was seen to while the device was awaited is done`() {
        for bears in [true, false] {
            for multi in [nil, true, false] {
                #expect(
                    order(
                        isSecured: true, bearsVolumeID: bears, isSeenHere: false,
                        isMultiAttach: multi) == .done)
            }
        }
    }

    @Test func `a certain lease is one of a device that tells which volume it is`() {
        #expect(order(isCertain: true, isSeenHere: false, isMultiAttach: nil) == .done)
        #expect(order(isCertain: true, bearsVolumeID: false) == .before)
    }

    @Test func `the lease is seen to beside the mounting only where nothing else can be amiss`() {
        #expect(order() == .beside)
        #expect(order(bearsVolumeID: false) == .before)
        #expect(order(isSeenHere: false) == .before)
        #expect(order(isMultiAttach: true) == .before)
        #expect(order(isMultiAttach: nil) == .before)
    }

    @Test func `what the kernel says of a mount decides whether another Mount joins it`() {
        #expect(JoinStep(.mounted, isSameMount: true) == .join)
        #expect(JoinStep(.broken, isSameMount: true) == .remount)
        #expect(JoinStep(.notMounted, isSameMount: true) == .mountAnew)
        for state in [MountState.mounted, .broken, .notMounted] {
            #expect(JoinStep(state, isSameMount: false) == .lookAgain)
        }
    }

    @Test func `a lease that cannot be had keeps no container from its data`() {
        func recovery(_ code: String) -> LeaseRecovery {
            LeaseRecovery(after: .refused(code: code, message: "", requestID: ""))
        }
        #expect(recovery("UnauthorizedOperation") == .goWithout)
        #expect(recovery("TagLimitExceeded") == .goWithout)
        #expect(recovery("InvalidVolume.NotFound") == .giveUp)
        #expect(LeaseRecovery(after: .outdated(reason: "")) == .writeLater)
        #expect(LeaseRecovery(after: .unanswered(reason: "", mayHaveApplied: true)) == .giveUp)
    }

    @Test func `a tag is not removed again where that would fail again`() {
        func isVain(_ code: String) -> Bool {
            isTagRemovalVain(
                after: EC2Failure.refused(code: code, message: "", requestID: ""))
        }
        #expect(isVain("UnauthorizedOperation") && isVain("InvalidVolume.NotFound"))
        #expect(!isVain("InternalError"))
        #expect(!isTagRemovalVain(after: CancellationError()))
    }
}
