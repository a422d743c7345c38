import Base
import Testing
import VolumeCore

@Suite struct MountCountsTests {
    @Test func `an ID that mounted twice is still there after one Unmount`() throws {
        var counts = MountCounts()
        try counts.add("a")
        try counts.add("a")
        let first = counts.remove("a")
        #expect(first && !counts.isEmpty)
        let second = counts.remove("a")
        #expect(second && counts.isEmpty)
    }

    @Test func `an Unmount of an ID that mounted nothing removes no count`() throws {
        var counts = MountCounts()
        try counts.add("a")
        let removed = counts.remove("b")
        #expect(!removed)
        #expect(counts.total == 1)
    }

    @Test func `the table is bounded, and a full one still counts the IDs it has`() throws {
        var counts = MountCounts()
        for number in 0..<Limit.mountIDsMax { try counts.add("\(number)") }
        #expect(throws: OperationError.self) { try counts.add("one more") }
        #expect(throws: Never.self) { try counts.add("0") }
    }

    @Test func `an ID's count is bounded, also one that was read from a damaged file`() throws {
        var counts = MountCounts(["a": .max, "b": .max, "c": Limit.mountsPerIDMax - 1])
        #expect(counts.total == 3 * Limit.mountsPerIDMax - 1)
        #expect(throws: OperationError.self) { try counts.add("a") }
        try counts.add("c")
        #expect(throws: OperationError.self) { try counts.add("c") }
        let removed = counts.remove("c")
        #expect(removed)
        #expect(throws: Never.self) { try counts.add("c") }
    }

    @Test func `names are known while anything is counted, and no longer`() throws {
        var counts = MountCounts()
        try counts.add("a", by: "data")
        try counts.add("b", by: "logs")
        _ = counts.remove("a")
        #expect(counts.names == ["data", "logs"])
        #expect(MountCounts(counts.counts, names: counts.names).names == ["data", "logs"])
        _ = counts.remove("b")
        #expect(counts.names.isEmpty)
        #expect(MountCounts(["a": 0], unanswered: ["a"], names: ["data"]) == MountCounts())
    }
}

@Suite struct VolumeRecordTests {
    private static let idle = VolumeRecord(
        id: VolumeID(literal: "vol-1a2b3c4d"), name: "data", createdAt: 1)

    private static let changes: [@Sendable (inout VolumeRecord) -> Void] = [
        { $0.deviceName = "/dev/sdf" }, { $0.isOurs = true }, { $0.hasLease = true },
        { $0.names = [] }, { $0.isFormatting = true }, { $0.isOwnershipDue = true },
        { $0.names[0].options.readOnly = true },
    ]

    /// If a volume is not at rest, something of it may be here; only the first four say so.
    @Test(arguments: changes.indices)
    func `every saved property of a volume makes a difference`(index: Int) {
        var record = Self.idle
        Self.changes[index](&record)
        #expect(!record.isSavedLike(Self.idle) && !Self.idle.isSavedLike(record))
        #expect(record.isAtRest == (index > 3))
    }

    @Test func `a volume with counts is not at rest, and they are saved apart`() throws {
        var record = Self.idle
        #expect(record.isAtRest)
        try record.mounts.add("x", by: "data")
        #expect(!record.isAtRest && record.isSavedLike(Self.idle))
    }
}

@Suite struct VolumeOptionsTests {
    @Test func `every option survives being saved`() throws {
        let given = [
            "fs-type": "ext4", "gid": "0", "mkfs-legacy": "true", "mode": "2770",
            "mount-options": "noatime,logbsize=64k", "partition": "128", "read-only": "true",
            "takeover": "unless-mounted", "uid": "4294967294",
            "volume-id": "vol-0123456789abcdef0",
        ]
        #expect(given.keys.sorted() == VolumeOptions.known)
        let options = try VolumeOptions(given)
        #expect(options.mode == 0o2770 && options.uid == 4_294_967_294 && options.gid == 0)
        #expect(options.mountOptions == ["noatime", "logbsize=64k"])
        #expect(options.fileSystem == .ext4 && options.partition == 128)
        #expect(options.takeover == .unlessMounted)
        #expect(options.dictionary == given)
        #expect(try VolumeOptions(options.dictionary) == options)
    }

    @Test(arguments: [
        ("mode", "0755", "755"), ("mode", "0", "0"), ("mode", "00007", "7"), ("uid", "007", "7"),
        ("mount-options", ",noatime,,nodev,", "noatime,nodev"), ("mount-options", "", nil),
        ("read-only", "", "true"), ("mkfs-legacy", "false", nil),
        ("read-only", "false", nil),
    ])
    func `a value is saved in one form`(name: String, text: String, kept: String?) throws {
        #expect(try VolumeOptions([name: text]).dictionary[name] == kept)
    }

    @Test(arguments: [
        ("fs-type", "ntfs"), ("fs-type", ""), ("fs-type", "XFS"), ("uid", "-1"), ("uid", ""),
        ("uid", "+5"), ("mode", "+7"), ("partition", "+1"),
        ("uid", "4294967295"), ("uid", "18446744073709551616"), ("gid", "root"), ("gid", " 1"),
        ("mode", "08"), ("mode", "10000"), ("mode", "rwxr-x---"), ("mode", "-1"), ("mode", ""),
        ("mode", "000000"), ("partition", "0"), ("partition", "129"), ("partition", "١"),
        ("takeover", "yes"), ("volume-id", "vol-1"), ("volume-id", "vol-0123456789ABCDEF0"),
        ("mount-options", "norecovery"), ("mount-options", "rw"), ("mount-options", "logbufs"),
        ("mount-options", "logbufs=1"), ("mount-options", "noatime=1"), ("mount-options", "x y"),
        ("mount-options", "errors=continue"), ("mount-options", "data=writeback"),
    ])
    func `an invalid value is rejected, and named with its option`(
        name: String, text: String
    ) throws {
        let error = try #require(
            #expect(throws: OperationError.self) { try VolumeOptions([name: text]) })
        #expect(error.reason == .invalidInput)
        #expect(error.doing.hasPrefix("use the option \(name)="))
    }

    @Test func `norecovery needs read-only, and determines the access`() throws {
        #expect(throws: OperationError.self) { try VolumeOptions(["mount-options": "norecovery"]) }
        let both = try VolumeOptions(["mount-options": "norecovery,noatime", "read-only": "true"])
        #expect(try both.mountOptions(for: "ext4") == ["noatime"])
        #expect(try VolumeOptions(both.dictionary) == both)
        let single = VolumeDescription(
            id: VolumeID(literal: "vol-0123456789abcdef0"), state: .inUse,
            availabilityZone: "eu-west-1a", size: 1)
        var shared = single
        shared.multiAttachEnabled = true
        #expect(both.access(to: single) == .withoutReplay)
        #expect(VolumeOptions(readOnly: true).access(to: single) == .readOnly)
        #expect(VolumeOptions(readOnly: true).access(to: shared) == .withoutReplay)
        #expect(VolumeOptions().access(to: single) == .writable)
    }

    @Test func `the error for a forbidden mount option names the allowed ones`() {
        #expect(MountOption.advice(about: "ro") == "use -o read-only=true")
        let advice = MountOption.advice(about: "rw")
        for option in ["noatime", "inode64", "logbufs=…", "logbsize=…"] {
            #expect(advice.contains(option))
        }
        #expect(!advice.contains("inode64=") && !advice.contains("read-only"))
    }

    @Test(arguments: ["inode64", "logbufs=8", "logbsize=256k"])
    func `a mount option for xfs accepts its values`(text: String) throws {
        let options = try VolumeOptions(["mount-options": text])
        #expect(try options.mountOptions(for: "xfs") == [text])
        #expect(throws: OperationError.self) { try options.mountOptions(for: "ext4") }
    }

    @Test(arguments: ["inode64=", "inode64=1", "logbufs", "logbufs=", "logbufs=9", "logbsize=1k"])
    func `a mount option for xfs with another value is refused`(text: String) {
        #expect(throws: OperationError.self) { try VolumeOptions(["mount-options": text]) }
    }

    @Test func `a mount option for one file system is refused for another`() throws {
        let options = try VolumeOptions(["mount-options": "noatime,logbufs=4"])
        #expect(try options.mountOptions(for: "xfs") == ["noatime", "logbufs=4"])
        #expect(throws: OperationError.self) { try options.mountOptions(for: "ext4") }
    }

    @Test(arguments: [
        ("fs-type", "ext4", "xfs", "ext4"), ("partition", "2", "none", "2"),
        ("read-only", "true", "false", "true"),
        ("mount-options", "nodev,noatime", "none", "noatime,nodev"),
    ])
    func `the options of two names that cannot both be mounted conflict`(
        name: String, value: String, own: String, others: String
    ) throws {
        let conflict = VolumeOptions().conflict(
            with: try VolumeOptions([name: value]), fileSystem: .xfs)
        let found = try #require(conflict)
        #expect(found == (name, own, others))
    }

    @Test func `options that are the same in effect are no conflict`() throws {
        let one = try VolumeOptions(["mount-options": "nodev,noatime", "uid": "1"])
        let same = try VolumeOptions(["mount-options": "noatime,nodev", "fs-type": "xfs"])
        #expect(one.conflict(with: same, fileSystem: .xfs) == nil)
        #expect(one.conflict(with: same, fileSystem: .ext4) != nil)
    }

    @Test func `options are read and written back`() throws {
        let options = try VolumeOptions(["read-only": "", "mkfs-legacy": "true"])
        #expect(options.readOnly && options.legacyFormat)
        #expect(try VolumeOptions(options.dictionary) == options)
        #expect(try VolumeOptions(["read-only": "false"]) == VolumeOptions())
    }

    @Test func `an unknown option is refused with the known ones named`() {
        let error = #expect(throws: OperationError.self) { try VolumeOptions(["colour": "red"]) }
        for name in VolumeOptions.known { #expect(error?.description.contains(name) == true) }
    }

    @Test func `a value that is not boolean is rejected`() {
        #expect(throws: OperationError.self) { try VolumeOptions(["read-only": "yes please"]) }
    }

    @Test func `text from outside is shown short and printable`() {
        #expect(quoted("a\n\u{1b}[31m\"é") == "\"a??[31m??\"")
        #expect(quoted(String(repeating: "x", count: 300)).count == 67)
    }
}

@Suite struct DeviceNamesTests {
    @Test func `all 63 names can be taken, each once`() {
        var names = DeviceNames()
        var taken: Set<String> = []
        while let name = names.take() { #expect(taken.insert(name).inserted) }
        #expect(taken.count == 63)
        #expect(taken.contains("/dev/sdf") && taken.contains("/dev/xvdcz"))
    }

    @Test func `a released name is the last to be used again`() {
        var names = DeviceNames()
        let first = names.take() ?? ""
        names.release(first)
        #expect(Self.drain(&names).last == first)
    }

    @Test func `a name that EC2 refused is tried again only when no other is left`() {
        var names = DeviceNames()
        let bad = names.take() ?? ""
        names.quarantine(bad)
        let rest = Self.drain(&names)
        #expect(rest.count == DeviceNames.all.count)
        #expect(rest.last == bad)
    }

    @Test func `a name that an attachment has is not taken`() {
        var names = DeviceNames()
        names.claim("/dev/sdf")
        names.claim("/dev/sda1")
        let name = names.take()
        #expect(name == "/dev/sdg")
    }

    @Test func `both spellings are the same name`() {
        var names = DeviceNames()
        names.claim("/dev/xvdf")
        #expect(names.take() == "/dev/sdg")
        names.release("/dev/xvdf")
        #expect(Self.drain(&names).last == "/dev/sdf")
    }

    @Test(arguments: ["/dev/sdaf", "/dev/xvdbf", "/dev/xvdfx"])
    func `a longer name is not another spelling of a shorter one`(name: String) {
        var names = DeviceNames()
        names.claim(name)
        #expect(names.take() == "/dev/sdf")
    }

    @Test func `a quarantined name that an attachment has is not taken`() {
        var names = DeviceNames()
        let refused = names.take() ?? ""
        names.quarantine(refused)
        names.presume("/dev/sdg")
        names.claim([refused, "/dev/sdg"])
        let rest = Self.drain(&names)
        #expect(!rest.contains(refused) && !rest.contains("/dev/sdg"))
    }

    @Test func `a name that only a record claims is taken last of all`() {
        var names = DeviceNames()
        names.presume("/dev/xvdf")
        let refused = names.take() ?? ""
        names.quarantine(refused)
        let rest = Self.drain(&names)
        #expect(refused == "/dev/sdg" && rest.suffix(2) == [refused, "/dev/sdf"])
        var released = DeviceNames()
        released.presume("/dev/sdf")
        released.release("/dev/sdf")
        #expect(Self.drain(&released).count == DeviceNames.all.count)
    }

    private static func drain(_ names: inout DeviceNames) -> [String] {
        var taken: [String] = []
        while let name = names.take() { taken.append(name) }
        return taken
    }

    @Test func `a recorded name is taken if the device is here, and presumed otherwise`() {
        var names = DeviceNames()
        names.recall("/dev/sdf", isPresent: true)
        names.recall("/dev/sdg", isPresent: false)
        let rest = (1..<DeviceNames.all.count).compactMap { _ in names.take() }
        #expect(rest.count == DeviceNames.all.count - 1 && rest.last == "/dev/sdg")
        #expect(!rest.contains("/dev/sdf"))
    }

    @Test func `an instance's volumes under other names are no concern of this plugin`() {
        let id = VolumeID(literal: "vol-0123456789abcdef0")
        let instance = InstanceDescription(
            id: InstanceID(literal: "i-0123456789abcdef0"), state: .running,
            mappings: [
                BlockDeviceMapping(deviceName: "/dev/xvda", volume: id),
                BlockDeviceMapping(deviceName: "/dev/sdb", volume: nil),
                BlockDeviceMapping(deviceName: "/dev/xvdf", volume: id),
                BlockDeviceMapping(deviceName: "/dev/sdg", volume: nil),
            ])
        let given = DeviceNames.given(on: instance)
        #expect(given.map(\.name) == ["/dev/xvdf"] && given.map(\.volume) == [id])
    }
}
