import CJansson

/// As the library that is linked tells it: `2.14`.
package var janssonVersion: String { unsafe String(cString: jansson_version_str()) }
