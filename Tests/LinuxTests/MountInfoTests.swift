import Base
import Testing

@testable import Linux

@Suite struct MountInfoTests {
    @Test(arguments: [
        (
            "36 35 259:3 / /mnt/vol-0abc rw,noatime - xfs /dev/nvme1n1 rw,attr2,nouuid",
            "259:3", "/mnt/vol-0abc", "xfs", "/dev/nvme1n1", false
        ),
        (
            "36 35 98:0 /sub /mnt2 ro,relatime master:1 propagate_from:2 - ext3 /dev/root rw",
            "98:0", "/mnt2", "ext3", "/dev/root", true
        ),
        (
            #"36 35 0:45 / /a\040b\011c\012d\134e\043 rw shared:7 - tmpfs x\040y rw"#,
            "0:45", "/a b\tc\nd\\e#", "tmpfs", "x y", false
        ),
        ("36 35 0:45 / /ro rw - tmpfs  ro,errors=x", "0:45", "/ro", "tmpfs", "", true),
        (#"36 35 0:45 / /a\08\ rw - tmpfs - rw"#, "0:45", #"/a\08\"#, "tmpfs", "-", false),
        ("36 35 0:45 / /dash- rw - fuse.a-b - rw", "0:45", "/dash-", "fuse.a-b", "-", false),
    ])
    func `a line is read`(
        line: String, device: String, mountpoint: String, type: String, source: String,
        readOnly: Bool
    ) throws {
        let read = try #require(MountInfoLine(line.utf8.map { $0 }))
        #expect(read.device.description == device)
        #expect(read.mountpoint == mountpoint)
        #expect(read.type == type)
        #expect(read.source == source)
        #expect(read.readOnly == readOnly)
    }

    @Test(arguments: [
        ("ro,nouuid,norecovery", true), ("ro,noload", true), ("ro,nouuid", false), ("rw", false),
    ])
    func `a mount without a replay is recognised`(options: String, skips: Bool) {
        let line = "36 35 98:0 / /mnt2 ro - xfs /dev/xvdf \(options)"
        #expect(MountInfoLine(Array(line.utf8))?.skipsReplay == skips)
    }

    @Test func `a bind mount shows which directory it is`() {
        let line = "36 35 98:0 /in\\040side /mnt2 rw - xfs /dev/xvdf rw"
        #expect(MountInfoLine(Array(line.utf8))?.root == "/in side")
    }

    @Test(arguments: [
        "", "36", "36 35 98:0 / /mnt rw xfs /dev/x rw", "36 35 980 / /mnt rw - xfs /dev/x rw",
        "36 35 9:x / /mnt rw - xfs /dev/x rw", "36 35 9:0 / /mnt rw - xfs /dev/x",
        "36 35 9:0 / /mnt rw - xfs /dev/x rw more",
    ])
    func `a line that the kernel does not write is refused`(line: String) {
        #expect(MountInfoLine(Array(line.utf8)) == nil)
        #expect(MountInfoLine.parse(Array("\(line)\n\(line)".utf8)) == (line.isEmpty ? [] : nil))
    }

    @Test func `of two mounts at one mountpoint the later is on top`() throws {
        let text = """
            36 35 7:1 / /mnt/a rw - xfs /dev/loop1 rw
            37 36 7:2 / /mnt/a rw - xfs /dev/loop2 rw
            38 35 7:1 / /mnt/ab rw - xfs /dev/loop1 rw
            39 37 7:3 / /mnt/a/in rw - xfs /dev/loop3 rw

            """
        let table = MountTable(lines: try #require(MountInfoLine.parse(Array(text.utf8))))
        #expect(table.top(at: "/mnt/a")?.source == "/dev/loop2")
        #expect(table.top(at: "/mnt") == nil)
        #expect(table.mounts(below: "/mnt/a").map(\.mountpoint) == ["/mnt/a/in"])
        let mounts = table.mounts(of: DeviceNumber(major: 7, minor: 1))
        #expect(mounts.map(\.mountpoint) == ["/mnt/a", "/mnt/ab"])
    }
}
