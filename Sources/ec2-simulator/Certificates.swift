import Glibc
import Ring

/// The simulator's own certificate authority, and its server certificate. Created once per state
/// directory, so that clients that trusted a simulator also trust it after a restart.
struct Certificates {
    private let directory: String
    /// IP addresses that the server certificate names in addition to the loopback addresses.
    private let addresses: [String]

    var authority: String { directory + "/ca.pem" }
    var server: String { directory + "/server.pem" }
    var serverKey: String { directory + "/server-key.pem" }

    init(directory: String, addresses: [String]) {
        self.directory = directory
        self.addresses = addresses
    }

    /// Creates what is missing with the openssl command. Key files have mode 0600.
    @RingActor
    func make() async throws {
        if case .file = FileKind(server) { return }
        let authorityKey = directory + "/ca-key.pem"
        try await request(
            key: authorityKey, certificate: authority, subject: "/CN=EC2 simulator CA",
            extensions: ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"])
        // The file whose presence shows that everything was created comes last.
        let unfinished = server + ".new"
        let names = (["127.0.0.1", "::1"] + addresses).map { ",IP:" + $0 }.joined()
        try await request(
            key: serverKey, certificate: unfinished, subject: "/CN=localhost",
            extensions: [
                "subjectAltName=DNS:localhost" + names,
                "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth",
            ], signedBy: (authority, authorityKey))
        guard rename(unfinished, server) == 0 else { throw SystemError("rename \(unfinished)") }
    }

    @RingActor
    private func request(
        key: String, certificate: String, subject: String, extensions: [String],
        signedBy issuer: (certificate: String, key: String)? = nil
    ) async throws {
        var arguments = [
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "3650", "-subj", subject, "-keyout", key, "-out", certificate,
        ]
        for text in extensions { arguments += ["-addext", text] }
        if let issuer { arguments += ["-CA", issuer.certificate, "-CAkey", issuer.key] }
        try await run("/usr/bin/openssl", arguments)
        guard chmod(key, 0o600) == 0 else { throw SystemError("chmod \(key)") }
    }
}
