import COpenSSL

/// The settings that the sessions of one client or server share: trust, certificate, policy.
///
/// TLS 1.2 and 1.3; for 1.2 only ECDHE with AEAD ciphers (RFC 9325, section 4.2). OpenSSL's
/// configuration file is not read, so behaviour does not depend on the machine.
///
/// Creating a client's context reads and parses its files. For a distribution's complete bundle
/// this takes 30 ms, so it must not run on the ring. A finished context never changes, and any
/// thread may use it.
package final class TLSContext: @unchecked Sendable {
    package enum Role: Sendable { case client, server }

    package let role: Role
    let pointer: OpaquePointer

    private init(_ role: Role, method: OpaquePointer?) throws(TLSError) {
        ERR_clear_error()
        guard OPENSSL_init_ssl(UInt64(OPENSSL_INIT_NO_LOAD_CONFIG), nil) == 1,
            let pointer = SSL_CTX_new(method)
        else { throw TLSError(.files, "OpenSSL does not start: \(drainErrorQueue())") }
        self.role = role
        self.pointer = pointer
        precondition(COpenSSL_require_tls_1_2(pointer) == 1, "TLS 1.2")
        precondition(
            SSL_CTX_set_cipher_list(pointer, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1, "cipher list")
        COpenSSL_refuse_renegotiation(pointer)
        // An idle connection then uses about 10 KB instead of 40.
        COpenSSL_release_idle_buffers(pointer)
    }

    deinit { SSL_CTX_free(pointer) }

    /// A client that trusts the certificates in `caFile` (PEM).
    package static func client(caFile: String) throws(TLSError) -> TLSContext {
        try client(caFiles: [caFile])
    }

    /// A client that trusts the certificates in all of `caFiles` (PEM). Each file must contain at
    /// least one.
    package static func client(caFiles: [String]) throws(TLSError) -> TLSContext {
        precondition(!caFiles.isEmpty, "a client that trusts nobody")
        let context = try TLSContext(.client, method: TLS_client_method())
        for file in caFiles where SSL_CTX_load_verify_file(context.pointer, file) != 1 {
            throw TLSError(.files, "no CA certificates from \(file): \(drainErrorQueue())")
        }
        SSL_CTX_set_verify(context.pointer, SSL_VERIFY_PEER, noteRefusedCertificate)
        COpenSSL_keep_client_sessions_outside(context.pointer)
        SSL_CTX_sess_set_new_cb(context.pointer, keepResumption)
        return context
    }

    /// A server with the certificate chain (leaf first) and the unencrypted private key in these
    /// PEM files. It does not ask clients for a certificate, and offers session tickets.
    package static func server(certificate: String, key: String) throws(TLSError) -> TLSContext {
        let context = try TLSContext(.server, method: TLS_server_method())
        // Without this, OpenSSL asks for the passphrase of a key on the terminal.
        SSL_CTX_set_default_passwd_cb(context.pointer) { _, _, _, _ in 0 }
        guard SSL_CTX_use_certificate_chain_file(context.pointer, certificate) == 1 else {
            throw TLSError(.files, "no certificate from \(certificate): \(drainErrorQueue())")
        }
        guard SSL_CTX_use_PrivateKey_file(context.pointer, key, SSL_FILETYPE_PEM) == 1 else {
            throw TLSError(.files, "no private key from \(key): \(drainErrorQueue())")
        }
        COpenSSL_keep_no_server_sessions(context.pointer)
        return context
    }
}
