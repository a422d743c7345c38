/// The names under which a volume can be attached.
///
/// Source: docs.aws.amazon.com/ebs/latest/userguide/device_naming.html, HVM; the last two-letter
/// name that EC2 accepts is xvddx.
enum DeviceNameRules {
    /// `name` as a mapping lists it, with `/dev/`; nil if EC2 does not accept it.
    static func canonical(_ name: String) -> String? {
        let bare = name.hasPrefix("/dev/") ? name.dropFirst(5) : name[...]
        guard let letters = suffix(bare), isValid(letters, xvd: bare.hasPrefix("xvd")) else {
            return nil
        }
        return "/dev/" + bare
    }

    /// The node under which a Xen guest sees `name`: /dev/sdf and /dev/xvdf are both `xvdf`.
    static func xenNode(_ name: String) -> String {
        let bare = name.hasPrefix("/dev/") ? name.dropFirst(5) : name[...]
        return "xvd" + (suffix(bare) ?? bare)
    }

    /// The part after `sd` or `xvd`.
    private static func suffix(_ bare: Substring) -> Substring? {
        if bare.hasPrefix("xvd") { return bare.dropFirst(3) }
        if bare.hasPrefix("sd") { return bare.dropFirst(2) }
        return nil
    }

    private static func isValid(_ suffix: Substring, xvd: Bool) -> Bool {
        let letters = suffix.prefix { ("a"..."z").contains($0) }
        let digits = suffix.dropFirst(letters.count)
        switch letters.count {
        case 1:
            return digits.isEmpty || !xvd && (1...15).contains(Int(digits) ?? 0)
        case 2:
            return xvd && digits.isEmpty && letters >= "ba" && letters <= "dx"
        default:
            return false
        }
    }
}
