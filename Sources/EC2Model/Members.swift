import Base

/// The form of volumes and instances in responses and for filters.
///
/// Source of the member names: docs.aws.amazon.com/AWSEC2/latest/APIReference.

func tagSet(_ tags: [String: String]) -> XMLNode {
    .list(
        "tagSet",
        tags.sorted { $0.key < $1.key }.map {
            [XMLNode("key", $0.key), XMLNode("value", $0.value)]
        }
    )
}

func stateMembers(_ state: Instance.State) -> [XMLNode] {
    [XMLNode("code", "\(state.code)"), XMLNode("name", state.rawValue)]
}

extension Attachment {
    func members(of volume: VolumeID) -> [XMLNode] {
        [
            XMLNode("volumeId", "\(volume)"), XMLNode("instanceId", "\(instance)"),
            XMLNode("device", deviceName), XMLNode("status", state.rawValue),
            XMLNode("attachTime", timestamp(attachedAt)),
            XMLNode("deleteOnTermination", deleteOnTermination ? "true" : "false"),
        ] + cardMembers
    }

    fileprivate var cardMembers: [XMLNode] {
        ebsCard.map { [XMLNode("ebsCardIndex", "\($0)")] } ?? []
    }
}

extension Volume {
    /// The response to CreateVolume has no attachment set.
    func members(withAttachments: Bool = true) -> [XMLNode] {
        var members = [
            XMLNode("volumeId", "\(id)"), XMLNode("size", "\(gibibytes)"),
            XMLNode("snapshotId", snapshotID ?? ""), XMLNode("availabilityZone", zone),
            XMLNode("status", state.rawValue),
            XMLNode("createTime", timestamp(createdAt)),
        ]
        if withAttachments {
            members.append(.list("attachmentSet", attachments.map { $0.members(of: id) }))
        }
        if !tags.isEmpty { members.append(tagSet(tags)) }
        members += [
            XMLNode("volumeType", type), XMLNode("encrypted", "\(kmsKeyID != nil)"),
            XMLNode("multiAttachEnabled", multiAttach ? "true" : "false"),
        ]
        let optional: [(String, String?)] = [
            ("iops", reportedIOPS.map { "\($0)" }), ("throughput", throughput.map { "\($0)" }),
            ("kmsKeyId", kmsKeyID), ("sourceVolumeId", sourceVolumeID?.description),
            ("volumeInitializationRate", initializationRate.map { "\($0)" }),
        ]
        for case (let name, let value?) in optional { members.append(XMLNode(name, value)) }
        return members
    }

    /// For gp2 its baseline: docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html.
    private var reportedIOPS: Int? {
        type == "gp2" ? min(max(3 * Int(gibibytes), 100), 16000) : iops
    }

    func filterValues(_ name: String) -> [String]? {
        switch name {
        case "volume-id": [id.description]
        case "status": [state.rawValue]
        case "availability-zone": [zone]
        case "size": ["\(gibibytes)"]
        case "create-time": [timestamp(createdAt)]
        case "snapshot-id": snapshotID.map { [$0] } ?? []
        case "volume-type": [type]
        case "encrypted": ["\(kmsKeyID != nil)"]
        case "multi-attach-enabled": [multiAttach ? "true" : "false"]
        case "attachment.instance-id": attachments.map(\.instance.description)
        case "attachment.status": attachments.map(\.state.rawValue)
        case "attachment.device": attachments.map(\.deviceName)
        case "attachment.delete-on-termination": attachments.map { "\($0.deleteOnTermination)" }
        default: nil
        }
    }
}

extension Region {
    func members(_ instance: Instance) -> [XMLNode] {
        var members = [
            XMLNode("instanceId", "\(instance.id)"), XMLNode("imageId", "ami-00000000000000001"),
            XMLNode("instanceState", stateMembers(instance.state)),
            XMLNode("privateDnsName", ""), XMLNode("dnsName", ""), XMLNode("reason", ""),
            XMLNode("amiLaunchIndex", "0"), XMLNode("productCodes", []),
            XMLNode("instanceType", instance.type),
            XMLNode("launchTime", timestamp(instance.launchedAt)),
            XMLNode(
                "placement",
                [
                    XMLNode("availabilityZone", instance.zone), XMLNode("groupName", ""),
                    XMLNode("tenancy", "default"),
                ]),
            XMLNode("monitoring", [XMLNode("state", "disabled")]),
            XMLNode("architecture", "x86_64"), XMLNode("rootDeviceType", "ebs"),
            XMLNode("rootDeviceName", instance.rootDeviceName),
            .list("blockDeviceMapping", mappings(instance)),
            .list("networkInterfaceSet", networkInterfaces(instance)),
            XMLNode("virtualizationType", "hvm"),
        ]
        if !instance.tags.isEmpty { members.append(tagSet(instance.tags)) }
        return members + [
            // EC2 reports xen for Nitro instances too.
            XMLNode("hypervisor", "xen"), XMLNode("ebsOptimized", "true"),
            XMLNode(
                "hibernationOptions", [XMLNode("configured", "\(instance.canHibernate)")]),
        ] + stateReason(instance)
    }

    private func stateReason(_ instance: Instance) -> [XMLNode] {
        guard let code = instance.stateReason else { return [] }
        return [
            XMLNode("stateReason", [XMLNode("code", code), XMLNode("message", code + ": ")])
        ]
    }

    private func networkInterfaces(_ instance: Instance) -> [[XMLNode]] {
        if instance.state == .terminated { return [] }
        return (0..<instance.networkInterfaces).map { index in
            let id = "eni-\(index)" + instance.id.description.dropFirst(3)
            let attachment = [
                XMLNode("deviceIndex", "\(index)"), XMLNode("status", "attached"),
                XMLNode("attachTime", timestamp(instance.launchedAt)),
            ]
            return [
                XMLNode("networkInterfaceId", id), XMLNode("status", "in-use"),
                XMLNode("attachment", attachment), XMLNode("interfaceType", "interface"),
            ]
        }
    }

    private func mappings(_ instance: Instance) -> [[XMLNode]] {
        if instance.state == .terminated { return [] }
        let others = attachments(of: instance.id).map {
            (
                $0.attachment.deviceName, "\($0.volume)", mappingStatus($0.attachment.state),
                $0.attachment.attachedAt, $0.attachment.deleteOnTermination,
                $0.attachment.cardMembers
            )
        }
        let root = (
            instance.rootDeviceName, instance.rootVolumeID, "attached", instance.launchedAt, true,
            [XMLNode]()
        )
        let all = hasRootVolume(instance) ? others : [root] + others
        return all.map { name, volume, status, time, deleteOnTermination, card in
            [
                XMLNode("deviceName", name),
                XMLNode(
                    "ebs",
                    [
                        XMLNode("volumeId", volume), XMLNode("status", status),
                        XMLNode("attachTime", timestamp(time)),
                        XMLNode("deleteOnTermination", "\(deleteOnTermination)"),
                    ] + card),
            ]
        }
    }

    /// A mapping has no `busy` (API_EbsInstanceBlockDevice.html).
    private func mappingStatus(_ state: Attachment.State) -> String {
        state == .busy ? "detaching" : state.rawValue
    }

    func filterValues(_ instance: Instance, _ name: String) -> [String]? {
        switch name {
        case "instance-id": [instance.id.description]
        case "instance-state-name": [instance.state.rawValue]
        case "instance-state-code": ["\(instance.state.code)"]
        case "availability-zone": [instance.zone]
        case "instance-type": [instance.type]
        case "block-device-mapping.device-name":
            [instance.rootDeviceName] + attachments(of: instance.id).map(\.attachment.deviceName)
        case "block-device-mapping.volume-id":
            [instance.rootVolumeID] + attachments(of: instance.id).map(\.volume.description)
        case "block-device-mapping.status":
            ["attached"] + attachments(of: instance.id).map { mappingStatus($0.attachment.state) }
        default: nil
        }
    }
}

extension Page {
    var tokenMember: [XMLNode] { nextToken.map { [XMLNode("nextToken", $0)] } ?? [] }
}
