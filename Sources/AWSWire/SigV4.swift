import Base

/// AWS Signature Version 4 in the Authorization header of a request.
///
/// Pure: SHA-256, HMAC-SHA-256 and the time come from the caller. Source:
/// docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
package struct SigV4: Sendable {
    package typealias Header = (name: String, value: String)

    /// The request to sign. `path` and `query` are as in the request line; every header in
    /// `headers` is signed, and Host must be among them.
    package struct Request: Sendable {
        package var method: String
        package var path: String
        package var query: String
        package var headers: [Header]
        package var body: [UInt8]

        package init(
            method: String, path: String = "/", query: String = "", headers: [Header],
            body: [UInt8] = []
        ) {
            self.method = method
            self.path = path
            self.query = query
            self.headers = headers
            self.body = body
        }
    }

    /// The day, region and service that a signature is valid for.
    package struct Scope: Sendable, Equatable {
        /// `20150830`.
        package var day: String
        package var region: String
        package var service: String

        package init(day: String, region: String, service: String) {
            self.day = day
            self.region = region
            self.service = service
        }

        package var text: String { "\(day)/\(region)/\(service)/aws4_request" }
    }

    private static let algorithm = "AWS4-HMAC-SHA256"

    private let sha256: @Sendable (_ message: [UInt8]) -> [UInt8]
    private let hmacSHA256: @Sendable (_ key: [UInt8], _ message: [UInt8]) -> [UInt8]

    package init(
        sha256: @escaping @Sendable (_ message: [UInt8]) -> [UInt8],
        hmacSHA256: @escaping @Sendable (_ key: [UInt8], _ message: [UInt8]) -> [UInt8]
    ) {
        self.sha256 = sha256
        self.hmacSHA256 = hmacSHA256
    }

    /// Returns the request with X-Amz-Date (unless it has one), X-Amz-Security-Token and
    /// Authorization added.
    package func sign(
        _ request: Request, with credentials: Credentials, region: String, service: String,
        at unixSeconds: Int64
    ) -> Request {
        var signed = request
        let timestamp = CivilTime(unixSeconds: unixSeconds).basic
        if !signed.headers.contains(where: { $0.name.lowercased() == "x-amz-date" }) {
            signed.headers.append(("X-Amz-Date", timestamp))
        }
        if let token = credentials.sessionToken {
            signed.headers.append(("X-Amz-Security-Token", token))
        }

        let scope = Scope(day: String(timestamp.prefix(8)), region: region, service: service)
        let names = Set(signed.headers.map { $0.name.lowercased() })
        let signature = signature(
            of: signed, signedHeaders: names, timestamp: timestamp, scope: scope,
            secretAccessKey: credentials.secretAccessKey)
        let authorization = Authorization(
            accessKeyID: credentials.accessKeyID, scope: scope, signedHeaders: names.sorted(),
            signature: signature)
        signed.headers.append(("Authorization", authorization.text))
        return signed
    }

    /// The signature in hexadecimal digits, over the headers named in `signedHeaders` (lower case).
    package func signature(
        of request: Request, signedHeaders: Set<String>, timestamp: String, scope: Scope,
        secretAccessKey: String
    ) -> String {
        let text = stringToSign(
            canonicalRequest(request, signedHeaders: signedHeaders), timestamp: timestamp,
            scope: scope)
        var key = Array("AWS4\(secretAccessKey)".utf8)
        for part in [scope.day, scope.region, scope.service, "aws4_request"] {
            key = hmacSHA256(key, Array(part.utf8))
        }
        return hexEncoded(hmacSHA256(key, Array(text.utf8)))
    }

    func stringToSign(_ canonicalRequest: String, timestamp: String, scope: Scope) -> String {
        let digest = hexEncoded(sha256(Array(canonicalRequest.utf8)))
        return "\(Self.algorithm)\n\(timestamp)\n\(scope.text)\n\(digest)"
    }

    func canonicalRequest(_ request: Request, signedHeaders: Set<String>) -> String {
        let headers = canonicalHeaders(request.headers, signedHeaders)
        return [
            request.method, canonicalPath(request.path), canonicalQuery(request.query),
            headers.map { "\($0.name):\($0.value)\n" }.joined(),
            headers.map(\.name).joined(separator: ";"), hexEncoded(sha256(request.body)),
        ].joined(separator: "\n")
    }
}

extension SigV4 {
    /// The contents of an Authorization header.
    package struct Authorization: Sendable, Equatable {
        package var accessKeyID: String
        package var scope: Scope
        /// Lower-case names, sorted.
        package var signedHeaders: [String]
        package var signature: String

        package var text: String {
            "\(algorithm) Credential=\(accessKeyID)/\(scope.text), "
                + "SignedHeaders=\(signedHeaders.joined(separator: ";")), Signature=\(signature)"
        }
    }
}

extension SigV4.Authorization {
    /// Parses an Authorization header; nil if it is for another algorithm.
    package init?(_ text: String) {
        let halves = text.split(separator: " ", maxSplits: 1)
        guard halves.count == 2, halves[0] == "AWS4-HMAC-SHA256" else { return nil }
        var fields: [Substring: Substring] = [:]
        for field in halves[1].split(separator: ",") {
            let pair = field.drop { $0 == " " }.split(separator: "=", maxSplits: 1)
            guard pair.count == 2 else { return nil }
            fields[pair[0]] = pair[1]
        }
        guard let credential = fields["Credential"]?.split(separator: "/"), credential.count == 5,
            credential[4] == "aws4_request", let headers = fields["SignedHeaders"],
            let signature = fields["Signature"]
        else { return nil }
        accessKeyID = String(credential[0])
        scope = SigV4.Scope(
            day: String(credential[1]), region: String(credential[2]),
            service: String(credential[3]))
        signedHeaders = headers.split(separator: ";").map(String.init)
        self.signature = String(signature)
    }
}

/// The path without empty, `.` and `..` segments. Every byte except `/` and unreserved characters
/// is encoded, a second time if the request line already has it encoded.
private func canonicalPath(_ path: String) -> String {
    var segments: [Substring] = []
    for segment in path.split(separator: "/") where segment != "." {
        if segment == ".." { _ = segments.popLast() } else { segments.append(segment) }
    }
    if segments.isEmpty { return "/" }
    let trailing = path.hasSuffix("/") ? "/" : ""
    let normalised = "/" + segments.joined(separator: "/") + trailing
    return percentEncoded(normalised.utf8, keepingSlash: true)
}

/// The encoded parameters, sorted by the bytes of their names and values.
private func canonicalQuery(_ query: String) -> String {
    let parameters = query.utf8.split(separator: UInt8(ascii: "&")).map { parameter in
        let halves = parameter.split(
            separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
        return (
            name: percentEncoded(percentDecoded(Array(halves[0]))),
            value: halves.count == 2 ? percentEncoded(percentDecoded(Array(halves[1]))) : ""
        )
    }
    return parameters.sorted { ($0.name, $0.value) < ($1.name, $1.value) }
        .map { "\($0.name)=\($0.value)" }.joined(separator: "&")
}

/// Names in lower case and sorted. The values of one name are joined in their original order.
/// Spaces around a value are removed, and sequences of spaces and line breaks within it become one
/// space.
private func canonicalHeaders(_ headers: [SigV4.Header], _ names: Set<String>) -> [SigV4.Header] {
    var values: [String: [String]] = [:]
    for header in headers {
        let name = header.name.lowercased()
        guard names.contains(name) else { continue }
        let words = header.value.utf8.split { $0 == 0x20 || (0x09...0x0D).contains($0) }
        values[name, default: []].append(words.compactMap { String($0) }.joined(separator: " "))
    }
    return values.sorted { $0.key < $1.key }.map { ($0.key, $0.value.joined(separator: ",")) }
}
