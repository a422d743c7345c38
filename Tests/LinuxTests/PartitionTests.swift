import Base
import Glibc
import Ring
import Testing

@testable import Linux

@Suite struct PartitionNameTests {
    @Test(arguments: [
        ("nvme1n1p2", "nvme1n1"), ("nvme10n12p128", "nvme10n12"), ("nvme1n1", "nvme1n1"),
        ("xvdf1", "xvdf"), ("xvdba12", "xvdba"), ("sdf3", "sdf"), ("xvdf", "xvdf"),
        ("loop0", "loop0"), ("nvme1n1p", "nvme1n1p"), ("12", "12"), ("", ""),
    ])
    func `a partition's disk is known by its name`(name: String, disk: String) {
        #expect(diskName(of: name) == disk)
    }

    @Test func `a partition is named after its disk`() {
        #expect(partitionName(2, of: "nvme1n1") == "nvme1n1p2")
        #expect(partitionName(2, of: "xvdf") == "xvdf2")
    }
}

@Suite(.timeLimit(.minutes(5)), .enabled(if: isRoot, "needs root for loop devices and nodes"))
struct PartitionTests {
    @Test(arguments: [("nvme1n1", "nvme1n1p3"), ("xvdf", "xvdf3")])
    func `a partition is found, probed, mounted and grown`(
        disk name: String, partition: String
    ) async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            let device = fixture.plugIn(disk, as: name, of: volume(1))
            let number = try fixture.partition(disk, 3)
            fixture.showPartition(partition, 3, of: name, number)
            fixture.makeNode(partition, number)
            let found = try await fixture.find(3, of: device)
            #expect(found == BlockDevice(path: "\(fixture.devPath)/\(partition)", number: number))
            try await fixture.run("/sbin/mkfs.xfs", "-q", "-d", "size=310m", found.path)
            guard
                case .fileSystem("xfs", _, _) = try await fixture.fileSystems.probe(
                    found, of: volume(1))
            else {
                Issue.record("no xfs was found")
                return
            }
            let mountpoint = try await fixture.mountOne(found, type: "xfs")
            #expect(try await fixture.fileSystems.isHeld(device))
            #expect(try await fixture.fileSystems.isHeld(found))
            let growth = try await fixture.fileSystems.grow(
                found, of: volume(1), type: "xfs", at: mountpoint)
            #expect(growth?.to == 318 << 20)
            try await fixture.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await !fixture.fileSystems.isHeld(device))
        }
    }

    @Test func `a partition that comes after its disk is waited for`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            let search = RingActor.spawn { try await fixture.find(1, of: device) }
            while fixture.watch.watchers == 0 { await Task.yield() }
            let number = try fixture.partition(disk, 1)
            fixture.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            fixture.makeNode("nvme1n1p1", number)
            #expect(try await search.value.number == number)
        }
    }

    @Test func `a partition that is not there is an error that names those that are`() async throws
    {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            let number = try fixture.partition(disk, 1)
            fixture.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let error = try await failure {
                _ = try await fixture.find(2, of: device, within: .milliseconds(20))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains("no nvme1n1p2 (it shows: nvme1n1p1)"), "\(error)")
        }
    }

    @Test func `a node that is another device than the partition is not taken`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            let device = fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            fixture.showPartition("nvme1n1p1", 1, of: "nvme1n1", try fixture.partition(disk, 1))
            fixture.makeNode("nvme1n1p1", try fixture.disk(mebibytes: 1).number)
            let error = try await failure {
                _ = try await fixture.find(1, of: device, within: .milliseconds(20))
            }
            #expect(error.reason == .device)
        }
    }

    @Test func `a partition of another volume's disk is neither probed nor mounted`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            fixture.plugIn(disk, as: "nvme1n1", of: volume(2))
            let number = try fixture.partition(disk, 1)
            fixture.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let partition = fixture.makeNode("nvme1n1p1", number)
            try await fixture.run("/sbin/mkfs.xfs", "-q", partition.path)
            let error = try await failure {
                _ = try await fixture.fileSystems.probe(partition, of: volume(1))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains(volume(2).nvmeSerial))
            await #expect(throws: OperationError.self) {
                try await fixture.mountOne(partition, type: "xfs")
            }
        }
    }

    @Test func `the loss of a partition is detected`() async throws {
        try await withDisks { fixture in
            let disk = try fixture.disk()
            fixture.plugIn(disk, as: "nvme1n1", of: volume(1))
            let number = try fixture.partition(disk, 1)
            fixture.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let partition = fixture.makeNode("nvme1n1p1", number)
            let going = RingActor.spawn {
                try await fixture.watch.departure(
                    of: partition, volume: volume(1), by: fixture.after(.seconds(120)))
            }
            while fixture.watch.watchers == 0 { await Task.yield() }
            fixture.unplug("nvme1n1p1")
            try await going.value
        }
    }
}

extension DiskFixture {
    fileprivate func find(
        _ number: Int, of device: BlockDevice, within duration: Duration = .seconds(120)
    ) async throws -> BlockDevice {
        try await watch.partition(number, of: device, volume: volume(1), by: after(duration))
    }
}
