import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct DeviceWatchTests {
    @Test func `a device that is there already is found at once`() async throws {
        try await withDisks { fixture in
            let device = fixture.plugIn(
                try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            let found = try await fixture.watch.arrival(
                of: volume(1), attachedAs: "/dev/sdf", by: fixture.after(.seconds(120)))
            #expect(found == device)
            #expect(try await fixture.watch.find(volume(1), attachedAs: nil) == device)
            #expect(try await fixture.watch.find(volume(2), attachedAs: "/dev/sdf") == nil)
        }
    }

    @Test func `a device that appears later is found whatever its number`() async throws {
        try await withDisks { fixture in
            let other = try fixture.disk(mebibytes: 1)
            let disk = try fixture.disk(mebibytes: 1)
            fixture.plugIn(other, as: "nvme1n1", of: volume(2))
            let arrival = try await fixture.awaiting(volume(1))
            let device = fixture.plugIn(disk, as: "nvme7n1", of: volume(1))
            #expect(try await arrival.value == device)
        }
    }

    @Test func `a device is found at the notice of its node, before /sys/block shows it`()
        async throws
    {
        try await withDisks { fixture in
            mkdir("\(fixture.sysPath)/block", 0o755)
            let disk = try fixture.disk(mebibytes: 1)
            let arrival = try await fixture.awaiting(volume(1))
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            #expect(try await arrival.value == device)
        }
    }

    @Test func `another volume's device is passed over until the right one comes`() async throws {
        try await withDisks { fixture in
            let wrong = try fixture.disk(mebibytes: 1)
            let right = try fixture.disk(mebibytes: 1)
            let arrival = try await fixture.awaiting(volume(1))
            fixture.plugIn(wrong, as: "nvme1n1", of: volume(2))
            try await fixture.untilLookedAt()
            let device = fixture.plugIn(right, as: "nvme2n1", of: volume(1))
            #expect(try await arrival.value == device)
        }
    }

    @Test func `a serial number that appears after the node is seen with the next event`()
        async throws
    {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let arrival = try await fixture.awaiting(volume(1))
            let device = fixture.plugIn(disk, as: "nvme1n1", of: nil)
            try await fixture.untilLookedAt()
            fixture.showInSysfs("nvme1n1", disk.number, serial: volume(1).nvmeSerial)
            chmod(device.path, 0o660)
            #expect(try await arrival.value == device)
        }
    }

    @Test func `a node that is moved into place is seen`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let arrival = try await fixture.awaiting(volume(1))
            let made = fixture.makeNode("../made-elsewhere", disk.number)
            fixture.showInSysfs("nvme1n1", disk.number, serial: volume(1).nvmeSerial)
            rename(made.path, "\(fixture.devPath)/nvme1n1")
            #expect(try await arrival.value.path == "\(fixture.devPath)/nvme1n1")
        }
    }

    @Test func `a by-id link to another disk is not trusted`() async throws {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(2))
            let links = "\(fixture.devPath)/disk/by-id"
            mkdir("\(fixture.devPath)/disk", 0o755)
            mkdir(links, 0o755)
            let link = "nvme-Amazon_Elastic_Block_Store_\(volume(1).nvmeSerial)"
            symlink("../../nvme1n1", "\(links)/\(link)")
            symlink("nvme1n1", "\(fixture.devPath)/sdf")
            symlink("nvme1n1", "\(fixture.devPath)/xvdf")
            let error = try await failure {
                _ = try await fixture.watch.arrival(
                    of: volume(1), attachedAs: "/dev/sdf", by: fixture.after(.milliseconds(20)))
            }
            #expect(error.reason == .deadline)
            #expect(error.description.contains("nvme1n1 \(volume(2).nvmeSerial)"))
            #expect(error.description.contains("vol-0123456789abcde1f, attached as /dev/sdf"))
        }
    }

    @Test func `a node with another number than sysfs says is not the device`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let other = try fixture.disk(mebibytes: 1)
            fixture.showInSysfs("nvme1n1", disk.number, serial: volume(1).nvmeSerial)
            fixture.makeNode("nvme1n1", other.number)
            #expect(try await fixture.watch.find(volume(1), attachedAs: "/dev/sdf") == nil)
        }
    }

    @Test func `two devices with one serial number are both rejected`() async throws {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme2n1", of: volume(1))
            let error = try await failure {
                _ = try await fixture.watch.find(volume(1), attachedAs: "/dev/sdf")
            }
            #expect(error.reason == .device)
            #expect(error.found.contains("nvme1n1 and nvme2n1"))
        }
    }

    @Test(arguments: [(0, "live"), (2048, "dead"), (2048, "deleting (no IO)"), (0, "deleting")])
    func `of two devices with one serial number the working one is found`(
        sectors: Int, state: String
    ) async throws {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            fixture.showInSysfs("nvme1n1", sectors: sectors, state: state)
            #expect(try await fixture.watch.find(volume(1), attachedAs: "/dev/sdf") == nil)
            let arrival = try await fixture.awaiting(volume(1))
            let alive = fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n2", of: volume(1))
            #expect(try await arrival.value == alive)
            fixture.showInSysfs("nvme1n2", sectors: 2048, state: "resetting")
            #expect(try await fixture.watch.find(volume(1), attachedAs: "/dev/sdf") == alive)
            #expect(try await fixture.fileSystems.probe(alive, of: volume(1)) == .blank)
        }
    }

    @Test func `a single dead device is reported as dead`() async throws {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            fixture.showInSysfs("nvme1n1", sectors: 2048, state: "dead")
            let error = try await failure {
                _ = try await fixture.watch.arrival(
                    of: volume(1), attachedAs: "/dev/sdf", by: fixture.after(.milliseconds(20)))
            }
            #expect(error.found.contains("which is dead: its controller is dead"), "\(error)")
        }
    }

    @Test func `a device that the kernel has given up is gone, even if held`() async throws {
        try await withDisks { fixture in
            let device = fixture.plugIn(
                try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            fixture.showInSysfs("nvme1n1", sectors: 2048, state: "live")
            let departure = RingActor.spawn {
                try await fixture.watch.departure(
                    of: device, volume: volume(1), by: fixture.after(.seconds(120)))
            }
            try await fixture.untilWatched()
            fixture.showInSysfs("nvme1n1", sectors: 0, state: "live")
            chmod(device.path, 0o660)
            try await departure.value
        }
    }

    @Test
    func `a disk whose serial number cannot be read may be the volume's, so nothing is proved`()
        async throws
    {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(2))
            let disk = try fixture.disk(mebibytes: 1)
            let unread = fixture.plugIn(disk, as: "nvme2n1", of: nil)
            let error = try await failure {
                _ = try await fixture.watch.find(volume(1), attachedAs: "/dev/sdf")
            }
            #expect(error.reason == .device)
            #expect(error.doing.contains("\(volume(1))"))
            #expect(error.found.contains("nvme2n1"), "\(error)")
            // The other one is found nevertheless, and a wait continues.
            #expect(try await fixture.watch.find(volume(2), attachedAs: nil) != nil)
            let arrival = try await fixture.awaiting(volume(1))
            fixture.showInSysfs("nvme2n1", disk.number, serial: volume(1).nvmeSerial)
            chmod(unread.path, 0o660)
            #expect(try await arrival.value == unread)
            #expect(try await fixture.watch.find(volume(3), attachedAs: nil) == nil)
        }
    }

    @Test func `a dead disk that cannot be read belongs to no volume`() async throws {
        try await withDisks { fixture in
            fixture.plugIn(try fixture.disk(mebibytes: 1), as: "nvme1n1", of: nil)
            fixture.showInSysfs("nvme1n1", sectors: 0, state: "dead")
            #expect(try await fixture.watch.find(volume(1), attachedAs: nil) == nil)
        }
    }

    @Test func `eight volumes that appear at once are all found`() async throws {
        try await withDisks { fixture in
            let disks = try (0..<8).map { _ in try fixture.disk(mebibytes: 1) }
            var arrivals: [Task<BlockDevice, any Error>] = []
            for index in 0..<8 { arrivals.append(try await fixture.awaiting(volume(index))) }
            for index in (0..<8).reversed() {
                fixture.plugIn(disks[index], as: "nvme\(9 - index)n1", of: volume(index))
            }
            for index in 0..<8 {
                #expect(try await arrivals[index].value.number == disks[index].number)
            }
        }
    }

    @Test func `a device is found although its event was lost in a full queue`() async throws {
        try await withDisks { fixture in
            let setting = try contents(
                of: "/proc/sys/fs/inotify/max_queued_events", limit: 64)
            let queue = try #require(
                Int(String(decoding: setting.prefix { $0 != 10 }, as: UTF8.self)))
            let disk = try fixture.disk(mebibytes: 1)
            let arrival = try await fixture.awaiting(volume(1))
            for _ in 0...queue / 2 {
                fixture.makeNode("filler", disk.number)
                unlink("\(fixture.devPath)/filler")
            }
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            #expect(try await arrival.value == device)
        }
    }

    @Test(arguments: [("/dev/sdf", "xvdf"), ("/dev/sdf", "sdf"), ("/dev/xvdba", "xvdba")])
    func `on Xen a device is found by its name`(asked: String, given: String) async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let arrival = RingActor.spawn {
                try await fixture.watch.arrival(
                    of: volume(1), attachedAs: asked, by: fixture.after(.seconds(120)))
            }
            try await fixture.untilWatched()
            let device = fixture.makeNode(given, disk.number)
            #expect(try await arrival.value == device)
        }
    }

    @Test func `a cancelled wait ends, and nothing is watched then`() async throws {
        try await withDisks { fixture in
            let arrival = try await fixture.awaiting(volume(1))
            let wasWatched = try fixture.isWatched()
            #expect(wasWatched)
            arrival.cancel()
            await #expect(throws: CancellationError.self) { try await arrival.value }
            let isWatched = try fixture.isWatched()
            #expect(!isWatched)
        }
    }

    @Test func `a missing device folder is named`() async throws {
        try await withDisks { fixture in
            let watch = try DeviceWatch(devPath: "/nowhere", sysPath: fixture.sysPath)
            let error = try await failure {
                _ = try await watch.arrival(
                    of: volume(1), attachedAs: "/dev/sdf", by: fixture.after(.seconds(120)))
            }
            #expect(error.reason == .system)
            #expect(error.found.contains("/nowhere"))
            #expect(error.found.contains("ENOENT"))
        }
    }

    @Test func `the loss of a device is detected, however long that takes`() async throws {
        try await withDisks { fixture in
            let device = fixture.plugIn(
                try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            let never = Instant(nanoseconds: .max)
            let departure = RingActor.spawn {
                try await fixture.watch.departure(of: device, volume: volume(1), by: never)
            }
            try await fixture.untilWatched()
            fixture.unplug("nvme1n1")
            try await departure.value
            // And at once if it is already gone.
            try await fixture.watch.departure(of: device, volume: volume(1), by: never)
        }
    }

    @Test func `a device whose node now belongs to another volume is gone`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk(mebibytes: 1)
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            fixture.showInSysfs("nvme1n1", disk.number, serial: volume(2).nvmeSerial)
            try await fixture.watch.departure(
                of: device, volume: volume(1), by: fixture.after(.seconds(120)))
        }
    }

    @Test func `a device that stays is an error at the deadline`() async throws {
        try await withDisks { fixture in
            let device = fixture.plugIn(
                try fixture.disk(mebibytes: 1), as: "nvme1n1", of: volume(1))
            let error = try await failure {
                try await fixture.watch.departure(
                    of: device, volume: volume(1), by: fixture.after(.milliseconds(20)))
            }
            #expect(error.reason == .deadline)
            #expect(error.doing.contains(device.path))
        }
    }
}

extension DiskFixture {
    /// Starts an arrival, which has looked once and found nothing when this returns.
    fileprivate func awaiting(
        _ volume: VolumeID
    ) async throws -> Task<BlockDevice, any Error> {
        let watchers = watch.watchers
        let deadline = after(.seconds(120))
        let arrival = RingActor.spawn {
            let device = try await self.watch.arrival(
                of: volume, attachedAs: "/dev/sdf", by: deadline)
            // At the deadline it looks once more; without an event it would be found only then.
            try #require(RingActor.ring.now < deadline)
            return device
        }
        try await until { self.watch.watchers > watchers }
        return arrival
    }

    fileprivate func untilWatched() async throws {
        try await until { self.watch.watchers > 0 }
    }

    /// Returns when the watch has processed the last event.
    fileprivate func untilLookedAt() async throws {
        let changes = watch.changes
        try await until { self.watch.changes > changes }
    }

    private func until(_ condition: @RingActor () -> Bool) async throws {
        let deadline = after(.seconds(120))
        while !condition() {
            try #require(RingActor.ring.now < deadline)
            await Task.yield()
        }
    }

    /// Whether an inotify descriptor of this process watches the directory of nodes.
    fileprivate func isWatched() throws -> Bool {
        var status = stat()
        try #require(stat(devPath, &status) == 0)
        let watch = " ino:\(String(status.st_ino, radix: 16)) "
        return try names(in: "/proc/self/fdinfo").contains { name in
            guard let info = try? contents(of: "/proc/self/fdinfo/\(name)", limit: 1 << 20) else {
                return false
            }
            return String(decoding: info, as: UTF8.self).contains(watch)
        }
    }
}
