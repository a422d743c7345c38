/// The key of an encrypted volume.
extension Region {
    /// The ARN of the key with which a new volume is encrypted; nil if it is not. What is made from
    /// something encrypted is encrypted, with the key of its source if no other is ordered.
    ///
    /// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html.
    func encryptionKey(
        _ parameters: QueryParameters, source: String?
    ) throws(APIError) -> String? {
        let isOrdered = try parameters.flag("Encrypted") ?? false
        guard let key = parameters["KmsKeyId"] else {
            return source ?? (isOrdered ? keyARN("alias/aws/ebs") : nil)
        }
        guard isOrdered || source != nil else {
            throw APIError(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.")
        }
        return keyARN(key)
    }

    /// The ARN of the key that is named by ARN, id or alias. EC2 never shows an alias: the key of
    /// an alias is a made-up one, always the same.
    func keyARN(_ name: String) -> String {
        let keys = "arn:aws:kms:\(self.name):\(accountID):"
        guard let alias = name.split(separator: ":").last, alias.hasPrefix("alias/") else {
            return name.hasPrefix("arn:") ? name : keys + "key/" + name
        }
        return keys + "key/" + madeUpID(alias)
    }

    /// A UUID that depends on the text alone (FNV-1a, twice).
    private func madeUpID(_ text: Substring) -> String {
        var digits = ""
        for seed in [UInt64(0xcbf2_9ce4_8422_2325), 0x8422_2325_cbf2_9ce4] {
            let hash = text.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
            let hex = String(hash, radix: 16)
            digits += String(repeating: "0", count: 16 - hex.count) + hex
        }
        var groups: [Substring] = []
        var rest = digits[...]
        for length in [8, 4, 4, 4, 12] {
            groups.append(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        return groups.joined(separator: "-")
    }
}
