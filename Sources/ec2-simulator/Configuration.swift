import AWSWire
import Base
import EC2Model
import JSON
import Ring

/// The contents of the `--config` file: a JSON object. Every member except `stateDir`, and an
/// instance's or volume's `id`, has a default; unknown members are rejected.
///
///     {
///       "stateDir": "/var/tmp/ec2", "region": "eu-central-1", "accountId": "123456789012",
///       "ec2Port": 0,               // 0: any free port, told by GET /state
///       "addresses": ["10.0.2.2"],  // further IP addresses that clients reach it by
///       "devPath": "/dev",          // of the first instance, unless it has its own
///       "instances": [{
///         "id": "i-0123456789abcdef0", "type": "m6i.large", "availabilityZone": "eu-central-1a",
///         "mode": "nitro",          // or xen
///         "devPath": …, "sysPath": …, "imdsPort": 0, "state": "running", "attachmentLimit": 27,
///         "attachmentLimitType": "shared",      // or dedicated; none: EC2 tells no limit
///         "networkInterfaces": 1, "instanceStoreDisks": 0, "ebsCards": 1,
///         "holdsDetachBack": false,             // true: a detachment waits for the unmount (Xen)
///         "canHibernate": false
///       }],
///       "volumes": [{
///         "id": "vol-0123456789abcdef0", "sizeGiB": 1,      // or sizeMiB
///         "availabilityZone": "eu-central-1a", "snapshotId": null, "volumeType": "gp3",
///         "multiAttachEnabled": false, "kmsKeyId": null, "tags": {},
///         "content": "blank",       // as VolumeContent names them
/// "attachedTo": {"instance": "i-…", "device": "/dev/sdf",  // the root's name: its root volume
///                        "deleteOnTermination": false}             // true for the root volume
///       }],
///       "snapshots": [{
///         "id": "snap-0123456789abcdef0", "sizeGiB": 1,     // or sizeMiB
///         "volumeId": "vol-ffffffff", "state": "completed", "kmsKeyId": null, "tags": {},
///         "description": "", "ageSeconds": 0, "content": "blank"
///       }],
///       "latency": {"api": 0, "device": 0, "attached": 0, "detach": 0, "change": 0,
///                   "modifying": 0, "optimizing": 0, "snapshot": 0, "tagFilters": 0,
///                   "consistency": 0, "tagConsistency": 0}, // ms, as Latency explains them
///       "quotas": {"storageGiB": {"gp3": 51200}, "iops": {"io2": 100000}},  // none by default
///       "buckets": {"AttachVolume": {"burst": 50, "perSecond": 5}},   // false: no throttling
///       "faults": [{"action": "AttachVolume", "kind": "lostAfter", "count": 1}],
///       "credentials": {"static": [{"accessKeyId": …, "secretAccessKey": …}],
///                       "role": "ecsInstanceRole", "lifetimeSeconds": 21600}
///     }
struct Configuration {
    struct InstanceSetting {
        var instance: Instance
        /// The folder for this instance's device nodes, and its part of sysfs.
        var devPath: String
        var sysPath: String
        /// 0 for any free port.
        var imdsPort: UInt16
    }

    struct VolumeSetting {
        var volume: Volume
        var content: VolumeContent
        var attachedTo: (instance: InstanceID, device: String)?
        /// Nil for the usual value: true only for the root volume.
        var deleteOnTermination: Bool?
    }

    struct SnapshotSetting {
        var snapshot: Snapshot
        var content: VolumeContent
    }

    struct CredentialSetting {
        var fixed: [Credentials] = []
        var role = "ecsInstanceRole"
        var lifetime: Int64 = 6 * 3600
    }

    var stateDirectory: String
    var ec2Port: UInt16
    /// Further IP addresses at which clients reach EC2's endpoint, such as the host's address as
    /// seen from a virtual machine. The certificate names them.
    var addresses: [String] = []
    var instances: [InstanceSetting] = []
    var volumes: [VolumeSetting] = []
    var snapshots: [SnapshotSetting] = []
    var credentials = CredentialSetting()
    /// The empty Region with its latencies, buckets and faults.
    var region: Region

    init(_ value: JSONValue, unixSeconds: Int64) throws(InputError) {
        var reader = try ObjectReader(value, "configuration")
        stateDirectory = try reader.requiredString("stateDir")
        guard stateDirectory.hasPrefix("/") else {
            throw reader.wrong("stateDir", "an absolute path")
        }
        let devPath = try reader.string("devPath") ?? "/dev"
        ec2Port = UInt16(try reader.integer("ec2Port", in: 0...65535) ?? 0)
        for (index, value) in (try reader.array("addresses") ?? []).enumerated() {
            guard let address = value.string,
                IPv4Address(address) != nil || IPv6Address(address) != nil
            else {
                throw reader.wrong("addresses[\(index)]", "an IP address")
            }
            addresses.append(address)
        }
        region = Region(
            name: try reader.string("region") ?? "eu-central-1",
            accountID: try reader.string("accountId") ?? "123456789012")
        for (index, value) in (try reader.array("instances") ?? []).enumerated() {
            instances.append(
                try InstanceSetting(
                    value, "instances[\(index)]", region: region.name,
                    // The first instance is the one that this machine represents.
                    devPath: index == 0 ? devPath : nil, stateDirectory: stateDirectory,
                    unixSeconds: unixSeconds))
        }
        for (index, value) in (try reader.array("volumes") ?? []).enumerated() {
            volumes.append(
                try VolumeSetting(
                    value, "volumes[\(index)]", region: region.name, unixSeconds: unixSeconds))
        }
        for (index, value) in (try reader.array("snapshots") ?? []).enumerated() {
            snapshots.append(
                try SnapshotSetting(value, "snapshots[\(index)]", unixSeconds: unixSeconds))
        }
        if let value = reader.value("quotas") { try region.quotas.update(value) }
        if let value = reader.value("latency") { try region.latency.update(value) }
        if let value = reader.value("buckets") { try region.throttle.update(value) }
        for (index, value) in (try reader.array("faults") ?? []).enumerated() {
            region.faults.add(try Fault(value, "faults[\(index)]"))
        }
        if let value = reader.value("credentials") { try credentials.update(value) }
        try reader.finish()
    }
}

extension Configuration.InstanceSetting {
    init(
        _ value: JSONValue, _ name: String, region: String, devPath: String?,
        stateDirectory: String, unixSeconds: Int64
    ) throws(InputError) {
        var reader = try ObjectReader(value, name)
        guard let id = InstanceID(try reader.requiredString("id")) else {
            throw reader.wrong("id", "i- and 8 or 17 hexadecimal digits")
        }
        let base = "\(stateDirectory)/\(id)"
        self.devPath = try reader.string("devPath") ?? devPath ?? base + "/dev"
        sysPath = try reader.string("sysPath") ?? base + "/sys"
        imdsPort = UInt16(try reader.integer("imdsPort", in: 0...65535) ?? 0)
        instance = Instance(
            id: id, type: try reader.string("type") ?? "m6i.large",
            zone: try reader.string("availabilityZone") ?? region + "a",
            mode: try reader.choice("mode", Instance.Mode.self) ?? .nitro,
            state: try reader.choice("state", Instance.State.self) ?? .running,
            launchedAt: unixSeconds,
            attachmentsMax: try reader.integer("attachmentLimit", in: 1...128))
        if let text = try reader.string("attachmentLimitType") {
            instance.limitType = Instance.LimitType(rawValue: text)
            guard instance.limitType != nil || text == "none" else {
                throw reader.wrong("attachmentLimitType", "shared, dedicated or none")
            }
        }
        instance.networkInterfaces = try reader.integer("networkInterfaces", in: 1...64) ?? 1
        instance.instanceStoreDisks = try reader.integer("instanceStoreDisks", in: 0...24) ?? 0
        instance.ebsCards = try reader.integer("ebsCards", in: 1...8) ?? 1
        instance.holdsDetachBack =
            try reader.bool("holdsDetachBack") ?? instance.holdsDetachBack
        instance.canHibernate = try reader.bool("canHibernate") ?? false
        try reader.finish()
    }
}

extension Configuration.VolumeSetting {
    init(
        _ value: JSONValue, _ name: String, region: String, unixSeconds: Int64
    ) throws(InputError) {
        var reader = try ObjectReader(value, name)
        guard let id = VolumeID(try reader.requiredString("id")) else {
            throw reader.wrong("id", "vol- and 8 or 17 hexadecimal digits")
        }
        volume = Volume(
            id: id, zone: try reader.string("availabilityZone") ?? region + "a",
            bytes: try reader.bytes(),
            snapshotID: try reader.string("snapshotId"),
            type: try reader.string("volumeType") ?? "gp3",
            multiAttach: try reader.bool("multiAttachEnabled") ?? false,
            kmsKeyID: try reader.string("kmsKeyId"), createdAt: unixSeconds,
            tags: try reader.strings("tags"))
        content = try reader.choice("content", VolumeContent.self) ?? .blank
        if let value = reader.value("attachedTo") {
            var attachment = try ObjectReader(value, name + ".attachedTo")
            guard let instance = InstanceID(try attachment.requiredString("instance")) else {
                throw attachment.wrong("instance", "an instance id")
            }
            attachedTo = (instance, try attachment.string("device") ?? "/dev/sdf")
            deleteOnTermination = try attachment.bool("deleteOnTermination")
            try attachment.finish()
        }
        try reader.finish()
    }
}

extension Configuration.SnapshotSetting {
    init(_ value: JSONValue, _ name: String, unixSeconds: Int64) throws(InputError) {
        var reader = try ObjectReader(value, name)
        let id = try reader.requiredString("id")
        guard Snapshot.isID(id) else {
            throw reader.wrong("id", "snap- and 8 or 17 hexadecimal digits")
        }
        guard let volume = VolumeID(try reader.string("volumeId") ?? "vol-ffffffff") else {
            throw reader.wrong("volumeId", "vol- and 8 or 17 hexadecimal digits")
        }
        let age = try reader.integer("ageSeconds", in: 0...1_000_000_000) ?? 0
        snapshot = Snapshot(
            id: id, state: try reader.choice("state", Snapshot.State.self) ?? .completed,
            volume: volume, bytes: try reader.bytes(), kmsKeyID: try reader.string("kmsKeyId"),
            description: try reader.string("description") ?? "",
            startedAt: unixSeconds - Int64(age), tags: try reader.strings("tags"))
        content = try reader.choice("content", VolumeContent.self) ?? .blank
        try reader.finish()
    }
}

extension ObjectReader {
    /// The size that `sizeMiB` or `sizeGiB` tells, in bytes; 1 GiB by default.
    fileprivate mutating func bytes() throws(InputError) -> UInt64 {
        let gibibytes = try integer("sizeGiB", in: 1...65536)
        let mebibytes = try integer("sizeMiB", in: 1...65536 * 1024)
        return UInt64(mebibytes ?? (gibibytes ?? 1) * 1024) << 20
    }
}

extension Quotas {
    /// Replaces the members that are present.
    mutating func update(_ value: JSONValue) throws(InputError) {
        var reader = try ObjectReader(value, "quotas")
        storage = try reader.integers("storageGiB") ?? storage
        iops = try reader.integers("iops") ?? iops
        try reader.finish()
    }
}

extension Configuration.CredentialSetting {
    mutating func update(_ value: JSONValue) throws(InputError) {
        var reader = try ObjectReader(value, "credentials")
        for (index, value) in (try reader.array("static") ?? []).enumerated() {
            var key = try ObjectReader(value, "credentials.static[\(index)]")
            fixed.append(
                Credentials(
                    accessKeyID: try key.requiredString("accessKeyId"),
                    secretAccessKey: try key.requiredString("secretAccessKey"),
                    sessionToken: try key.string("sessionToken")))
            try key.finish()
        }
        role = try reader.string("role") ?? role
        lifetime = Int64(
            try reader.integer("lifetimeSeconds", in: 1...86400) ?? Int(lifetime))
        try reader.finish()
    }
}

extension Latency {
    /// Sets the members that are present, in milliseconds.
    mutating func update(_ value: JSONValue) throws(InputError) {
        var reader = try ObjectReader(value, "latency")
        let members: [(String, WritableKeyPath<Latency, Duration>)] = [
            ("api", \.api), ("device", \.device), ("attached", \.attached), ("detach", \.detach),
            ("change", \.change), ("modifying", \.modifying), ("optimizing", \.optimizing),
            ("snapshot", \.snapshot), ("tagFilters", \.tagFilters),
            ("consistency", \.consistency),
            ("tagConsistency", \.tagConsistency),
        ]
        for (member, path) in members {
            guard let milliseconds = try reader.number(member) else { continue }
            guard (0...3_600_000).contains(milliseconds) else {
                throw reader.wrong(member, "from 0 to 3600000 ms")
            }
            self[keyPath: path] = .nanoseconds(Int64(milliseconds * 1e6))
        }
        try reader.finish()
    }
}

extension Throttle {
    /// `false` turns throttling off, `true` on; an object sets buckets by action or class.
    mutating func update(_ value: JSONValue) throws(InputError) {
        if let flag = value.bool {
            isEnabled = flag
            return
        }
        var reader = try ObjectReader(value, "buckets")
        for name in (value.object ?? [:]).names.sorted() {
            guard let value = reader.value(name) else { continue }
            var bucket = try ObjectReader(value, "buckets.\(name)")
            guard let burst = try bucket.number("burst"), burst >= 0,
                let perSecond = try bucket.number("perSecond"), perSecond >= 0
            else { throw InputError("buckets.\(name): needs burst and perSecond") }
            try bucket.finish()
            set(Bucket(burst: burst, perSecond: perSecond), for: name)
        }
    }
}
