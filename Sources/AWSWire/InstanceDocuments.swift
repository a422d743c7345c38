package import Base
import JSON

/// A document of the metadata service or of the container credentials endpoint lacks required
/// information. The error never quotes the document, which may contain a secret.
package struct DocumentError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// This instance's identity, from its identity document.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html.
package struct InstanceIdentity: Sendable, Equatable {
    package var region: String
    package var availabilityZone: String
    package var instanceID: InstanceID
    package var instanceType: String
    /// `x86_64` or `arm64`.
    package var architecture: String

    package init(
        region: String, availabilityZone: String, instanceID: InstanceID, instanceType: String = "",
        architecture: String = ""
    ) {
        self.region = region
        self.availabilityZone = availabilityZone
        self.instanceID = instanceID
        self.instanceType = instanceType
        self.architecture = architecture
    }

    package init(document: [UInt8]) throws(DocumentError) {
        let document = try Document(document, what: "the identity document")
        let id = try document.required("instanceId")
        guard let instanceID = InstanceID(id) else {
            throw DocumentError("the identity document's instanceId is '\(id.prefix(64))'")
        }
        self.init(
            region: try document.required("region"),
            availabilityZone: try document.required("availabilityZone"), instanceID: instanceID,
            instanceType: document.text("instanceType") ?? "",
            architecture: document.text("architecture") ?? "")
    }
}

extension Credentials {
    /// Parses the metadata service's response for a role, and the response of the container
    /// credentials endpoint (which has no `Code`).
    ///
    /// Source:
    /// docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html.
    package init(document: [UInt8]) throws(DocumentError) {
        let document = try Document(document, what: "the credentials document")
        if let code = document.text("Code"), code != "Success" {
            let message = document.text("Message").map { ": \($0.prefix(256))" } ?? ""
            throw DocumentError("the credentials document says \(code.prefix(64))\(message)")
        }
        self.init(
            accessKeyID: try document.required("AccessKeyId"),
            secretAccessKey: try document.required("SecretAccessKey"),
            sessionToken: document.text("Token"))
        if let text = document.text("Expiration") {
            guard let time = CivilTime(rfc3339: text) else {
                throw DocumentError("the credentials document's Expiration is not an RFC 3339 time")
            }
            expiration = time.unixSeconds
        }
    }
}

/// The role of an instance profile, from a list with one name per line.
package func instanceProfileRole(list: [UInt8]) -> String? {
    let lines = String(decoding: list, as: UTF8.self).split(whereSeparator: \.isWhitespace)
    return lines.first.map(String.init)
}

/// The strings of a JSON object; an empty string counts as missing.
private struct Document {
    let what: String
    let members: JSONValue

    init(_ bytes: [UInt8], what: String) throws(DocumentError) {
        self.what = what
        do {
            members = try JSONValue.parse(bytes)
        } catch {
            throw DocumentError("\(what) is not valid JSON at byte \(error.position)")
        }
    }

    func text(_ name: String) -> String? {
        guard let text = members[name]?.string, !text.isEmpty else { return nil }
        return text
    }

    func required(_ name: String) throws(DocumentError) -> String {
        guard let text = text(name) else { throw DocumentError("\(what) has no \(name)") }
        return text
    }
}
