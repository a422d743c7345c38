import Foundation

/// Certificates of a test CA, created with the openssl command in a temporary folder.
package final class TestCertificates: Sendable {
    /// One set for all tests of a process, created on first use and removed at its end.
    package static let shared: Result<TestCertificates, any Error> = {
        // A static is never deinitialised.
        atexit { try? TestCertificates.shared.get().folder.remove() }
        return Result { try TestCertificates() }
    }()

    private let folder: TemporaryFolder

    /// The CA that signed all of them, and one that signed none.
    package var ca: String { file("ca.pem") }
    package var otherCA: String { file("other.pem") }

    /// For localhost, api.test, 127.0.0.1 and ::1.
    package var good: (certificate: String, key: String) { pair("good") }
    /// The same names, no longer valid.
    package var expired: (certificate: String, key: String) { pair("expired") }
    /// Has localhost only as its subject, which is no longer enough.
    package var nameless: (certificate: String, key: String) { pair("nameless") }

    private init() throws {
        folder = try TemporaryFolder()
        try makeAuthority("ca")
        try makeAuthority("other")
        let names = "DNS:localhost,DNS:api.test,IP:127.0.0.1,IP:::1"
        try makeCertificate("good", names: names, days: 2)
        try makeCertificate("expired", names: names, days: -1)
        try makeCertificate("nameless", names: nil, days: 2)
    }

    private func file(_ name: String) -> String { folder.path + "/" + name }

    private func pair(_ name: String) -> (certificate: String, key: String) {
        (file("\(name).pem"), file("\(name).key"))
    }

    private static let newKey = [
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    ]

    private func makeAuthority(_ name: String) throws {
        try Tool.run(
            "openssl",
            ["req", "-x509", "-subj", "/CN=Test \(name)", "-days", "2"] + Self.newKey
                + ["-keyout", file("\(name).key"), "-out", file("\(name).pem")])
    }

    private func makeCertificate(_ name: String, names: String?, days: Int) throws {
        try Tool.run(
            "openssl",
            ["req", "-subj", "/CN=localhost"] + Self.newKey
                + (names.map { ["-addext", "subjectAltName=\($0)"] } ?? [])
                + ["-keyout", file("\(name).key"), "-out", file("\(name).csr")])
        try Tool.run(
            "openssl",
            [
                "x509", "-req", "-in", file("\(name).csr"), "-copy_extensions", "copyall",
                "-CA", ca, "-CAkey", file("ca.key"), "-days", String(days),
                "-out", file("\(name).pem"),
            ])
    }
}
