import Base
import EC2Model
import Testing

private let volumeText = "vol-0aaaaaaaaaaaaaaa1"
private let here = "i-0aaaaaaaaaaaaaaa1"
private let there = "i-0aaaaaaaaaaaaaaa2"

private func at(_ milliseconds: UInt64) -> Moment {
    Moment(
        instant: Instant(nanoseconds: (1_000_000 + milliseconds) * 1_000_000),
        unixSeconds: 1_800_000_000)
}

/// A Region with two instances and one volume, driven by hand.
private struct Fixture {
    var region = Region(name: "eu-central-1", accountID: "123456789012")
    let volume: VolumeID
    let instance: InstanceID

    init() throws {
        volume = try #require(VolumeID(volumeText))
        instance = try #require(InstanceID(here))
        for id in [here, there] {
            region.set(
                Instance(
                    id: try #require(InstanceID(id)), type: "m6i.large", zone: "eu-central-1a",
                    launchedAt: 0), at: at(0))
        }
        region.add(
            Volume(id: volume, zone: "eu-central-1a", bytes: 1 << 30, createdAt: 0), at: at(0))
    }

    mutating func setInstance(mode: Instance.Mode) {
        region.set(
            Instance(
                id: instance, type: "m6i.large", zone: "eu-central-1a", mode: mode, launchedAt: 0),
            at: at(0))
    }

    mutating func call(
        _ action: String, _ parameters: [String: String], at now: Moment = at(0)
    ) throws(APIError) {
        _ = try region.perform(action, QueryParameters(parameters), at: now) {
            "0123456789abcdef0"
        }
    }

    mutating func attach(
        to instance: String = here, as device: String = "/dev/sdf", at now: Moment = at(0)
    ) throws(APIError) {
        try call(
            "AttachVolume",
            ["VolumeId": volumeText, "InstanceId": instance, "Device": device], at: now)
    }

    mutating func detach(force: Bool = false, at now: Moment) throws(APIError) {
        try call("DetachVolume", ["VolumeId": volumeText, "Force": "\(force)"], at: now)
    }

    func code(_ body: (inout Fixture) throws(APIError) -> Void) -> String? {
        var copy = self
        do throws(APIError) {
            try body(&copy)
            return nil
        } catch { return error.code }
    }

    var state: Volume.State? { region.volumes[volume]?.state }
    var attachment: EC2Model.Attachment? { region.volumes[volume]?.attachments.first }
}

struct RegionTests {
    @Test func `a device is ordered only after its latency`() throws {
        var fixture = try Fixture()
        fixture.region.latency.device = .milliseconds(300)
        fixture.region.latency.attached = .milliseconds(500)
        try fixture.attach()
        #expect(fixture.region.advance(to: at(299)).isEmpty)
        let order = try #require(fixture.region.advance(to: at(300)).first)
        #expect(order.kind == .plug(.init(serial: "vol0aaaaaaaaaaaaaaa1")))
        #expect(fixture.attachment?.state == .attaching)
        _ = fixture.region.advance(to: at(500))
        #expect(fixture.attachment?.state == .attached)
    }

    @Test func `a detached volume is available once its device is gone`() throws {
        var fixture = try Fixture()
        try fixture.attach()
        let plug = try #require(fixture.region.advance(to: at(0)).first)
        fixture.region.plugged(plug, node: "/dev/nvme1n1", at: at(1))
        try fixture.detach(at: at(2))
        let unplug = try #require(fixture.region.advance(to: at(2)).first)
        #expect(unplug.kind == .unplug(force: true))
        #expect(fixture.attachment?.state == .detaching)
        #expect(fixture.state == .inUse)
        fixture.region.unplugged(unplug, at: at(3))
        #expect(fixture.attachment == nil)
        #expect(fixture.state == .available)
    }

    @Test func `Nitro removes a held device, Xen waits`() throws {
        for (mode, force) in [(Instance.Mode.nitro, true), (.xen, false)] {
            var fixture = try Fixture()
            fixture.setInstance(mode: mode)
            try fixture.attach()
            _ = fixture.region.advance(to: at(0))
            try fixture.detach(at: at(1))
            #expect(fixture.region.advance(to: at(1)).first?.kind == .unplug(force: force))
        }
    }

    @Test func `a held device makes the attachment busy until it is released`() throws {
        var fixture = try Fixture()
        fixture.setInstance(mode: .xen)
        try fixture.attach()
        _ = fixture.region.advance(to: at(0))
        try fixture.detach(at: at(1))
        let first = try #require(fixture.region.advance(to: at(1)).first)
        fixture.region.held(first, at: at(2))
        #expect(fixture.attachment?.state == .busy)
        let retry = try #require(fixture.region.advance(to: at(1000)).first)
        fixture.region.unplugged(retry, at: at(1001))
        #expect(fixture.state == .available)
    }

    @Test func `force completes a busy detach`() throws {
        var fixture = try Fixture()
        fixture.setInstance(mode: .xen)
        try fixture.attach()
        _ = fixture.region.advance(to: at(0))
        try fixture.detach(at: at(1))
        fixture.region.held(try #require(fixture.region.advance(to: at(1)).first), at: at(2))
        try fixture.detach(force: true, at: at(3))
        #expect(fixture.region.advance(to: at(1000)).first?.kind == .unplug(force: true))
    }

    @Test func `a detach before the device appears leaves no device`() throws {
        var fixture = try Fixture()
        fixture.region.latency.device = .seconds(10)
        try fixture.attach()
        try fixture.detach(at: at(1))
        #expect(fixture.region.advance(to: at(20_000)).isEmpty)
        #expect(fixture.state == .available)
    }

    @Test func `a stopped instance keeps its attachments and loses its devices`() throws {
        var fixture = try Fixture()
        try fixture.attach()
        let plug = try #require(fixture.region.advance(to: at(0)).first)
        fixture.region.plugged(plug, node: "/dev/nvme1n1", at: at(1))
        try fixture.call("StopInstances", ["InstanceId.1": here], at: at(2))
        let unplug = try #require(fixture.region.advance(to: at(2)).first)
        #expect(unplug.kind == .unplug(force: true))
        fixture.region.unplugged(unplug, at: at(3))
        #expect(fixture.attachment?.state == .attached)
        try fixture.call("StartInstances", ["InstanceId.1": here], at: at(4))
        #expect(fixture.region.advance(to: at(4)).count == 1)
    }

    @Test func `a terminated instance releases its volumes`() throws {
        var fixture = try Fixture()
        try fixture.attach()
        _ = fixture.region.advance(to: at(0))
        try fixture.call("TerminateInstances", ["InstanceId.1": here], at: at(2))
        let unplug = try #require(fixture.region.advance(to: at(2)).first)
        fixture.region.unplugged(unplug, at: at(3))
        #expect(fixture.state == .available)
    }

    @Test func `errors have EC2's codes`() throws {
        var fixture = try Fixture()
        let elsewhere = try #require(VolumeID("vol-0bbbbbbbbbbbbbbb1"))
        fixture.region.add(
            Volume(id: elsewhere, zone: "eu-central-1b", bytes: 1, createdAt: 0), at: at(0))
        #expect(
            fixture.code { (f) throws(APIError) in
                try f.call(
                    "AttachVolume",
                    [
                        "VolumeId": elsewhere.description, "InstanceId": here, "Device": "/dev/sdf",
                    ])
            } == "InvalidVolume.ZoneMismatch")
        #expect(
            fixture.code { (f) throws(APIError) in try f.attach(as: "/dev/sd") }
                == "InvalidParameterValue")
        #expect(
            fixture.code { (f) throws(APIError) in try f.attach(as: "/dev/xvda") }
                == "InvalidParameterValue")
        #expect(
            fixture.code { (f) throws(APIError) in try f.attach(to: "i-0bbbbbbbbbbbbbbb9") }
                == "InvalidInstanceID.NotFound")
        #expect(
            fixture.code { (f) throws(APIError) in try f.detach(at: at(0)) } == "IncorrectState")
        try fixture.attach()
        #expect(
            fixture.code { (f) throws(APIError) in try f.attach(to: there) } == "VolumeInUse")
        #expect(
            fixture.code { (f) throws(APIError) in
                try f.call(
                    "DetachVolume", ["VolumeId": volumeText, "InstanceId": there])
            } == "InvalidAttachment.NotFound")
        #expect(
            fixture.code { (f) throws(APIError) in try f.call("RunDown", [:]) } == "InvalidAction")
    }

    @Test func `a late answer shows the volume as it was`() throws {
        var fixture = try Fixture()
        fixture.region.latency.consistency = .milliseconds(100)
        try fixture.attach(at: at(50))
        #expect(try describe(fixture.region, at: at(60)).contains("<status>available</status>"))
        #expect(try describe(fixture.region, at: at(150)).contains("<status>in-use</status>"))
    }

    @Test func `tags alone may be outdated`() throws {
        var fixture = try Fixture()
        fixture.region.latency.tagConsistency = .milliseconds(100)
        try fixture.call(
            "CreateTags", ["ResourceId.1": volumeText, "Tag.1.Key": "k", "Tag.1.Value": "v"],
            at: at(50))
        try fixture.attach(at: at(60))
        let soon = try describe(fixture.region, at: at(70))
        #expect(soon.contains("<status>in-use</status>") && !soon.contains("<key>k</key>"))
        #expect(try describe(fixture.region, at: at(150)).contains("<key>k</key>"))
    }

    private func describe(_ region: Region, at now: Moment) throws -> String {
        var copy = region
        let filter = ["Filter.1.Name": "volume-id", "Filter.1.Value.1": volumeText]
        let members = try copy.perform(
            "DescribeVolumes", QueryParameters(filter), at: now, newID: { "" })
        return XMLNode("answer", members).document()
    }

    @Test func `a device fault keeps the attachment attaching without a device`() throws {
        var fixture = try Fixture()
        fixture.region.faults.add(
            Fault(action: "Device", kind: .deviceNever(stuck: true), frequency: .count(1)))
        try fixture.attach()
        #expect(fixture.region.advance(to: at(100_000)).isEmpty)
        #expect(fixture.attachment?.state == .attaching)
    }

    @Test func `a Xen guest sees sdf as xvdf`() throws {
        var fixture = try Fixture()
        let id = try #require(InstanceID(there))
        fixture.region.set(
            Instance(id: id, type: "m4.large", zone: "eu-central-1a", mode: .xen, launchedAt: 0),
            at: at(0))
        try fixture.attach(to: there)
        let order = try #require(fixture.region.advance(to: at(0)).first)
        #expect(order.kind == .plug(.init(serial: "vol0aaaaaaaaaaaaaaa1", xenNode: "xvdf")))
    }
}

struct ThrottleTests {
    @Test func `an action is refused beyond its burst and admitted after the refill`() throws {
        var region = try Fixture().region
        let parameters = QueryParameters([:])
        for _ in 0..<50 { try region.admit("AttachVolume", parameters, at: at(0).instant) }
        let refused = #expect(throws: APIError.self) {
            try region.admit("AttachVolume", parameters, at: at(0).instant)
        }
        #expect(refused?.code == "RequestLimitExceeded")
        #expect(refused?.status == 503)
        try region.admit("DetachVolume", parameters, at: at(0).instant)
        try region.admit("AttachVolume", parameters, at: at(200).instant)
    }
}

struct FaultTests {
    @Test func `a counted fault strikes that often and no more`() {
        var faults = Faults()
        faults.add(Fault(action: "AttachVolume", kind: .lostAfter, frequency: .count(2)))
        let taken = (0..<4).map { _ in faults.take("AttachVolume") != nil }
        #expect(taken == [true, true, false, false])
        #expect(faults.take("DetachVolume") == nil)
    }

    @Test func `a fraction is spread evenly`() {
        var faults = Faults()
        faults.add(Fault(action: "*", kind: .reset, frequency: .share(0.25)))
        let taken = (0..<8).map { _ in faults.take("DescribeVolumes") != nil }
        #expect(taken == [false, false, false, true, false, false, false, true])
    }
}

struct QueryParametersTests {
    @Test func `a form's lists keep their order and its escapes are decoded`() throws {
        let form = "Filter.2.Value.10=b&Filter.2.Value.2=a%2Fc+d&Action=X"
        let parameters = try #require(QueryParameters(form: Array(form.utf8)))
        #expect(parameters.list("Filter.2.Value") == ["a/c d", "b"])
        #expect(parameters["Action"] == "X")
        #expect(QueryParameters(form: Array("a=%2".utf8)) == nil)
    }
}
