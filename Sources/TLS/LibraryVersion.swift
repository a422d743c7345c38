import COpenSSL

/// As reported by the linked library: `3.0.19`.
package var openSSLVersion: String { String(cString: OpenSSL_version(OPENSSL_VERSION_STRING)) }
