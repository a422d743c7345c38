import Base
import Testing
import VolumeCore

@Suite struct AttachingTests {
    // MARK: A failed AttachVolume

    private func recovery(
        _ code: String, _ message: String = "", isAskedAgain: Bool = false,
        isSlotComing: Bool = false
    ) -> AttachRecovery {
        AttachRecovery(
            after: .refused(code: code, message: message, requestID: ""),
            isAskedAgain: isAskedAgain, isSlotComing: isSlotComing)
    }

    @Test func `what EC2 says to an AttachVolume decides what follows`() {
        #expect(recovery("InvalidParameterValue", "/dev/sdf is already in use") == .tryAnotherName)
        #expect(recovery("VolumeInUse") == .lookAgain)
        #expect(recovery("VolumeInUse", isAskedAgain: true) == .lookForAttachment)
        #expect(recovery("AttachmentLimitExceeded", isAskedAgain: true) == .freeSlot)
        #expect(recovery("AttachmentLimitExceeded") == .freeSlot)
        #expect(recovery("AttachmentLimitExceeded", isSlotComing: true) == .lookAgain)
        #expect(recovery("UnauthorizedOperation", isSlotComing: true) == .giveUp)
    }

    @Test func `an AttachVolume that may have been applied is looked for by its name`() {
        let lost = EC2Failure.unanswered(reason: "", mayHaveApplied: true)
        #expect(
            AttachRecovery(after: lost, isAskedAgain: false, isSlotComing: false)
                == .lookForAttachment)
        let unsent: [EC2Failure] = [
            .unanswered(reason: "", mayHaveApplied: false), .malformed(reason: ""),
            .outdated(reason: ""), .noCredentials(reason: ""),
        ]
        for failure in unsent {
            #expect(
                AttachRecovery(after: failure, isAskedAgain: true, isSlotComing: true) == .giveUp)
        }
    }

    // MARK: A device that does not come

    @Test(arguments: [true, false], [true, false])
    func `a device that does not come in time is attached by another name, if it is the plugin's`(
        isAccepted: Bool, isTimeLeft: Bool
    ) {
        func step(_ reason: OperationError.Reason, isOurs: Bool) -> MissingDevice {
            MissingDevice(
                after: reason, isAccepted: isAccepted, isOurs: isOurs, isTimeLeft: isTimeLeft)
        }
        #expect(step(.deadline, isOurs: true) == (isTimeLeft ? .attachByAnotherName : .giveUp))
        #expect(step(.deadline, isOurs: false) == (isTimeLeft ? .leaveToOwner : .giveUp))
        for isOurs in [true, false] {
            #expect(step(.device, isOurs: isOurs) == (isAccepted ? .giveUp : .lookAgain))
            #expect(step(.cloud, isOurs: isOurs) == .giveUp)
        }
    }

    // MARK: Whether an attachment holds

    @Test func `two looks one after the other that do not show an attachment end it`() {
        var proof = AttachmentProof()
        let shown = Situation.here(deviceName: "/dev/sdf")
        let situations = [
            Situation.free, shown, .here(deviceName: "/dev/sdg"), shown, .free, .creating,
        ]
        let holds = situations.map { proof.holds(after: $0, attachedAs: "/dev/sdf") }
        #expect(holds == [true, true, true, true, true, false])
    }

    /// A search that looks at the volume several times.
    private final class Looks {
        private var search = AttachmentSearch()

        func outcome(
            _ situation: Situation, after age: Duration = .zero, deviceName: String? = "/dev/sdf",
            attached: Bool = true, isAnothers: Bool = false
        ) -> AttachmentSearch.Outcome {
            search.outcome(
                of: situation, askedAt: now + age, now: now + age, deviceName: deviceName,
                attachedAt: attached ? now : nil, isAnothers: { _ in isAnothers })
        }
    }

    @Test func `an attachment has ended where two looks that are apart miss it`() {
        var missed = MissedAttachment()
        let apart = now + Limit.tagLagMax
        let first = missed.nextLook(afterLookAt: now, attachedAt: nil)
        let second = missed.nextLook(afterLookAt: apart, attachedAt: nil)
        #expect(first == apart && second == nil)
    }

    @Test func `a look that may be older than the attachment does not end it`() {
        var missed = MissedAttachment()
        let sure = now + Limit.attachmentLagMax
        let first = missed.nextLook(afterLookAt: now, attachedAt: now)
        let early = missed.nextLook(afterLookAt: now + Limit.tagLagMax, attachedAt: now)
        let last = missed.nextLook(afterLookAt: sure, attachedAt: now)
        #expect(first == sure && early == sure && last == nil)
    }

    @Test func `an attachment is found by its own name alone`() {
        let here = Situation.here(deviceName: "/dev/sdf")
        #expect(Looks().outcome(here) == .found(deviceName: "/dev/sdf"))
        #expect(Looks().outcome(here, deviceName: nil) == .found(deviceName: "/dev/sdf"))
        #expect(Looks().outcome(here, deviceName: "/dev/sdg", attached: false) == .missing)
        #expect(Looks().outcome(here, attached: false, isAnothers: true) == .missing)
        #expect(Looks().outcome(.here(deviceName: nil), attached: false) == .missing)
    }

    @Test func `soon after an attachment two looks that are apart have to miss it`() {
        let looks = Looks()
        #expect(looks.outcome(.free) == .lookAgain(at: now + Limit.lookIntervalMin))
        let near = Limit.tagLagMax - .milliseconds(1)
        #expect(looks.outcome(.free, after: near) == .lookAgain(at: now + Limit.tagLagMax))
        #expect(looks.outcome(.free, after: Limit.tagLagMax) == .missing)
    }

    @Test func `long after an attachment one look is enough`() {
        let lag = Limit.attachmentLagMax + Limit.tagLagMax
        #expect(Looks().outcome(.free, after: lag) == .missing)
        #expect(Looks().outcome(.free, after: lag - .milliseconds(1)) != .missing)
    }

    @Test(
        arguments: [
            (unanswered(true), .lookForAttachment, .attached(as: "/dev/sdf", isPresumed: false)),
            // An earlier call of that name may have been applied.
            (refused, .lookForAttachment, .attached(as: "/dev/sdf", isPresumed: false)),
            (refused, .lookAgain, .away(expectsDeparture: false)),
            (refused, .tryAnotherName, .away(expectsDeparture: false)),
            (unanswered(false), .giveUp, .away(expectsDeparture: false)),
        ] as [(EC2Failure, AttachRecovery, VolumeState.Attachment)])
    func `a failed AttachVolume leaves what it may have done`(
        failure: EC2Failure, recovery: AttachRecovery, attachment: VolumeState.Attachment
    ) {
        for wasOurs in [true, false] {
            var state = VolumeState(
                of: VolumeRecord(id: VolumeID(literal: "vol-0123456789abcdef0"), createdAt: 0))
            state.attachBegan(as: "/dev/sdf")
            state.attachFailed(failure, recovery, as: "/dev/sdf", wasOurs: wasOurs, at: now)
            #expect(state.attachment == attachment)
            let isAway = attachment == .away(expectsDeparture: false)
            #expect(state.isOurs == (isAway ? wasOurs : true))
            #expect((state.unansweredName != nil) == (failure == Self.unanswered(true)))
        }
    }

    private static let refused = EC2Failure.refused(
        code: "VolumeInUse", message: "", requestID: "")

    private static func unanswered(_ mayHaveApplied: Bool) -> EC2Failure {
        .unanswered(reason: "", mayHaveApplied: mayHaveApplied)
    }
}

private let now = Instant(nanoseconds: 100_000_000_000)
