import COpenSSL

/// As the library that is linked tells it: `3.0.19`.
package var openSSLVersion: String { String(cString: OpenSSL_version(OPENSSL_VERSION_STRING)) }
