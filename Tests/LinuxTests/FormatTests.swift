import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct FormatTests {
    @Test func `a blank volume becomes an xfs with the arguments asked for`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            try await fixture.format(device, ["-L", "asked"])
            let content = try await fixture.fileSystems.probe(device, of: volume(1))
            guard case .fileSystem(type: "xfs", label: "asked", _) = content else {
                Issue.record("found \(content)")
                return
            }
        }
    }

    @Test func `a blank volume becomes an ext4 that the kernel mounts`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let plan = FormatPlan(
                type: .ext4,
                arguments: [
                    "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-O",
                    "^metadata_csum_seed,^orphan_file",
                ])
            try await fixture.fileSystems.format(
                device, of: volume(1), plan: plan, by: fixture.after(.seconds(120)))
            guard
                case .fileSystem("ext4", _, _) = try await fixture.fileSystems.probe(
                    device, of: volume(1))
            else {
                Issue.record("no ext4 was found")
                return
            }
            _ = try await fixture.mountOne(device, type: "ext4")
        }
    }

    @Test func `a volume with a file system is refused and left as it is`() async throws {
        try await expectRefusal("a file system of type ext4, labelled 'keep'") { fixture, path, _ in
            try await fixture.run("/sbin/mkfs.ext4", "-q", "-L", "keep", path)
        }
    }

    @Test func `a volume with swap is refused and left as it is`() async throws {
        try await expectRefusal("the signature of swap") { fixture, path, _ in
            try await fixture.run("/sbin/mkswap", path)
        }
    }

    @Test(arguments: [
        (lvmLabel, "LVM2_member"), (luksHeader, "crypto_LUKS"), (raidMember, "linux_raid_member"),
    ])
    func `a volume of LVM, LUKS or RAID is refused and left as it is`(
        header: [UInt8], name: String
    ) async throws {
        try await expectRefusal("the signature of \(name)") { fixture, _, disk in
            fixture.write(header, at: 0, of: disk)
        }
    }

    @Test(arguments: ["dos", "gpt"])
    func `a volume with a partition table is refused and left as it is`(label: String) async throws
    {
        try await expectRefusal("the signature of \(label) partition table") { fixture, path, _ in
            fixture.write(
                "#!/bin/sh\nprintf 'label: \(label)\\n,\\n' | exec /sbin/sfdisk -q $1\n",
                to: "\(fixture.path)/partition")
            try await fixture.run("\(fixture.path)/partition", path)
        }
    }

    @Test func `a volume whose serial number cannot be read is refused and stays blank`()
        async throws
    {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            unlink("\(fixture.sysPath)/class/block/nvme1n1/device/serial")
            let error = try await failure { try await fixture.format(device) }
            #expect(error.reason == .device)
            #expect(fixture.read(4096, at: 0, of: disk).allSatisfy { $0 == 0 })
        }
    }

    @Test func `a volume with unknown data is refused and left as it is`() async throws {
        try await expectRefusal("data of an unknown kind") { fixture, _, disk in
            fixture.write([1], at: 12_345, of: disk)
        }
    }

    @Test func `a volume that cannot be read is refused`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            truncate(disk.file, 1 << 20)
            let error = try await failure { try await fixture.format(device) }
            #expect(error.reason == .device)
            #expect(error.found.contains("EIO"))
        }
    }

    @Test func `a volume that another mount holds is refused`() async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await fixture.run("/sbin/mkfs.xfs", "-q", device.path)
            mkdir("\(fixture.path)/mnt/other", 0o755)
            try await fixture.run("/bin/mount", device.path, "\(fixture.path)/mnt/other")
            let before = fixture.read(512, at: 0, of: disk)
            let error = try await failure { try await fixture.format(device) }
            #expect(error.reason == .device)
            #expect(error.found.contains("EBUSY"))
            let isKept = fixture.read(512, at: 0, of: disk) == before
            #expect(isKept)
        }
    }

    @Test func `another volume's device is refused and stays blank`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let error = try await failure {
                try await fixture.fileSystems.format(
                    device, of: volume(2), plan: .xfs, by: fixture.after(.seconds(120)))
            }
            #expect(error.reason == .device)
            #expect(try await fixture.fileSystems.probe(device, of: volume(1)) == .blank)
        }
    }

    @Test func `what mkfs writes to its standard error is in the error`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let error = try await failure {
                try await fixture.format(device, ["-m", "nonsense=1"])
            }
            #expect(error.reason == .system)
            #expect(error.doing == "format \(volume(1)) on \(device.path)")
            #expect(error.found.contains("unknown option -m nonsense=1"), "\(error)")
            #expect(error.found.contains("exit status 1"))
            #expect(!error.found.contains("/proc/"))
        }
    }

    @Test func `mkfs writes to the device that was proved, whatever its path has become`()
        async throws
    {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let other = fixture.makeNode("other", try fixture.disk().number)
            let mkfs = "\(fixture.path)/mkfs.xfs"
            fixture.write(
                """
                #!/bin/sh
                mv \(other.path) \(device.path)
                exec /sbin/mkfs.xfs "$@"
                """, to: mkfs)
            let fileSystems = fixture.fileSystems(tools: fixture.path)
            try await fileSystems.format(
                device, of: volume(1), plan: .xfs, by: fixture.after(.seconds(120)))
            fixture.showInSysfs("nvme1n1", other.number, serial: volume(1).nvmeSerial)
            let swapped = BlockDevice(path: device.path, number: other.number)
            #expect(try await fileSystems.probe(swapped, of: volume(1)) == .blank)
        }
    }

    @Test func `a missing mkfs is named`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne(mebibytes: 1)
            let error = try await failure {
                try await fixture.fileSystems(tools: "/nowhere").format(
                    device, of: volume(1), plan: .xfs, by: fixture.after(.seconds(120)))
            }
            #expect(error.reason == .system)
            #expect(error.found.contains("/nowhere/mkfs.xfs"))
            #expect(error.found.contains("ENOENT"))
        }
    }

    @Test func `mkfs is killed at the deadline`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne(mebibytes: 1)
            let mkfs = "\(fixture.path)/mkfs.xfs"
            fixture.write("#!/bin/sh\nexec sleep 1000\n", to: mkfs)
            let error = try await failure {
                try await fixture.fileSystems(tools: fixture.path).format(
                    device, of: volume(1), plan: .xfs, by: fixture.after(.milliseconds(50)))
            }
            #expect(error.reason == .deadline)
        }
    }

    private func expectRefusal(
        _ text: String,
        after prepare:
            @escaping @RingActor @Sendable (DiskFixture, String, DiskFixture.Disk) async throws ->
            Void
    ) async throws {
        try await withDisks { fixture in
            let (device, disk) = try fixture.volumeOne()
            try await prepare(fixture, device.path, disk)
            let before = fixture.read(1 << 20, at: 0, of: disk)
            let error = try await failure { try await fixture.format(device) }
            #expect(error.reason == .content)
            #expect(error.found.contains(text), "\(error)")
            let isKept = fixture.read(1 << 20, at: 0, of: disk) == before
            #expect(isKept)
        }
    }
}

extension DiskFixture {
    fileprivate func fileSystems(tools: String) -> FileSystems {
        FileSystems(devPath: devPath, sysPath: sysPath, toolPath: tools)
    }

    fileprivate func format(_ device: BlockDevice, _ arguments: [String] = []) async throws {
        try await fileSystems.format(
            device, of: volume(1), plan: FormatPlan(type: .xfs, arguments: arguments),
            by: after(.seconds(120)))
    }
}

extension FormatPlan {
    static let xfs = FormatPlan(type: .xfs, arguments: [])
}
