import Base
import EC2Model
import Testing
import VolumeCore

@testable import Simulation

/// A call that changes an attachment. Volumes and instances are numbered.
enum AttachmentCall: Sendable {
    case attach(Int, to: Int, as: String = "/dev/sdf")
    case detach(Int, from: Int, force: Bool = false)
    /// An instance begins to stop.
    case stop(Int)
    /// Until everything has happened that the calls before have begun.
    case settle
}

/// Two instances and two volumes, in the EC2 of the lives and in the one that `ec2-simulator`
/// serves. The volume numbered 2 does not exist.
private struct BothModels {
    static let volumes = ["vol-00000000", "vol-00000001", "vol-00000002"]
    static let instances = ["i-00000000", "i-00000001"]
    private static let limit = 1

    private let life = LifeWorld(detachAfter: nil, takeover: .never)
    private var region = Region(name: "eu-west-1", accountID: "123456789012")
    private var moment = Moment(
        instant: Instant(nanoseconds: 1_000_000_000), unixSeconds: 1_800_000_000)

    init() throws {
        for text in Self.instances {
            let id = try #require(InstanceID(text))
            life.addHost(id)
            region.set(
                // Of its volumes, one is the root volume, which lives do not have.
                Instance(
                    id: id, type: "m6i.large", zone: LifeCloud.zone, launchedAt: 0,
                    attachmentsMax: Self.limit + 1), at: moment)
        }
        life.cloud.limit = AttachmentLimit(
            instanceType: "m6i.large", volumesMax: Self.limit, isShared: false)
        for text in Self.volumes.prefix(2) {
            let id = try #require(VolumeID(text))
            life.cloud.addVolume(
                id, type: "gp3", snapshotID: nil, content: .blank, isPartitioned: false,
                isSmall: false)
            region.add(
                Volume(id: id, zone: LifeCloud.zone, bytes: 1 << 30, createdAt: 0), at: moment)
        }
    }

    /// The error codes of the call in the two models; nil if it is accepted.
    mutating func make(_ call: AttachmentCall) throws -> (life: String?, region: String?) {
        switch call {
        case .attach(let volume, let host, let name):
            let result = life.cloud.attach(try lifeVolume(volume), to: host, as: name)
            return (code(result), perform("AttachVolume", volume, host, ["Device": name]))
        case .detach(let volume, let host, let force):
            let result = life.cloud.detach(
                try lifeVolume(volume), from: host, force: force, by: host)
            return (code(result), perform("DetachVolume", volume, host, ["Force": "\(force)"]))
        case .stop(let host):
            life.cloud.states[host] = .stopping
            region.latency.change = .seconds(3600)
            _ = try region.perform(
                "StopInstances", QueryParameters(["InstanceId.1": Self.instances[host]]),
                at: moment
            ) { "" }
        case .settle: try settle()
        }
        return (nil, nil)
    }

    private func lifeVolume(_ number: Int) throws -> LifeCloud.Volume {
        life.cloud.volume(try #require(VolumeID(Self.volumes[number])))
    }

    private func code(_ result: Result<VolumeAttachment, EC2Failure>) -> String? {
        guard case .failure(.refused(let code, _, _)) = result else { return nil }
        return code
    }

    private mutating func perform(
        _ action: String, _ volume: Int, _ host: Int, _ more: [String: String]
    ) -> String? {
        var parameters = more
        parameters["VolumeId"] = Self.volumes[volume]
        parameters["InstanceId"] = Self.instances[host]
        do throws(APIError) {
            _ = try region.perform(action, QueryParameters(parameters), at: moment) { "" }
            return nil
        } catch { return error.code }
    }

    private mutating func settle() throws {
        let process = life.newProcess()
        try life.run(on: process) { try await process.sleep(.seconds(10)) }
        while true {
            let orders = region.advance(to: moment)
            guard !orders.isEmpty else { return }
            for order in orders {
                switch order.kind {
                case .plug: region.plugged(order, node: "/dev/nvme1n1", at: moment)
                case .unplug: region.unplugged(order, at: moment)
                }
            }
        }
    }

    /// The attachments in the two models: `vol-… i-… /dev/sdf attached`.
    func attachments() -> (life: [String], region: [String]) {
        let described = life.cloud.volumes.filter { !$0.isDeleted }.map(life.cloud.describe)
        let inLife = described.flatMap(\.attachments).map {
            "\($0.volume) \($0.instance?.description ?? "") \($0.device ?? "") \($0.state)"
        }
        let inRegion = region.volumes.values.flatMap { volume in
            volume.attachments.map {
                "\(volume.id) \($0.instance) \($0.deviceName) \($0.state)"
            }
        }
        return (inLife.sorted(), inRegion.sorted())
    }
}

/// The lives' EC2 does what EC2Model does, which boto3 verifies.
@Suite struct AgreementTests {
    static let calls: [([AttachmentCall], String?)] = [
        ([.attach(0, to: 0)], nil),
        ([.attach(0, to: 0), .attach(0, to: 0, as: "/dev/sdg")], "VolumeInUse"),
        ([.attach(0, to: 0), .settle, .attach(0, to: 1)], "VolumeInUse"),
        ([.attach(0, to: 0), .settle, .detach(0, from: 0), .attach(0, to: 1)], "VolumeInUse"),
        ([.attach(0, to: 0), .detach(0, from: 0), .settle, .attach(0, to: 1)], nil),
        ([.attach(2, to: 0)], "InvalidVolume.NotFound"),
        ([.attach(0, to: 0), .attach(1, to: 0)], "InvalidParameterValue"),
        ([.attach(0, to: 0), .attach(1, to: 1)], nil),
        ([.attach(0, to: 0), .attach(1, to: 0, as: "/dev/sdg")], "AttachmentLimitExceeded"),
        ([.attach(0, to: 0), .settle, .detach(0, from: 0), .settle, .attach(1, to: 0)], nil),
        ([.stop(0), .attach(0, to: 0)], "IncorrectState"),
        ([.detach(0, from: 0)], "IncorrectState"),
        ([.detach(2, from: 0)], "InvalidVolume.NotFound"),
        ([.attach(0, to: 0), .detach(0, from: 1)], "InvalidAttachment.NotFound"),
        ([.attach(0, to: 0), .detach(0, from: 0)], nil),
        ([.attach(0, to: 0), .settle, .detach(0, from: 0), .detach(0, from: 0)], nil),
        ([.attach(0, to: 0), .settle, .detach(0, from: 0), .detach(0, from: 0, force: true)], nil),
        (
            [.attach(0, to: 0), .settle, .detach(0, from: 0), .settle, .detach(0, from: 0)],
            "IncorrectState"
        ),
    ]

    @Test(arguments: calls)
    func `EC2 in a life answers as the simulator's does`(
        calls: [AttachmentCall], code: String?
    ) throws {
        var models = try BothModels()
        var answer: (life: String?, region: String?)
        for call in calls { answer = try models.make(call) }
        #expect(answer.life == code)
        #expect(answer.region == code)
        _ = try models.make(.settle)
        #expect(models.attachments().life == models.attachments().region)
    }
}
