package import Base
import XML

/// Parses EC2's responses to the calls of `EC2Request`. Whatever cannot be understood is
/// `EC2Failure.malformed`: no guesses are made where a volume's data may depend on it.
package enum EC2Answer {
    package static func volumes(_ body: [UInt8]) throws(EC2Failure) -> [VolumeDescription] {
        let root = try whole(of: body, named: "DescribeVolumesResponse")
        var volumes: [VolumeDescription] = []
        for item in items(of: root["volumeSet"]) { volumes.append(try parsedVolume(item)) }
        return volumes
    }

    /// The root of a description. Without MaxResults there is only one page; a volume on another
    /// page would seem not to exist.
    private static func whole(
        of body: [UInt8], named name: String
    ) throws(EC2Failure) -> XMLElement {
        let root = try root(of: body, named: name)
        guard root.text(of: "nextToken") == nil else {
            throw .malformed(reason: "\(name) is one page of several, though none was asked for")
        }
        return root
    }

    package static func instances(_ body: [UInt8]) throws(EC2Failure) -> [InstanceDescription] {
        let root = try whole(of: body, named: "DescribeInstancesResponse")
        var instances: [InstanceDescription] = []
        for reservation in items(of: root["reservationSet"]) {
            for item in items(of: reservation["instancesSet"]) {
                instances.append(try parsedInstance(item))
            }
        }
        return instances
    }

    /// Nil if the type is not described, or without a limit.
    package static func attachmentLimit(
        _ body: [UInt8], of instanceType: String
    ) throws(EC2Failure) -> AttachmentLimit? {
        let root = try whole(of: body, named: "DescribeInstanceTypesResponse")
        let types = items(of: root["instanceTypeSet"])
        guard let item = types.first(where: { $0.text(of: "instanceType") == instanceType }),
            let text = item["ebsInfo"]?.text(of: "maximumEbsAttachments")
        else { return nil }
        guard let volumesMax = Int(text), volumesMax > 0 else {
            throw .malformed(
                reason: "an \(instanceType) takes '\(text.prefix(64))' volumes at most")
        }
        let disks = items(of: item["instanceStorageInfo"]?["disks"]).compactMap {
            $0.text(of: "count").flatMap { UInt16($0) }
        }
        // EC2 calls the limit of Xen and bare metal instances shared, although it is not.
        let isShared =
            item["ebsInfo"]?.text(of: "attachmentLimitType") == "shared"
            && item.text(of: "hypervisor") == "nitro"
        return AttachmentLimit(
            instanceType: instanceType, volumesMax: volumesMax, isShared: isShared,
            instanceStoreDisks: disks.reduce(0) { $0 + Int($1) })
    }

    /// The response to AttachVolume or DetachVolume for `volume`.
    package static func attachment(_ body: [UInt8], of volume: VolumeID, action: String)
        throws(EC2Failure) -> VolumeAttachment
    {
        let root = try root(of: body, named: "\(action)Response")
        let attachment = try parsedAttachment(root, of: volume)
        guard root.text(of: "volumeId") == volume.description else {
            throw .malformed(reason: "\(action) answered for another volume than \(volume)")
        }
        return attachment
    }

    /// The response to CreateTags or DeleteTags.
    package static func done(_ body: [UInt8], action: String) throws(EC2Failure) {
        let root = try root(of: body, named: "\(action)Response")
        // Imitations of EC2 may omit `return`; EC2 does not.
        if let result = root.text(of: "return"), result != "true" {
            throw .malformed(reason: "\(action) answered that its result is \(result.prefix(64))")
        }
    }
}

private func root(of body: [UInt8], named name: String) throws(EC2Failure) -> XMLElement {
    let root: XMLElement
    do { root = try XMLElement.parse(body) } catch { throw .malformed(reason: "\(error)") }
    guard root.name == name else {
        throw .malformed(reason: "expected <\(name)>, found <\(root.name.prefix(64))>")
    }
    return root
}

private func items(of set: XMLElement?) -> [XMLElement] {
    set?.children.filter { $0.name == "item" } ?? []
}

private func required(_ name: String, in element: XMLElement, of what: String)
    throws(EC2Failure) -> String
{
    guard let text = element.text(of: name) else {
        throw .malformed(reason: "\(what) without \(name)")
    }
    return text
}

private func parsedVolume(_ item: XMLElement) throws(EC2Failure) -> VolumeDescription {
    let idText = try required("volumeId", in: item, of: "a volume")
    guard let id = VolumeID(idText) else {
        throw .malformed(reason: "a volume's id is '\(idText.prefix(64))'")
    }
    let sizeText = try required("size", in: item, of: "\(id)")
    guard let size = Int(sizeText), size >= 0 else {
        throw .malformed(reason: "the size of \(id) is '\(sizeText.prefix(64))'")
    }
    var attachments: [VolumeAttachment] = []
    for attachmentItem in items(of: item["attachmentSet"]) {
        attachments.append(try parsedAttachment(attachmentItem, of: id))
    }
    var tags: [String: String] = [:]
    for tag in items(of: item["tagSet"]) {
        if let key = tag.text(of: "key") { tags[key] = tag.text(of: "value") ?? "" }
    }
    return VolumeDescription(
        id: id, state: .init(try required("status", in: item, of: "\(id)")),
        availabilityZone: try required("availabilityZone", in: item, of: "\(id)"), size: size,
        snapshotID: item.text(of: "snapshotId"), volumeType: item.text(of: "volumeType") ?? "",
        multiAttachEnabled: item.text(of: "multiAttachEnabled") == "true",
        kmsKeyID: item.text(of: "kmsKeyId"), attachments: attachments, tags: tags)
}

/// For a volume that an AWS service (Fargate) uses, EC2 names no instance, or one outside of this
/// account.
private func parsedAttachment(_ item: XMLElement, of volume: VolumeID) throws(EC2Failure)
    -> VolumeAttachment
{
    VolumeAttachment(
        volume: volume, instance: item.text(of: "instanceId").flatMap { InstanceID($0) },
        device: item.text(of: "device"),
        state: .init(try required("status", in: item, of: "an attachment of \(volume)")),
        deleteOnTermination: item.text(of: "deleteOnTermination") == "true")
}

private func parsedInstance(_ item: XMLElement) throws(EC2Failure) -> InstanceDescription {
    let idText = try required("instanceId", in: item, of: "an instance")
    guard let id = InstanceID(idText) else {
        throw .malformed(reason: "an instance's id is '\(idText.prefix(64))'")
    }
    guard let state = item["instanceState"]?.text(of: "name") else {
        throw .malformed(reason: "\(id) without instanceState")
    }
    return InstanceDescription(
        id: id, state: .init(state), instanceType: item.text(of: "instanceType") ?? "",
        availabilityZone: item["placement"]?.text(of: "availabilityZone") ?? "",
        mappings: items(of: item["blockDeviceMapping"]).compactMap { mapping in
            mapping.text(of: "deviceName").map { name in
                BlockDeviceMapping(
                    deviceName: name,
                    volume: mapping["ebs"]?.text(of: "volumeId").flatMap { VolumeID($0) })
            }
        }, networkInterfaces: items(of: item["networkInterfaceSet"]).count,
        rootDeviceName: item.text(of: "rootDeviceName"), isHibernated: isHibernated(item))
}

/// Whether an instance that is not running keeps its memory. An instance that can hibernate may
/// also have been stopped normally, which only the reason shows; without a reason it is assumed to
/// hibernate.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/hibernating-resume.html, and for the codes
/// docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html.
private func isHibernated(_ item: XMLElement) -> Bool {
    guard item["instanceState"]?.text(of: "name").map({ $0.hasPrefix("stop") }) == true else {
        return false
    }
    let reason = item["stateReason"]?.text(of: "code")
    if reason == "Client.UserInitiatedHibernate" { return true }
    let canHibernate = item["hibernationOptions"]?.text(of: "configured") == "true"
    return canHibernate && reason != "Client.UserInitiatedShutdown"
        && reason != "Client.InstanceInitiatedShutdown"
}

extension VolumeDescription.State {
    fileprivate init(_ text: String) {
        self =
            switch text {
            case "creating": .creating
            case "available": .available
            case "in-use": .inUse
            case "deleting": .deleting
            case "deleted": .deleted
            case "error": .error
            default: .other(text)
            }
    }
}

extension VolumeAttachment.State {
    fileprivate init(_ text: String) {
        self =
            switch text {
            case "attaching": .attaching
            case "attached": .attached
            case "detaching": .detaching
            case "detached": .detached
            case "busy": .busy
            default: .other(text)
            }
    }
}

extension InstanceDescription.State {
    fileprivate init(_ text: String) {
        self =
            switch text {
            case "pending": .pending
            case "running": .running
            case "shutting-down": .shuttingDown
            case "terminated": .terminated
            case "stopping": .stopping
            case "stopped": .stopped
            default: .other(text)
            }
    }
}
