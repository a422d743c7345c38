import CJansson

/// As reported by the linked library: `2.14`.
package var janssonVersion: String { unsafe String(cString: jansson_version_str()) }
