import CCares

/// As reported by the linked library: `1.18.1`.
package var caresVersion: String { String(cString: ares_version(nil)) }
