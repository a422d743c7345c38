package import Base

/// A call of the EC2 Query API, version 2016-11-15.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html.
package struct EC2Request: Sendable {
    package static let version = "2016-11-15"
    package static let contentType = "application/x-www-form-urlencoded; charset=utf-8"

    package typealias Parameter = (name: String, value: String)

    package let action: String
    package let parameters: [Parameter]
    /// Whether the call may be sent again if its response was lost: it only reads, or applying it
    /// twice has the same effect as once.
    package let isRepeatable: Bool
    /// Whether it is sent only once, whatever the outcome: the facts that justify it may not hold a
    /// moment later.
    package var isSentOnce = false

    /// The form to post.
    package var body: [UInt8] {
        let fixed: [Parameter] = [("Action", action), ("Version", Self.version)]
        let form = (fixed + parameters).map {
            "\(percentEncoded($0.name.utf8))=\(percentEncoded($0.value.utf8))"
        }
        return Array(form.joined(separator: "&").utf8)
    }

    /// Uses a filter: then a volume that does not exist is omitted instead of causing an error, and
    /// the call draws on the larger of EC2's two request budgets. At most
    /// `Limit.volumesPerLookupMax`.
    package static func describeVolumes(_ ids: [VolumeID]) -> EC2Request {
        precondition(ids.count <= Limit.volumesPerLookupMax, "a filter takes no more values")
        return read("DescribeVolumes", filter: "volume-id", ids.map(\.description))
    }

    /// Uses a filter, like `describeVolumes(_:)`.
    package static func describeInstance(_ id: InstanceID) -> EC2Request {
        read("DescribeInstances", filter: "instance-id", [id.description])
    }

    /// Uses a filter, like `describeVolumes(_:)`.
    package static func describeInstanceType(_ type: String) -> EC2Request {
        read("DescribeInstanceTypes", filter: "instance-type", [type])
    }

    package static func attach(_ volume: VolumeID, to instance: InstanceID, as device: String)
        -> EC2Request
    {
        EC2Request(
            action: "AttachVolume",
            parameters: [
                ("VolumeId", volume.description), ("InstanceId", instance.description),
                ("Device", device),
            ], isRepeatable: false)
    }

    package static func detach(_ volume: VolumeID, from instance: InstanceID, force: Bool)
        -> EC2Request
    {
        var parameters: [Parameter] = [
            ("VolumeId", volume.description), ("InstanceId", instance.description),
        ]
        if force { parameters.append(("Force", "true")) }
        return EC2Request(
            action: "DetachVolume", parameters: parameters, isRepeatable: false, isSentOnce: true)
    }

    package static func setTags(_ tags: [String: String], on volume: VolumeID) -> EC2Request {
        var parameters: [Parameter] = [("ResourceId.1", volume.description)]
        for (number, tag) in tags.sorted(by: { $0.key < $1.key }).enumerated() {
            parameters += [
                ("Tag.\(number + 1).Key", tag.key), ("Tag.\(number + 1).Value", tag.value),
            ]
        }
        return EC2Request(action: "CreateTags", parameters: parameters, isRepeatable: true)
    }

    /// The same call as a dry run, which only asks whether the caller is allowed to make it: EC2
    /// answers with the error DryRunOperation or UnauthorizedOperation.
    package var asDryRun: EC2Request {
        EC2Request(
            action: action, parameters: parameters + [("DryRun", "true")], isRepeatable: true)
    }

    /// Removes the tag if it still has that value.
    package static func removeTag(_ key: String, value: String, from volume: VolumeID) -> EC2Request
    {
        EC2Request(
            action: "DeleteTags",
            parameters: [
                ("ResourceId.1", volume.description), ("Tag.1.Key", key), ("Tag.1.Value", value),
            ], isRepeatable: true)
    }

    private static func read(_ action: String, filter: String, _ values: [String]) -> EC2Request {
        let numbered = values.enumerated().map { Parameter("Filter.1.Value.\($0 + 1)", $1) }
        return EC2Request(
            action: action, parameters: [("Filter.1.Name", filter)] + numbered, isRepeatable: true)
    }
}
