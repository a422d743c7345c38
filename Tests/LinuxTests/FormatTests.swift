import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.enabled(if: isRoot, "needs root for loop devices and nodes"))
struct FormatTests {
    @Test func `a blank volume becomes an xfs with the arguments asked for`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            try await bench.format(device, ["-L", "asked"])
            let content = try await bench.fileSystems.probe(device, of: volume(1))
            guard case .fileSystem(type: "xfs", label: "asked", _) = content else {
                Issue.record("found \(content)")
                return
            }
        }
    }

    @Test func `a blank volume becomes an ext4 that the kernel mounts`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            let plan = FormatPlan(
                type: .ext4,
                arguments: [
                    "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-O",
                    "^metadata_csum_seed,^orphan_file",
                ])
            try await bench.fileSystems.format(
                device, of: volume(1), plan: plan, by: bench.after(.seconds(120)))
            guard
                case .fileSystem("ext4", _, _) = try await bench.fileSystems.probe(
                    device, of: volume(1))
            else {
                Issue.record("no ext4 was found")
                return
            }
            _ = try await bench.mountOne(device, type: "ext4")
        }
    }

    @Test func `a volume with a file system is refused and left as it is`() async throws {
        try await expectRefusal("a file system of type ext4, labelled 'keep'") { bench, path, _ in
            try await bench.run("/sbin/mkfs.ext4", "-q", "-L", "keep", path)
        }
    }

    @Test func `a volume with swap is refused and left as it is`() async throws {
        try await expectRefusal("the signature of swap") { bench, path, _ in
            try await bench.run("/sbin/mkswap", path)
        }
    }

    @Test(arguments: [
        (lvmLabel, "LVM2_member"), (luksHeader, "crypto_LUKS"), (raidMember, "linux_raid_member"),
    ])
    func `a volume of LVM, LUKS or RAID is refused and left as it is`(
        header: [UInt8], name: String
    ) async throws {
        try await expectRefusal("the signature of \(name)") { bench, _, disk in
            bench.write(header, at: 0, of: disk)
        }
    }

    @Test(arguments: ["dos", "gpt"])
    func `a volume with a partition table is refused and left as it is`(label: String) async throws
    {
        try await expectRefusal("the signature of \(label) partition table") { bench, path, _ in
            bench.write(
                "#!/bin/sh\nprintf 'label: \(label)\\n,\\n' | exec /sbin/sfdisk -q $1\n",
                to: "\(bench.path)/partition")
            try await bench.run("\(bench.path)/partition", path)
        }
    }

    @Test func `a volume whose serial number cannot be read is refused and stays blank`()
        async throws
    {
        try await withBench { bench in
            let (device, disk) = try bench.volumeOne()
            unlink("\(bench.sysPath)/class/block/nvme1n1/device/serial")
            let error = try await failure { try await bench.format(device) }
            #expect(error.reason == .device)
            #expect(bench.read(4096, at: 0, of: disk).allSatisfy { $0 == 0 })
        }
    }

    @Test func `a volume with unknown data is refused and left as it is`() async throws {
        try await expectRefusal("data of an unknown kind") { bench, _, disk in
            bench.write([1], at: 12_345, of: disk)
        }
    }

    @Test func `a volume that cannot be read is refused`() async throws {
        try await withBench { bench in
            let (device, disk) = try bench.volumeOne()
            truncate(disk.file, 1 << 20)
            let error = try await failure { try await bench.format(device) }
            #expect(error.reason == .device)
            #expect(error.found.contains("EIO"))
        }
    }

    @Test func `a volume that another mount holds is refused`() async throws {
        try await withBench { bench in
            let (device, disk) = try bench.volumeOne()
            try await bench.run("/sbin/mkfs.xfs", "-q", device.path)
            mkdir("\(bench.path)/mnt/other", 0o755)
            try await bench.run("/bin/mount", device.path, "\(bench.path)/mnt/other")
            let before = bench.read(512, at: 0, of: disk)
            let error = try await failure { try await bench.format(device) }
            #expect(error.reason == .device)
            #expect(error.found.contains("EBUSY"))
            let isKept = bench.read(512, at: 0, of: disk) == before
            #expect(isKept)
        }
    }

    @Test func `another volume's device is refused and stays blank`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            let error = try await failure {
                try await bench.fileSystems.format(
                    device, of: volume(2), plan: .xfs, by: bench.after(.seconds(120)))
            }
            #expect(error.reason == .device)
            #expect(try await bench.fileSystems.probe(device, of: volume(1)) == .blank)
        }
    }

    @Test func `what mkfs writes to its standard error is in the error`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            let error = try await failure {
                try await bench.format(device, ["-m", "nonsense=1"])
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
        try await withBench { bench in
            let (device, _) = try bench.volumeOne()
            let other = bench.makeNode("other", try bench.disk().number)
            let mkfs = "\(bench.path)/mkfs.xfs"
            bench.write(
                """
                #!/bin/sh
                mv \(other.path) \(device.path)
                exec /sbin/mkfs.xfs "$@"
                """, to: mkfs)
            let fileSystems = bench.fileSystems(tools: bench.path)
            try await fileSystems.format(
                device, of: volume(1), plan: .xfs, by: bench.after(.seconds(120)))
            bench.showInSysfs("nvme1n1", other.number, serial: volume(1).nvmeSerial)
            let swapped = BlockDevice(path: device.path, number: other.number)
            #expect(try await fileSystems.probe(swapped, of: volume(1)) == .blank)
        }
    }

    @Test func `a missing mkfs is named`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne(mebibytes: 1)
            let error = try await failure {
                try await bench.fileSystems(tools: "/nowhere").format(
                    device, of: volume(1), plan: .xfs, by: bench.after(.seconds(120)))
            }
            #expect(error.reason == .system)
            #expect(error.found.contains("/nowhere/mkfs.xfs"))
            #expect(error.found.contains("ENOENT"))
        }
    }

    @Test func `mkfs is killed at the deadline`() async throws {
        try await withBench { bench in
            let (device, _) = try bench.volumeOne(mebibytes: 1)
            let mkfs = "\(bench.path)/mkfs.xfs"
            bench.write("#!/bin/sh\nexec sleep 1000\n", to: mkfs)
            let error = try await failure {
                try await bench.fileSystems(tools: bench.path).format(
                    device, of: volume(1), plan: .xfs, by: bench.after(.milliseconds(50)))
            }
            #expect(error.reason == .deadline)
        }
    }

    private func expectRefusal(
        _ text: String,
        after prepare:
            @escaping @RingActor @Sendable (Bench, String, Bench.Disk) async throws -> Void
    ) async throws {
        try await withBench { bench in
            let (device, disk) = try bench.volumeOne()
            try await prepare(bench, device.path, disk)
            let before = bench.read(1 << 20, at: 0, of: disk)
            let error = try await failure { try await bench.format(device) }
            #expect(error.reason == .content)
            #expect(error.found.contains(text), "\(error)")
            let isKept = bench.read(1 << 20, at: 0, of: disk) == before
            #expect(isKept)
        }
    }
}

extension Bench {
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
