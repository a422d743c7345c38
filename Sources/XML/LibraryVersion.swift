import CExpat

/// As the library that is linked tells it: `2.5.0`.
package var expatVersion: String {
    let version = XML_ExpatVersionInfo()
    return "\(version.major).\(version.minor).\(version.micro)"
}
