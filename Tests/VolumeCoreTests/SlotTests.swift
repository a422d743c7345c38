import Base
import Testing
import VolumeCore

@Suite struct SlotTests {
    private static let ids = ["a", "b", "c"].map { VolumeID("vol-0000000\($0)") }.compactMap { $0 }

    private func use(of count: Int) -> AttachmentUse {
        let instance = InstanceDescription(
            id: InstanceID(literal: "i-0123456789abcdef0"), state: .running, instanceType: "t")
        return AttachmentUse(
            of: AttachmentLimit(instanceType: "t", volumesMax: 2, isShared: false), on: instance,
            own: Set(Self.ids.prefix(count)), known: [])
    }

    @Test func `below the limit, or where it is not known, nothing is asked`() {
        for hasLooked in [true, false] {
            #expect(SlotStep(nil, hasLooked: hasLooked) == .attach)
            #expect(SlotStep(use(of: 1), hasLooked: hasLooked) == .attach)
        }
    }

    @Test func `at the limit EC2 is asked first, then a volume is released`() {
        #expect(SlotStep(use(of: 2), hasLooked: false) == .lookAtInstance)
        #expect(SlotStep(use(of: 2), hasLooked: true) == .release)
    }

    private func lingering(_ index: Int, since second: UInt64, _ isBeingDetached: Bool = false)
        -> LingeringVolume
    {
        LingeringVolume(
            Self.ids[index], unusedSince: Instant(nanoseconds: second * 1_000_000_000),
            isBeingDetached: isBeingDetached)
    }

    private func released(
        _ volumes: [LingeringVolume], besides barred: Set<VolumeID> = [],
        within time: Duration = Limit.mountTimeMax
    ) -> VolumeID? {
        LingeringVolume.toRelease(of: volumes, besides: barred, within: time)
    }

    @Test func `the volume unused for longest goes first`() {
        let volumes = [lingering(0, since: 3), lingering(1, since: 1), lingering(2, since: 1)]
        #expect(released(volumes) == Self.ids[1])
        #expect(released(volumes, besides: [Self.ids[1]]) == Self.ids[2])
        #expect(released(volumes, besides: Set(Self.ids)) == nil)
        #expect(released([]) == nil)
    }

    @Test func `what is being released already needs as much time as an Unmount may take`() {
        let volumes = [lingering(0, since: 3), lingering(1, since: 1, true)]
        #expect(released(volumes, within: Limit.unmountTimeMax) == Self.ids[1])
        let short = Limit.unmountTimeMax - .milliseconds(1)
        #expect(released(volumes, within: short) == Self.ids[0])
        #expect(released(volumes, within: .zero) == nil)
    }

    // MARK: What takes up the slots

    private static let now = Instant(nanoseconds: 100_000_000_000)

    private func slots(_ volumesMax: Int, mapped: [VolumeID] = []) -> Slots {
        var slots = Slots()
        slots.limitTold(
            AttachmentLimit(instanceType: "t", volumesMax: volumesMax, isShared: false))
        slots.instanceTold(
            InstanceDescription(
                id: InstanceID(literal: "i-0123456789abcdef0"), state: .running,
                instanceType: "t",
                mappings: mapped.map { BlockDeviceMapping(deviceName: "/dev/sdf", volume: $0) }))
        return slots
    }

    private func isFull(
        _ slots: Slots, besides id: VolumeID = ids[0], here: [VolumeID] = [],
        known: Set<VolumeID> = Set(ids)
    ) -> Bool? {
        slots.use(besides: id, here: here, isKnown: { known.contains($0) })?.isFull
    }

    @Test func `without the limit, or what EC2 says of the instance, nothing is known`() {
        var slots = Slots()
        #expect(isFull(slots) == nil)
        slots.limitTold(AttachmentLimit(instanceType: "t", volumesMax: 1, isShared: false))
        #expect(isFull(slots) == nil)
    }

    @Test func `what is here, on its way here or on its way out takes up a slot, each volume once`()
    {
        #expect(isFull(slots(1), here: [Self.ids[1]]) == true)
        #expect(isFull(slots(1), here: [Self.ids[0]]) == false)
        var reserved = slots(1)
        reserved.reserve(Self.ids[1])
        #expect(isFull(reserved) == true && isFull(reserved, besides: Self.ids[1]) == false)
        reserved.releaseBegan(of: Self.ids[1])
        reserved.endReservation(of: Self.ids[1])
        #expect(isFull(reserved) == true && reserved.leaving == [Self.ids[1]])
        reserved.releaseEnded(of: Self.ids[1])
        #expect(isFull(reserved) == false)
        var both = slots(2)
        both.reserve(Self.ids[1])
        both.releaseBegan(of: Self.ids[1])
        #expect(isFull(both, here: [Self.ids[1]]) == false)
    }

    @Test func `what EC2 lists counts where the table does not know it, until EC2 has taken note`()
    {
        var slots = slots(1, mapped: [Self.ids[1]])
        #expect(isFull(slots) == false)
        #expect(isFull(slots, known: []) == true)
        slots.freed(by: Self.ids[1])
        #expect(isFull(slots, known: []) == false)
    }

    @Test func `for some time after a device has gone EC2 may be about to take note`() {
        var slots = Slots()
        #expect(!slots.isOneComing(at: Self.now))
        slots.deviceGone(at: Self.now)
        #expect(slots.isOneComing(at: Self.now + (Limit.slotTimeMax - .milliseconds(1))))
        #expect(!slots.isOneComing(at: Self.now + Limit.slotTimeMax))
    }

    // MARK: The search of a Mount

    private func looked(isAnswered: Bool) -> SlotSearch {
        var search = SlotSearch()
        search.looked(isAnswered: isAnswered)
        return search
    }

    @Test func `EC2 is asked once what is attached, and decides if it cannot be asked`() {
        #expect(SlotSearch().next(use(of: 2)) == .lookAtInstance)
        #expect(looked(isAnswered: true).next(use(of: 2)) == .release)
        #expect(looked(isAnswered: false).next(use(of: 2)) == .attach)
        for search in [SlotSearch(), looked(isAnswered: true), looked(isAnswered: false)] {
            #expect(search.next(use(of: 1)) == .attach && search.next(nil) == .attach)
        }
    }

    @Test func `a volume is released once, and the refusal names those that could not be`() {
        var search = looked(isAnswered: true)
        search.tried(Self.ids[0], failure: nil)
        search.tried(Self.ids[1], failure: CancellationError())
        #expect(search.tried == Set(Self.ids.prefix(2)))
        let advice = search.refusal(of: Self.ids[2], use(of: 2)).advice ?? ""
        #expect(advice.contains("\(Self.ids[1]), which nobody uses"))
        #expect(!advice.contains("\(Self.ids[0])"))
    }

    @Test func `the limit is asked for a few times, unless that is forbidden`() {
        func isUnknowable(_ code: String, _ attempt: Int) -> Bool {
            isLimitUnknowable(
                after: EC2Failure.refused(code: code, message: "", requestID: ""),
                attempt: attempt)
        }
        #expect(isUnknowable("UnauthorizedOperation", 1))
        #expect(!isUnknowable("InternalError", Limit.attachmentLimitTriesMax - 1))
        #expect(isUnknowable("InternalError", Limit.attachmentLimitTriesMax))
    }
}
