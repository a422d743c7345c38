import COpenSSL

/// Message digests.
package enum Digest {
    /// The 32 bytes of SHA-256 (FIPS 180-4) over `data`.
    package static func sha256(_ data: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Int(SHA256_DIGEST_LENGTH)) { digest, count in
            precondition(SHA256(data, data.count, digest.baseAddress) != nil, "SHA256")
            count = digest.count
        }
    }
}

/// Keyed-hash message authentication.
package enum HMAC {
    /// The 32 bytes of HMAC-SHA-256 (RFC 2104) over `data`. The key may have any length.
    package static func sha256(key: [UInt8], data: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Int(SHA256_DIGEST_LENGTH)) { code, count in
            var length: UInt32 = 0
            let result = COpenSSL.HMAC(
                EVP_sha256(), key, Int32(key.count), data, data.count, code.baseAddress, &length)
            precondition(result != nil && Int(length) == code.count, "HMAC")
            count = code.count
        }
    }
}
