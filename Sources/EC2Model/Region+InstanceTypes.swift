import Base

/// DescribeInstanceTypes, for the types of the existing instances.
extension Region {
    func describeInstanceTypes(_ parameters: QueryParameters) throws(APIError) -> [XMLNode] {
        let filters = try Filters(parameters)
        let named = parameters.list("InstanceType")
        // If instances of one type differ, the first one represents the type.
        let byType = Dictionary(
            instances.values.sorted { $0.id.description < $1.id.description }.map { ($0.type, $0) },
            uniquingKeysWith: { first, _ in first })
        let missing = named.filter { byType[$0] == nil }
        guard missing.isEmpty else {
            throw APIError(
                "InvalidInstanceType",
                "The following supplied instance types do not exist: "
                    + "[\(missing.joined(separator: ", "))]")
        }
        var found: [Instance] = []
        for (type, instance) in byType.sorted(by: { $0.key < $1.key })
        where named.isEmpty || named.contains(type) {
            let values = { (name: String) in typeFilterValues(instance, name) }
            if try filters.accept(tags: [:], values) { found.append(instance) }
        }
        let page = try Page(found, parameters, max: 100)
        return [.list("instanceTypeSet", page.elements.map(typeMembers))] + page.tokenMember
    }

    private func typeFilterValues(_ instance: Instance, _ name: String) -> [String]? {
        switch name {
        case "instance-type": [instance.type]
        case "hypervisor": [instance.hypervisor]
        case "bare-metal": ["false"]
        case "instance-storage-supported": ["\(instance.instanceStoreDisks > 0)"]
        default: nil
        }
    }

    private func typeMembers(_ instance: Instance) -> [XMLNode] {
        var members = [
            XMLNode("instanceType", instance.type), XMLNode("currentGeneration", "true"),
            XMLNode("bareMetal", "false"), XMLNode("hypervisor", instance.hypervisor),
            XMLNode("instanceStorageSupported", "\(instance.instanceStoreDisks > 0)"),
        ]
        if instance.instanceStoreDisks > 0 { members.append(storage(instance)) }
        return members + [XMLNode("ebsInfo", ebsInfo(instance))]
    }

    private func storage(_ instance: Instance) -> XMLNode {
        let disk = [
            XMLNode("sizeInGB", "75"), XMLNode("count", "\(instance.instanceStoreDisks)"),
            XMLNode("type", "ssd"),
        ]
        return XMLNode(
            "instanceStorageInfo",
            [
                XMLNode("totalSizeInGB", "\(75 * instance.instanceStoreDisks)"),
                .list("disks", [disk]), XMLNode("nvmeSupport", "required"),
            ])
    }

    private func ebsInfo(_ instance: Instance) -> [XMLNode] {
        let support = [
            XMLNode("ebsOptimizedSupport", "default"), XMLNode("encryptionSupport", "supported"),
            XMLNode("nvmeSupport", instance.mode == .nitro ? "required" : "unsupported"),
        ]
        guard let type = instance.limitType else { return support }
        return support + [
            XMLNode("maximumEbsAttachments", "\(instance.attachmentsMax)"),
            XMLNode("attachmentLimitType", type.rawValue),
            XMLNode("maximumEbsCards", "\(instance.ebsCards)"),
            .list("ebsCardSet", (0..<instance.ebsCards).map { [XMLNode("ebsCardIndex", "\($0)")] }),
        ]
    }
}

extension Instance {
    fileprivate var hypervisor: String { mode == .nitro ? "nitro" : "xen" }
}
