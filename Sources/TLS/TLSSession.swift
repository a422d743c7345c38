import COpenSSL

/// One TLS connection without its transport: the owner moves the ciphertext in and out.
///
/// The owner passes what the peer sent to `feed`. After every call that may produce ciphertext
/// (`handshake`, `read`, `write`, `close`, also if it throws, in which case there is an alert), the
/// owner drains `takeCiphertext` to the peer. Owns no descriptor. Not thread-safe. After an error
/// the session can only be drained.
package final class TLSSession {
    /// The result of `read`.
    package enum ReadResult: Sendable, Equatable {
        /// The number of plaintext bytes, at least one.
        case bytes(Int)
        /// A whole record has not arrived: `feed` more.
        case needsCiphertext
        /// The peer has announced that it sends no more (close_notify). No data was lost.
        case closed
    }

    /// The peer's latest ticket, initially the one that was passed in; nil for a server. TLS 1.3
    /// servers send tickets after the handshake, so check again after reading a response.
    package private(set) var resumption: TLSResumption?

    private let context: TLSContext
    private let host: String?
    private let ssl: OpaquePointer
    /// Both belong to `ssl`.
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer
    private var transportEnded = false
    fileprivate var refusedCertificate: String?

    /// The client side. The server must prove to be `host`: a name (sent by SNI), or an IP address
    /// literal without brackets (which SNI does not support, RFC 6066, section 3).
    ///
    /// `resumption` must be nil or come from a session with the same context and host: resuming
    /// skips verification.
    package static func client(
        _ context: TLSContext, host: String, resuming resumption: TLSResumption? = nil
    ) throws(TLSError) -> TLSSession {
        precondition(context.role == .client)
        precondition(!host.utf8.contains(0), "a host name contains NUL")
        let session = try TLSSession(context, host: host)
        try session.expect(host)
        if let resumption {
            precondition(resumption.context === context && resumption.host == host)
            SSL_set_session(session.ssl, resumption.pointer)
            session.resumption = resumption
        }
        SSL_set_connect_state(session.ssl)
        return session
    }

    /// The server side.
    package static func server(_ context: TLSContext) throws(TLSError) -> TLSSession {
        precondition(context.role == .server)
        let session = try TLSSession(context, host: nil)
        SSL_set_accept_state(session.ssl)
        return session
    }

    private init(_ context: TLSContext, host: String?) throws(TLSError) {
        ERR_clear_error()
        guard let ssl = SSL_new(context.pointer) else {
            throw TLSError(.protocolFailure, "no session: \(drainErrorQueue())")
        }
        guard let incoming = BIO_new(BIO_s_mem()), let outgoing = BIO_new(BIO_s_mem()) else {
            fatalError("out of memory")
        }
        SSL_set_bio(ssl, incoming, outgoing)
        self.context = context
        self.host = host
        self.ssl = ssl
        self.incoming = incoming
        self.outgoing = outgoing
        // For the callbacks, which only run inside calls on `ssl`, that is, while self is alive.
        SSL_set_ex_data(ssl, 0, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        // Without this, SSL_free considers the connection broken and marks its session as not
        // resumable (ssl_clear_bad_session).
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        SSL_free(ssl)
    }

    private func expect(_ host: String) throws(TLSError) {
        let parameters = SSL_get0_param(ssl)
        if X509_VERIFY_PARAM_set1_ip_asc(parameters, host) == 1 { return }
        ERR_clear_error()
        // RFC 9525: the subject's common name is not a host name; `w*.example` matches nothing.
        SSL_set_hostflags(
            ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
        guard SSL_set1_host(ssl, host) == 1, COpenSSL_set_server_name(ssl, host) == 1 else {
            throw TLSError(.untrustedPeer, "\(host) is not a host name: \(drainErrorQueue())")
        }
    }

    // MARK: Ciphertext

    /// Accepts all bytes that the transport received.
    package func feed(_ ciphertext: UnsafeRawBufferPointer) {
        precondition(!transportEnded)
        if ciphertext.isEmpty { return }
        let count = BIO_write(incoming, ciphertext.baseAddress, Int32(ciphertext.count))
        precondition(Int(count) == ciphertext.count, "a memory BIO takes all or memory is out")
    }

    /// Reports that the transport received its last byte. From then on, `handshake` and `read`
    /// throw `truncated` instead of asking for more.
    package func feedEnd() { transportEnded = true }

    /// How many bytes wait to be sent to the peer.
    package var ciphertextCount: Int { Int(COpenSSL_bio_pending(outgoing)) }

    /// Moves bytes for the peer into `buffer`, and returns how many; 0 if there are none.
    package func takeCiphertext(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = BIO_read(outgoing, buffer.baseAddress, Int32(clamping: buffer.count))
        return max(0, Int(count))
    }

    // MARK: Handshake and plaintext

    /// Continues the handshake, and returns whether it is complete. If not, it needs the peer's
    /// next bytes.
    package func handshake() throws(TLSError) -> Bool {
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        if result == 1 { return true }
        guard SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else { throw failure() }
        if transportEnded {
            throw TLSError(.truncated, "the peer closed the connection during the handshake")
        }
        return false
    }

    /// Decrypts into `buffer`, which must not be empty; at most one record (16 KiB) in one call.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(TLSError) -> ReadResult {
        precondition(!buffer.isEmpty)
        ERR_clear_error()
        let count = SSL_read(ssl, buffer.baseAddress, Int32(clamping: buffer.count))
        if count > 0 { return .bytes(Int(count)) }
        switch SSL_get_error(ssl, count) {
        case SSL_ERROR_ZERO_RETURN:
            return .closed
        case SSL_ERROR_WANT_READ:
            if transportEnded {
                throw TLSError(.truncated, "the peer closed the connection without close_notify")
            }
            return .needsCiphertext
        default:
            throw failure()
        }
    }

    /// Encrypts all of `plaintext`. The handshake must be complete.
    package func write(_ plaintext: UnsafeRawBufferPointer) throws(TLSError) {
        precondition(SSL_is_init_finished(ssl) == 1, "plaintext before the handshake is done")
        if plaintext.isEmpty { return }
        ERR_clear_error()
        // A memory BIO never asks to wait, so it accepts everything at once.
        let count = SSL_write(ssl, plaintext.baseAddress, Int32(plaintext.count))
        guard Int(count) == plaintext.count else { throw failure() }
    }

    /// Tells the peer that nothing more will be sent (close_notify). Reading remains possible.
    package func close() {
        guard SSL_is_init_finished(ssl) == 1 else { return }
        ERR_clear_error()
        SSL_shutdown(ssl)
        ERR_clear_error()
    }

    // MARK: Facts

    /// Whether the handshake resumed an earlier session.
    package var wasResumed: Bool { SSL_session_reused(ssl) == 1 }

    /// `TLSv1.3`.
    package var version: String { String(cString: SSL_get_version(ssl)) }

    private func failure() -> TLSError {
        let result = SSL_get_verify_result(ssl)
        let queue = drainErrorQueue()
        guard context.role == .client, result != Int(X509_V_OK) else {
            return TLSError(.protocolFailure, queue)
        }
        let words = String(cString: X509_verify_cert_error_string(result))
        return TLSError(
            .untrustedPeer,
            "the certificate of \(host ?? "the peer") was rejected: \(words)"
                + (refusedCertificate.map { " (\($0))" } ?? ""))
    }

    fileprivate func keep(_ session: OpaquePointer) {
        guard let host else { return SSL_SESSION_free(session) }
        resumption = TLSResumption(owning: session, context: context, host: host)
    }
}

/// What a client needs to resume a session: pass it to the next session with the same context and
/// host. It contains secrets of the session, and is kept in memory only.
package final class TLSResumption: @unchecked Sendable {
    // Sendable: an SSL_SESSION is reference-counted atomically, and does not change after it was
    // issued.
    fileprivate let pointer: OpaquePointer
    fileprivate let context: TLSContext
    fileprivate let host: String

    fileprivate init(owning pointer: OpaquePointer, context: TLSContext, host: String) {
        self.pointer = pointer
        self.context = context
        self.host = host
    }

    deinit { SSL_SESSION_free(pointer) }
}

private func owner(of ssl: OpaquePointer?) -> TLSSession? {
    guard let ssl, let data = SSL_get_ex_data(ssl, 0) else { return nil }
    return Unmanaged<TLSSession>.fromOpaque(data).takeUnretainedValue()
}

/// SSL_CTX_sess_set_new_cb: a ticket arrived. Returning 1 keeps the reference that comes with it.
func keepResumption(_ ssl: OpaquePointer?, _ session: OpaquePointer?) -> Int32 {
    guard let session, let owner = owner(of: ssl) else { return 0 }
    owner.keep(session)
    return 1
}

/// SSL_CTX_set_verify: records, for the error message, whose certificate fails, and changes nothing
/// else.
func noteRefusedCertificate(_ accepted: Int32, _ store: OpaquePointer?) -> Int32 {
    guard accepted != 1, let store else { return accepted }
    let ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())
    guard let owner = owner(of: ssl.map { OpaquePointer($0) }),
        let certificate = X509_STORE_CTX_get_current_cert(store)
    else { return accepted }
    let subject = text(of: X509_get_subject_name(certificate))
    let issuer = text(of: X509_get_issuer_name(certificate))
    owner.refusedCertificate = "subject \(subject), issuer \(issuer)"
    return accepted
}

private func text(of name: OpaquePointer?) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    X509_NAME_oneline(name, &buffer, Int32(buffer.count))
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
