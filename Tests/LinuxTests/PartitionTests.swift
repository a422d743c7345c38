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

@Suite(.enabled(if: isRoot, "needs root for loop devices and nodes"))
struct PartitionTests {
    @Test(arguments: [("nvme1n1", "nvme1n1p3"), ("xvdf", "xvdf3")])
    func `a partition is found, probed, mounted and grown`(
        disk name: String, partition: String
    ) async throws {
        try await withBench { bench in
            let disk = try bench.disk()
            let device = bench.plugIn(disk, as: name, of: volume(1))
            let number = try bench.partition(disk, 3)
            bench.showPartition(partition, 3, of: name, number)
            bench.makeNode(partition, number)
            let found = try await bench.find(3, of: device)
            #expect(found == BlockDevice(path: "\(bench.devPath)/\(partition)", number: number))
            try await bench.run("/sbin/mkfs.xfs", "-q", "-d", "size=310m", found.path)
            guard
                case .fileSystem("xfs", _, _) = try await bench.fileSystems.probe(
                    found, of: volume(1))
            else {
                Issue.record("no xfs was found")
                return
            }
            let mountpoint = try await bench.mountOne(found, type: "xfs")
            #expect(try await bench.fileSystems.isHeld(device))
            #expect(try await bench.fileSystems.isHeld(found))
            let growth = try await bench.fileSystems.grow(
                found, of: volume(1), type: "xfs", at: mountpoint)
            #expect(growth?.to == 318 << 20)
            try await bench.fileSystems.unmount(mountpoint, of: volume(1))
            #expect(try await !bench.fileSystems.isHeld(device))
        }
    }

    @Test func `a partition that comes after its disk is waited for`() async throws {
        try await withBench { bench in
            let disk = try bench.disk()
            let device = bench.plugIn(disk, as: "nvme1n1", of: volume(1))
            let search = RingActor.spawn { try await bench.find(1, of: device) }
            while bench.watch.watchers == 0 { await Task.yield() }
            let number = try bench.partition(disk, 1)
            bench.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            bench.makeNode("nvme1n1p1", number)
            #expect(try await search.value.number == number)
        }
    }

    @Test func `a partition that is not there is an error that names those that are`() async throws
    {
        try await withBench { bench in
            let disk = try bench.disk()
            let device = bench.plugIn(disk, as: "nvme1n1", of: volume(1))
            let number = try bench.partition(disk, 1)
            bench.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let error = try await failure {
                _ = try await bench.find(2, of: device, within: .milliseconds(20))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains("no nvme1n1p2 (it shows: nvme1n1p1)"), "\(error)")
        }
    }

    @Test func `a node that is another device than the partition is not taken`() async throws {
        try await withBench { bench in
            let disk = try bench.disk()
            let device = bench.plugIn(disk, as: "nvme1n1", of: volume(1))
            bench.showPartition("nvme1n1p1", 1, of: "nvme1n1", try bench.partition(disk, 1))
            bench.makeNode("nvme1n1p1", try bench.disk(mebibytes: 1).number)
            let error = try await failure {
                _ = try await bench.find(1, of: device, within: .milliseconds(20))
            }
            #expect(error.reason == .device)
        }
    }

    @Test func `a partition of another volume's disk is neither probed nor mounted`() async throws {
        try await withBench { bench in
            let disk = try bench.disk()
            bench.plugIn(disk, as: "nvme1n1", of: volume(2))
            let number = try bench.partition(disk, 1)
            bench.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let partition = bench.makeNode("nvme1n1p1", number)
            try await bench.run("/sbin/mkfs.xfs", "-q", partition.path)
            let error = try await failure {
                _ = try await bench.fileSystems.probe(partition, of: volume(1))
            }
            #expect(error.reason == .device)
            #expect(error.found.contains(volume(2).nvmeSerial))
            await #expect(throws: OperationError.self) {
                try await bench.mountOne(partition, type: "xfs")
            }
        }
    }

    @Test func `the loss of a partition is detected`() async throws {
        try await withBench { bench in
            let disk = try bench.disk()
            bench.plugIn(disk, as: "nvme1n1", of: volume(1))
            let number = try bench.partition(disk, 1)
            bench.showPartition("nvme1n1p1", 1, of: "nvme1n1", number)
            let partition = bench.makeNode("nvme1n1p1", number)
            let going = RingActor.spawn {
                try await bench.watch.departure(
                    of: partition, volume: volume(1), by: bench.after(.seconds(120)))
            }
            while bench.watch.watchers == 0 { await Task.yield() }
            bench.unplug("nvme1n1p1")
            try await going.value
        }
    }
}

extension Bench {
    fileprivate func find(
        _ number: Int, of device: BlockDevice, within duration: Duration = .seconds(120)
    ) async throws -> BlockDevice {
        try await watch.partition(number, of: device, volume: volume(1), by: after(duration))
    }
}
