import CBlkid

/// As reported by the linked library: `2.38.1`.
package var libblkidVersion: String {
    var version: UnsafePointer<CChar>?
    blkid_get_library_version(&version, nil)
    return version.map { String(cString: $0) } ?? "unknown"
}
