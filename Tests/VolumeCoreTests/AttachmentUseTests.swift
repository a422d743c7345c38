import Base
import Testing
import VolumeCore

@Suite struct AttachmentUseTests {
    private let ours = VolumeID(literal: "vol-0000000000000000a")
    private let root = VolumeID(literal: "vol-0000000000000000b")
    private let foreign = VolumeID(literal: "vol-0000000000000000c")
    private let next = VolumeID(literal: "vol-0000000000000000d")

    /// The instance has its root volume and a foreign one; ours is here or known to be elsewhere.
    private func use(
        max: Int, isShared: Bool = false, interfaces: Int = 1, disks: Int = 0,
        isOursHere: Bool = true
    ) -> AttachmentUse {
        let mappings = [root, foreign, ours].map {
            BlockDeviceMapping(deviceName: "/dev/x", volume: $0)
        }
        let store = BlockDeviceMapping(deviceName: "/dev/sdb", volume: nil)
        return AttachmentUse(
            of: AttachmentLimit(
                instanceType: "m5d.large", volumesMax: max, isShared: isShared,
                instanceStoreDisks: disks),
            on: InstanceDescription(
                id: InstanceID(literal: "i-0123456789abcdef0"), state: .running,
                mappings: mappings + [store], networkInterfaces: interfaces),
            own: isOursHere ? [ours] : [], known: [ours, next])
    }

    @Test func `the root volume, foreign volumes and the plugin's each count once`() {
        #expect(use(max: 3).isFull)
        #expect(!use(max: 4).isFull)
    }

    @Test func `for its own volumes the plugin knows better than an old response`() {
        #expect(!use(max: 3, isOursHere: false).isFull)
    }

    @Test func `network interfaces after the first count if the limit is shared`() {
        #expect(!use(max: 4, isShared: true).isFull)
        #expect(use(max: 4, isShared: true, interfaces: 2).isFull)
        #expect(!use(max: 4, isShared: false, interfaces: 5).isFull)
        #expect(!use(max: 4, isShared: true, interfaces: 0).isFull)
    }

    @Test func `the error has the numbers and what to do`() {
        let error = use(max: 4, isShared: true, interfaces: 2, disks: 1).refusal(
            of: next, kept: [(ours, "it is mounted in a mount namespace")])
        #expect(error.reason == .limitReached)
        let text = "\(error)"
        for part in [
            "attach \(next) to i-0123456789abcdef0", "m5d.large", "4 volumes", "3 volumes",
            "1 of them", "one less for each network interface after the first",
            "2 network interfaces;", "1 of its instance store",
            "place the task on another instance", "\(ours)",
            "it is mounted in a mount namespace",
        ] {
            #expect(text.contains(part), "\(part) is not in: \(text)")
        }
    }

    @Test func `one of a kind is named in the singular`() {
        let text = "\(use(max: 1, isOursHere: false).refusal(of: next, kept: []))"
        #expect(text.contains("have 1 volume;") && text.contains("1 network interface;"))
    }

    @Test func `the error for a dedicated limit omits network interfaces`() {
        let text = "\(use(max: 3).refusal(of: next, kept: []))"
        #expect(!text.contains("one less") && !text.contains("instance store"))
    }
}
