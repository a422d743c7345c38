#ifndef COPENSSL_H
#define COPENSSL_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* These functions exist because Swift cannot import function-like macros, or macro constants that
 * contain casts. Each function is one macro of OpenSSL 3.0. */

/* SSL_set_tlsext_host_name is a macro over SSL_ctrl. Returns 1 on success. */
static inline long COpenSSL_set_server_name(SSL *ssl, const char *name) {
    return SSL_set_tlsext_host_name(ssl, name);
}

/* SSL_CTX_set_min_proto_version is a macro over SSL_CTX_ctrl. Returns 1 on success. */
static inline long COpenSSL_require_tls_1_2(SSL_CTX *context) {
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
}

/* SSL_CTX_set_mode is a macro over SSL_CTX_ctrl. */
static inline void COpenSSL_release_idle_buffers(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
}

/* SSL_OP_NO_RENEGOTIATION is a macro over SSL_OP_BIT, which contains a cast. */
static inline void COpenSSL_refuse_renegotiation(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
}

/* SSL_CTX_set_session_cache_mode is a macro over SSL_CTX_ctrl. The caller stores the sessions. */
static inline void COpenSSL_keep_client_sessions_outside(SSL_CTX *context) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
}

/* The same macro. The sessions of a server exist only in their tickets. */
static inline void COpenSSL_keep_no_server_sessions(SSL_CTX *context) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

/* BIO_pending is a macro over BIO_ctrl and contains a cast. */
static inline int COpenSSL_bio_pending(BIO *bio) {
    return (int)BIO_pending(bio);
}

/* The errno in an entry of the error queue, or 0 if it contains none. ERR_SYSTEM_ERROR is a
 * function-like macro. */
static inline int COpenSSL_errno_of(unsigned long error) {
    return ERR_SYSTEM_ERROR(error) ? ERR_GET_REASON(error) : 0;
}

#endif
