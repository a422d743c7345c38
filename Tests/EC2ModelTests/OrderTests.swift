import Base
import EC2Model
import Testing

private let volumeText = "vol-0aaaaaaaaaaaaaaa1"

/// This long after the beginning.
private func at(_ milliseconds: UInt64) -> Moment {
    Moment(
        instant: Instant(nanoseconds: (1_000_000 + milliseconds) * 1_000_000),
        unixSeconds: 1_800_000_000 + Int64(milliseconds / 1000))
}

/// A Region with one volume of 8 GiB, driven by hand.
private struct Fixture {
    var region = Region(name: "eu-central-1", accountID: "123456789012")
    let volume: VolumeID
    private var created = 0

    init() throws {
        volume = try #require(VolumeID(volumeText))
        region.add(
            Volume(id: volume, zone: "eu-central-1a", bytes: 8 << 30, createdAt: 0), at: at(0))
    }

    /// Performs a call, and what is due then; its response as text.
    @discardableResult
    mutating func call(
        _ action: String, _ parameters: [String: String], at now: Moment = at(0)
    ) throws(APIError) -> String {
        created += 1
        let digits = "\(created)"
        let id = String(repeating: "0", count: 17 - digits.count) + digits
        let members = try region.perform(action, QueryParameters(parameters), at: now) { id }
        _ = region.advance(to: now)
        return XMLNode("answer", members).document()
    }

    mutating func modify(_ size: Int, at now: Moment) throws(APIError) {
        try call("ModifyVolume", ["VolumeId": volumeText, "Size": "\(size)"], at: now)
    }

    mutating func code(_ body: (inout Fixture) throws(APIError) -> Void) -> String? {
        do throws(APIError) {
            try body(&self)
            return nil
        } catch { return error.code }
    }
}

struct OrderTests {
    @Test func `the storage follows what is created, modified and deleted`() throws {
        var fixture = try Fixture()
        let order = ["AvailabilityZone": "eu-central-1a", "Size": "1"]
        try fixture.call("CreateVolume", order)
        let blank = try #require(VolumeID("vol-00000000000000001"))
        #expect(
            fixture.region.takeStorageOrders() == [.make(blank, bytes: 1 << 30, from: .blank)])
        try fixture.call("CreateSnapshot", ["VolumeId": volumeText])
        let snapshot = "snap-00000000000000002"
        #expect(
            fixture.region.takeStorageOrders() == [.takeSnapshot(snapshot, of: fixture.volume)])
        try fixture.call(
            "CreateVolume", ["AvailabilityZone": "eu-central-1b", "SnapshotId": snapshot])
        let restored = try #require(VolumeID("vol-00000000000000003"))
        #expect(
            fixture.region.takeStorageOrders() == [
                .make(restored, bytes: 8 << 30, from: .snapshot(snapshot))
            ])
        try fixture.call("CopyVolumes", ["SourceVolumeId": volumeText, "Size": "9"])
        let copy = try #require(VolumeID("vol-00000000000000004"))
        #expect(
            fixture.region.takeStorageOrders() == [
                .make(copy, bytes: 9 << 30, from: .volume(fixture.volume))
            ])
        try fixture.modify(10, at: at(0))
        #expect(
            fixture.region.takeStorageOrders() == [.grow(fixture.volume, bytes: 10 << 30)])
        try fixture.call("DeleteVolume", ["VolumeId": volumeText])
        try fixture.call("DeleteSnapshot", ["SnapshotId": snapshot])
        #expect(
            fixture.region.takeStorageOrders() == [
                .remove(fixture.volume), .removeSnapshot(snapshot),
            ])
    }

    @Test func `a refused call orders no storage`() throws {
        var fixture = try Fixture()
        let refused = fixture.code { (f) throws(APIError) in
            try f.call("CreateVolume", ["AvailabilityZone": "eu-central-1a", "Size": "0"])
        }
        #expect(refused == "InvalidParameterValue")
        #expect(fixture.region.takeStorageOrders().isEmpty)
        #expect(fixture.region.volumes.count == 1)
    }

    @Test func `a fifth modification waits until the first is a day old`() throws {
        var fixture = try Fixture()
        let day: UInt64 = 24 * 3600 * 1000
        for (size, hour) in [(9, 0), (10, 1), (11, 2), (12, 3)] {
            try fixture.modify(size, at: at(UInt64(hour) * 3_600_000))
        }
        for (milliseconds, expected) in [
            (day - 1000, "VolumeModificationRateExceeded"), (day, nil),
            (day + 1000, "VolumeModificationRateExceeded"), (day + 3_600_000, nil),
        ] {
            let code = fixture.code { (f) throws(APIError) in
                try f.modify(20, at: at(milliseconds))
            }
            #expect(code == expected)
        }
    }

    @Test func `a volume has its new size when optimizing begins`() throws {
        var fixture = try Fixture()
        fixture.region.latency.modifying = .milliseconds(100)
        fixture.region.latency.optimizing = .milliseconds(300)
        try fixture.modify(16, at: at(0))
        for (milliseconds, state, size, progress) in [
            (0, "modifying", UInt64(8), 0), (99, "modifying", 8, 24), (100, "optimizing", 16, 24),
            (399, "optimizing", 16, 98), (400, "completed", 16, 100),
        ] {
            _ = fixture.region.advance(to: at(UInt64(milliseconds)))
            let answer = try fixture.call(
                "DescribeVolumesModifications", ["VolumeId.1": volumeText],
                at: at(UInt64(milliseconds)))
            #expect(answer.contains("<modificationState>\(state)</modificationState>"))
            #expect(answer.contains("<progress>\(progress)</progress>"))
            #expect(fixture.region.volumes[fixture.volume]?.gibibytes == size)
        }
    }

    @Test func `a tag filter finds what was tagged its latency ago`() throws {
        var fixture = try Fixture()
        fixture.region.latency.tagFilters = .milliseconds(100)
        let tag = ["Tag.1.Key": "k", "Tag.1.Value": "v", "ResourceId.1": volumeText]
        try fixture.call("CreateTags", tag, at: at(50))
        let byTag = ["Filter.1.Name": "tag:k", "Filter.1.Value.1": "v"]
        let byID = ["Filter.1.Name": "volume-id", "Filter.1.Value.1": volumeText]
        for (milliseconds, isFound) in [(149, false), (150, true)] {
            let now = at(UInt64(milliseconds))
            let answer = try fixture.call("DescribeVolumes", byTag, at: now)
            #expect(answer.contains(volumeText) == isFound)
            #expect(try fixture.call("DescribeVolumes", byID, at: now).contains("<key>k</key>"))
        }
    }

    @Test func `one call with a token creates, whatever the others do`() throws {
        var fixture = try Fixture()
        fixture.region.latency.change = .milliseconds(100)
        let order = ["AvailabilityZone": "eu-central-1a", "Size": "1", "ClientToken": "t"]
        let first = try fixture.call("CreateVolume", order)
        #expect(try fixture.call("CreateVolume", order) == first)
        #expect(fixture.region.volumes.count == 2)
        _ = fixture.region.advance(to: at(100))
        try fixture.call("DeleteVolume", ["VolumeId": "vol-00000000000000001"], at: at(100))
        for now in [at(100), at(200), at(100_000_000)] {
            let code = fixture.code { (f) throws(APIError) in
                try f.call("CreateVolume", order, at: now)
            }
            #expect(code == "IdempotentParameterMismatch")
        }
    }

    @Test func `a dry run creates nothing and uses no token`() throws {
        var fixture = try Fixture()
        let order = ["AvailabilityZone": "eu-central-1a", "Size": "1", "ClientToken": "t"]
        let code = fixture.code { (f) throws(APIError) in
            try f.call("CreateVolume", order.merging(["DryRun": "true"]) { $1 })
        }
        #expect(code == "DryRunOperation")
        #expect(fixture.region.volumes.count == 1)
        try fixture.call("CreateVolume", order)
        #expect(fixture.region.volumes.count == 2)
    }
}
