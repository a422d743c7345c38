import AWSWire
import Base
import EC2Model
import HTTPWire
import TLS

/// Verifies a request's signature as EC2 does, by computing it again.
struct RequestVerifier {
    let region: String
    private let signer = SigV4(
        sha256: Digest.sha256, hmacSHA256: { HMAC.sha256(key: $0, data: $1) })

    /// EC2 tolerates 5 minutes, both for old signatures and for clocks that are ahead.
    static let skewMax: Int64 = 300

    /// Throws EC2's error if the request does not prove its sender.
    func verify(
        _ request: HTTPRequest, _ store: CredentialStore, at now: Int64
    ) throws(APIError) {
        guard let header = request.headers["authorization"] else {
            throw APIError(
                "MissingAuthenticationToken", "Request is missing Authentication Token",
                status: 403)
        }
        guard let authorization = SigV4.Authorization(header),
            let timestamp = request.headers["x-amz-date"], let time = parse(timestamp)
        else {
            throw APIError(
                "IncompleteSignature",
                "The request signature does not conform to AWS standards")
        }
        guard let credentials = store.credentials(authorization.accessKeyID),
            credentials.sessionToken == request.headers["x-amz-security-token"]
        else {
            throw APIError(
                "AuthFailure", "AWS was not able to validate the provided access credentials",
                status: 401)
        }
        guard abs(time - now) <= Self.skewMax else { throw Self.expired }
        try verifyScope(authorization, timestamp)
        let signature = signer.signature(
            of: SigV4.Request(
                method: request.method, path: String(request.path),
                query: String(request.query ?? ""),
                headers: request.headers.map { ($0.name, $0.value) }, body: request.body),
            signedHeaders: Set(authorization.signedHeaders), timestamp: timestamp,
            scope: authorization.scope, secretAccessKey: credentials.secretAccessKey)
        guard signature == authorization.signature else { throw Self.mismatch }
        // EC2 uses one code for both: errors-overview.html, RequestExpired.
        if let expiration = credentials.expiration, expiration <= now { throw Self.expired }
    }

    private func verifyScope(
        _ authorization: SigV4.Authorization, _ timestamp: String
    ) throws(APIError) {
        let scope = authorization.scope
        guard scope.region == region, scope.service == "ec2" else {
            throw APIError(
                "SignatureDoesNotMatch",
                "Credential should be scoped to a valid region, and to service 'ec2'.", status: 403)
        }
        let signed = Set(authorization.signedHeaders)
        guard timestamp.hasPrefix(scope.day), signed.isSuperset(of: ["host", "x-amz-date"]) else {
            throw Self.mismatch
        }
    }

    private static let expired = APIError("RequestExpired", "Request has expired.")
    private static let mismatch = APIError(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your "
            + "AWS Secret Access Key and signing method. Consult the service documentation for "
            + "details.", status: 403)
}

/// Parses ISO 8601's basic form, `20150830T123600Z`.
private func parse(_ basic: String) -> Int64? {
    let characters = Array(basic)
    guard characters.count == 16 else { return nil }
    let part = { (range: Range<Int>) in String(characters[range]) }
    let extended =
        "\(part(0..<4))-\(part(4..<6))-\(part(6..<8))"
        + "\(part(8..<11)):\(part(11..<13)):\(part(13..<16))"
    return CivilTime(rfc3339: extended)?.unixSeconds
}
