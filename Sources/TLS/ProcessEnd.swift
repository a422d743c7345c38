import COpenSSL

/// Keeps OpenSSL's tables until the process has ended. By default it frees them at exit(3), and a
/// thread that is using them, for instance to parse certificates, crashes.
///
/// To be called once, before anything else of this module. Source: OPENSSL_init_crypto(3),
/// OPENSSL_INIT_NO_ATEXIT.
package func keepOpenSSLToTheEnd() { OPENSSL_init_crypto(UInt64(OPENSSL_INIT_NO_ATEXIT), nil) }
