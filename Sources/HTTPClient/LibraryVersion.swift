import CCares

/// As the library that is linked tells it: `1.18.1`.
package var caresVersion: String { String(cString: ares_version(nil)) }
