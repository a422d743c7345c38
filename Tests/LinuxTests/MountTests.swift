import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and mounts"))
struct MountTests {
    @Test func `a volume is mounted, holds a file, and is unmounted`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/\(volume(1))"
            #expect(try await !fixture.fileSystems.isHeld(device))
            try await fixture.mount(device, at: mountpoint)
            #expect(try await fixture.fileSystems.isHeld(device))
            let mounted = try #require(try await fixture.mounted(at: mountpoint))
            #expect(
                mounted
                    == MountedFileSystem(
                        mountpoint: mountpoint, device: device.number, type: "xfs",
                        source: device.path, readOnly: false))
            fixture.write("kept", to: "\(mountpoint)/file")

            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await fixture.mounted(at: mountpoint) == nil)
            #expect(access(mountpoint, F_OK) != 0)
            #expect(try await !fixture.fileSystems.isHeld(device))

            try await fixture.mount(device, at: mountpoint, access: .readOnly)
            #expect(try contents(of: "\(mountpoint)/file", limit: 10) == Array("kept".utf8))
            #expect(try await fixture.mounted(at: mountpoint)?.readOnly == true)
            #expect(open("\(mountpoint)/new", O_CREAT | O_WRONLY, 0o600) < 0)
        }
    }

    @Test func `the mount options asked for are in force`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a b"
            try await fixture.mount(device, at: mountpoint, options: ["noatime", "logbufs=4"])
            let line = try #require(try MountTable(doing: "test").top(at: mountpoint))
            #expect(line.options.contains("noatime"))
            #expect(!line.options.contains("nodev"))
            #expect(line.superOptions.contains("nouuid"))
            #expect(line.superOptions.contains("logbufs=4"))
        }
    }

    @Test func `two volumes with one UUID are mounted beside each other`() async throws {
        try await withDisks { fixture in
            let uuid = "5f2b5c80-6f0a-4a51-9d4c-0b6f7f0f3a15"
            for index in 1...2 {
                let device = fixture.plugIn(
                    try fixture.disk(), as: "nvme\(index)n1", of: volume(index))
                try await fixture.run("/sbin/mkfs.xfs", "-q", "-m", "uuid=\(uuid)", device.path)
                try await fixture.fileSystems.mount(
                    device, of: volume(index), type: "xfs", at: "\(fixture.path)/mnt/\(index)",
                    access: .writable, options: [])
            }
        }
    }

    @Test func `a mountpoint in use is refused`() async throws {
        try await withDisks { fixture in
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(try await fixture.xfsVolume(), at: mountpoint)
            let second = fixture.plugIn(try fixture.disk(), as: "nvme2n1", of: volume(2))
            try await fixture.run("/sbin/mkfs.xfs", "-q", second.path)
            let error = try await failure {
                try await fixture.fileSystems.mount(
                    second, of: volume(2), type: "xfs", at: mountpoint, access: .writable,
                    options: [])
            }
            #expect(error.reason == .system)
            #expect(error.found.contains("nvme1n1 (xfs, device 7:"))
            #expect(try await !fixture.fileSystems.isHeld(second))
        }
    }

    @Test func `a device that is mounted already is refused elsewhere`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            try await fixture.mount(device, at: "\(fixture.path)/mnt/a")
            let error = try await failure {
                try await fixture.mount(device, at: "\(fixture.path)/mnt/b")
            }
            #expect(error.found.contains("\(fixture.path)/mnt/a"))
            #expect(access("\(fixture.path)/mnt/b", F_OK) != 0)
        }
    }

    @Test func `another volume's device is not mounted`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            let error = try await failure {
                try await fixture.fileSystems.mount(
                    device, of: volume(2), type: "xfs", at: mountpoint, access: .writable,
                    options: [])
            }
            #expect(error.reason == .device)
            #expect(access(mountpoint, F_OK) != 0)
        }
    }

    @Test func `a mount of another device than the proved one is undone`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let other = try fixture.disk()
            try await fixture.run(
                "/sbin/mkfs.xfs", "-q", fixture.makeNode("other", other.number).path)
            let mountpoint = "\(fixture.path)/mnt/a"
            let options = MountOptions(type: "xfs", readOnly: false, options: [])
            let tree = DeviceTree(devPath: fixture.devPath, sysPath: fixture.sysPath)
            let proven = try ProvenDevice.open(device, of: volume(1), in: tree, doing: "test")
            rename("\(fixture.devPath)/other", device.path)
            let error = #expect(throws: OperationError.self) {
                _ = try mountProven(proven, type: "xfs", at: mountpoint, options: options)
            }
            #expect(error?.reason == .device)
            #expect(error?.found.contains("is device \(other.number)") == true)
            #expect(try await fixture.mounted(at: mountpoint) == nil)
            #expect(access(mountpoint, F_OK) != 0)
        }
    }

    @Test func `a link in the mountpoint's place is refused`() async throws {
        try await withDisks { fixture in
            let mountpoint = "\(fixture.path)/mnt/a"
            symlink("/", mountpoint)
            let device = try await fixture.xfsVolume()
            let error = try await failure { try await fixture.mount(device, at: mountpoint) }
            #expect(error.found.contains("ENOTDIR"))
        }
    }

    @Test func `a mountpoint below a link is refused, and no directory is left`() async throws {
        try await withDisks { fixture in
            symlink("mnt", "\(fixture.path)/link")
            let device = try await fixture.xfsVolume()
            let error = try await failure {
                try await fixture.mount(device, at: "\(fixture.path)/link/a")
            }
            #expect(error.found.contains("\(fixture.path)/mnt/a"))
            #expect(access("\(fixture.path)/mnt/a", F_OK) != 0)
        }
    }

    @Test func `a link that replaces the mountpoint after the check is not followed`() async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let (mountpoint, moved) = ("\(fixture.path)/mnt/a", "\(fixture.path)/mnt/moved")
            let elsewhere = "\(fixture.path)/mnt/elsewhere"
            for folder in [mountpoint, elsewhere] { mkdir(folder, 0o755) }
            let target = try MountTarget(mountpoint, doing: "test")
            rename(mountpoint, moved)
            symlink("elsewhere", mountpoint)
            let options = MountOptions(type: "xfs", readOnly: false, options: [])
            try target.mount(device, type: "xfs", options)
            #expect(try await fixture.mounted(at: elsewhere) == nil)
            #expect(try await fixture.mounted(at: moved)?.device == device.number)
            try await fixture.fileSystems.unmount(moved, of: volume(1))
        }
    }

    @Test func `a mount that is reached by a link does not count as unmounted`() async throws {
        try await withDisks { fixture in
            symlink("mnt", "\(fixture.path)/link")
            try await fixture.mount(try await fixture.xfsVolume(), at: "\(fixture.path)/mnt/a")
            let error = try await failure {
                try await fixture.fileSystems.unmount("\(fixture.path)/link/a", of: volume(1))
            }
            #expect(error.found.contains("EBUSY"))
        }
    }

    @Test func `the error for a refused mount says why, and leaves no directory`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne()
            let mountpoint = "\(fixture.path)/mnt/a"
            let error = try await failure { try await fixture.mount(device, at: mountpoint) }
            #expect(error.reason == .system)
            #expect(error.doing == "mount \(volume(1)) (\(device.path)) at \(mountpoint)")
            #expect(error.found.contains("EINVAL"), "\(error)")
            #expect(access(mountpoint, F_OK) != 0)
        }
    }

    @Test func `btrfs is refused before it is mounted`() async throws {
        try await withDisks { fixture in
            let (device, _) = try fixture.volumeOne(mebibytes: 1)
            let error = try await failure {
                try await fixture.mount(device, at: "\(fixture.path)/mnt/a", type: "btrfs")
            }
            #expect(error.reason == .content)
        }
    }

    @Test func `a file system that has shut down is distinguished from an unmounted one`()
        async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(device, at: mountpoint)
            let fileSystems = fixture.fileSystems
            #expect(await fileSystems.mountState(of: device, at: mountpoint) == .mounted)
            try await fixture.run("/usr/sbin/xfs_io", "-x", "-c", "shutdown", mountpoint)
            #expect(await fileSystems.mountState(of: device, at: mountpoint) == .broken)
            try await fileSystems.unmount(mountpoint, of: volume(1))
            #expect(await fileSystems.mountState(of: device, at: mountpoint) == .notMounted)
            try await fixture.mount(device, at: mountpoint)
            #expect(await fileSystems.mountState(of: device, at: mountpoint) == .mounted)
            try await fileSystems.unmount(mountpoint, of: volume(1))
        }
    }

    @Test func `a busy volume stays mounted, and who uses it is named`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(device, at: mountpoint)
            let file = open("\(mountpoint)/file", O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
            let error = try await failure {
                try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            }
            close(file)
            #expect(error.reason == .system)
            #expect(error.doing == "unmount \(volume(1)) from \(mountpoint)")
            #expect(error.found.contains("EBUSY"))
            #expect(error.found.contains("(process \(getpid())) has the file \(mountpoint)/file"))
            #expect(try await fixture.mounted(at: mountpoint) != nil)
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
        }
    }

    @Test func `a mount below keeps a volume mounted, and is named`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(device, at: mountpoint)
            mkdir("\(mountpoint)/in", 0o755)
            try await fixture.run("/bin/mount", "-t", "tmpfs", "none", "\(mountpoint)/in")
            let error = try await failure {
                try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            }
            #expect(error.found.contains("mounts below it: \(mountpoint)/in"))
        }
    }

    @Test func `a mount that only another namespace has holds the device, and is named`()
        async throws
    {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(device, at: mountpoint)
            let inside = "\(fixture.path)/container"
            let container = try await fixture.startContainer(with: mountpoint, at: inside)
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))

            #expect(try await fixture.fileSystems.isHeld(device))
            let holders = await fixture.fileSystems.holders(of: device)
            #expect(holders.contains { $0.contains("has it mounted at \(inside)") })
            let error = try await failure {
                try await fixture.fileSystems.format(
                    device, of: volume(1), plan: .xfs, by: fixture.after(.seconds(120)))
            }
            #expect(error.found.contains("EBUSY"))

            container.cancel()
            _ = await container.result
            // The kernel removes the mounts of an ended namespace shortly after its last process.
            let deadline = fixture.after(.seconds(120))
            while try await fixture.fileSystems.isHeld(device) {
                try #require(RingActor.ring.now < deadline)
            }
        }
    }

    @Test func `unmounting what is not mounted succeeds, and removes an empty directory`()
        async throws
    {
        try await withDisks { fixture in
            let empty = "\(fixture.path)/mnt/empty"
            let full = "\(fixture.path)/mnt/full"
            mkdir(empty, 0o755)
            mkdir(full, 0o755)
            fixture.write("not ours", to: "\(full)/file")
            for path in [empty, full, "\(fixture.path)/mnt/none"] {
                try await fixture.fileSystems.unmount(path, of: volume(1))
            }
            #expect(access(empty, F_OK) != 0)
            #expect(access("\(full)/file", F_OK) == 0)
        }
    }

    @Test func `a second mount on top is an error after the first is unmounted`() async throws {
        try await withDisks { fixture in
            let device = try await fixture.xfsVolume()
            let mountpoint = "\(fixture.path)/mnt/a"
            try await fixture.mount(device, at: mountpoint)
            try await fixture.run("/bin/mount", "-t", "tmpfs", "over", mountpoint)
            let error = try await failure {
                try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            }
            #expect(error.found.contains(device.path))
        }
    }

    @Test func `the kernel's release is what uname says`() async throws {
        try await withDisks { fixture in
            let release = try contents(of: "/proc/sys/kernel/osrelease", limit: 256)
            #expect(Array((fixture.fileSystems.kernelRelease() + "\n").utf8) == release)
        }
    }
}

extension DiskFixture {
    fileprivate func xfsVolume() async throws -> BlockDevice {
        let (device, _) = try volumeOne()
        try await run("/sbin/mkfs.xfs", "-q", device.path)
        return device
    }

    fileprivate func mount(
        _ device: BlockDevice, at mountpoint: String, type: String = "xfs",
        access: MountAccess = .writable, options: [String] = []
    ) async throws {
        try await fileSystems.mount(
            device, of: volume(1), type: type, at: mountpoint, access: access,
            options: options)
    }

    fileprivate func mounted(at mountpoint: String) async throws -> MountedFileSystem? {
        try await fileSystems.mounted().last { $0.mountpoint == mountpoint }
    }

    /// A process in its own mount namespace with `source` mounted at `target`, like a container
    /// that outlives the plugin. The mount exists when this returns; the process ends when the task
    /// is cancelled.
    fileprivate func startContainer(
        with source: String, at target: String
    ) async throws -> Task<ChildResult, any Error> {
        mkdir(target, 0o755)
        let fifo = "\(path)/ready"
        mkfifo(fifo, 0o600)
        // Opening waits for the reader. Nothing is written, because the reader might not wait for
        // it.
        let script = "mount --bind \(source) \(target); : > \(fifo); exec sleep 1000"
        let deadline = after(.seconds(120))
        let process = RingActor.spawn {
            try await ChildProcess.run(
                "/usr/bin/unshare", ["--mount", "/bin/sh", "-c", script], by: deadline)
        }
        // If the child failed first, opening would wait forever.
        RingActor.spawn {
            _ = await process.result
            let end = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
            if end >= 0 { close(end) }
        }
        _ = await RingActor.ring.blocking { close(open(fifo, O_RDONLY | O_CLOEXEC)) }
        return process
    }
}
