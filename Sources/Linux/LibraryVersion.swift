import CBlkid

/// As the library that is linked tells it: `2.38.1`.
package var libblkidVersion: String {
    var version: UnsafePointer<CChar>?
    blkid_get_library_version(&version, nil)
    return version.map { String(cString: $0) } ?? "unknown"
}
