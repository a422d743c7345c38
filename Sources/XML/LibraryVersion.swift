import CExpat

/// As reported by the linked library: `2.5.0`.
package var expatVersion: String {
    let version = XML_ExpatVersionInfo()
    return "\(version.major).\(version.minor).\(version.micro)"
}
