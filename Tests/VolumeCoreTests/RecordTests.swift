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

    @Test func `an ID that mounted nothing takes nobody's count`() throws {
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
}

@Suite struct VolumeOptionsTests {
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

    @Test func `a value that is no truth value is refused`() {
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

    @Test func `a name given back is the last to be used again`() {
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

    @Test func `a name that an attachment bears is not taken`() {
        var names = DeviceNames()
        names.claim("/dev/sdf")
        names.claim("/dev/sda1")
        let name = names.take()
        #expect(name == "/dev/sdg")
    }

    private static func drain(_ names: inout DeviceNames) -> [String] {
        var taken: [String] = []
        while let name = names.take() { taken.append(name) }
        return taken
    }
}
