import Base
import Testing
import VolumeCore

@Suite struct RoomTests {
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
            #expect(RoomStep(nil, hasLooked: hasLooked) == .attach)
            #expect(RoomStep(use(of: 1), hasLooked: hasLooked) == .attach)
        }
    }

    @Test func `at the limit EC2 is asked first, then a volume is released`() {
        #expect(RoomStep(use(of: 2), hasLooked: false) == .lookAtInstance)
        #expect(RoomStep(use(of: 2), hasLooked: true) == .release)
    }

    private func lingering(_ index: Int, since second: UInt64, _ isBeingReleased: Bool = false)
        -> LingeringVolume
    {
        LingeringVolume(
            Self.ids[index], unusedSince: Instant(nanoseconds: second * 1_000_000_000),
            isBeingReleased: isBeingReleased)
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
}
