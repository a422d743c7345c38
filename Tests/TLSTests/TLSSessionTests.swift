import TLS
import TestSupport
import Testing

struct TLSSessionTests {
    private func pipe(
        trusting ca: KeyPath<TestCertificates, String> = \.ca,
        serving pair: KeyPath<TestCertificates, (certificate: String, key: String)> = \.good,
        host: String = "localhost"
    ) throws -> Pipe {
        let certificates = try TestCertificates.shared.get()
        let (certificate, key) = certificates[keyPath: pair]
        return Pipe(
            client: try .client(.client(caFile: certificates[keyPath: ca]), host: host),
            server: try .server(.server(certificate: certificate, key: key)))
    }

    /// The client's error when it rejects the server.
    private func refusal(_ pipe: Pipe) throws -> TLSError {
        try #require(throws: TLSError.self) { try pipe.handshake() }
    }

    @Test(arguments: ["localhost", "api.test", "127.0.0.1", "::1", "API.test"])
    func `a certificate that names the host is accepted`(host: String) throws {
        let pipe = try pipe(host: host)
        try pipe.handshake()
        #expect(pipe.client.version == "TLSv1.3")
        #expect(
            try pipe.say(Array("ping".utf8), from: pipe.client, to: pipe.server)
                == Array("ping".utf8))
        #expect(
            try pipe.say(Array("pong".utf8), from: pipe.server, to: pipe.client)
                == Array("pong".utf8))
    }

    @Test func `an unknown CA is rejected with an error that names the issuer`() throws {
        let error = try refusal(pipe(trusting: \.otherCA))
        #expect(error.reason == .untrustedPeer)
        #expect(error.found.contains("unable to get local issuer certificate"))
        #expect(error.found.contains("issuer /CN=Test ca"))
    }

    @Test(arguments: ["evil.example", "sub.api.test", "127.0.0.2", "::2"])
    func `a certificate for other names is refused`(host: String) throws {
        let error = try refusal(pipe(host: host))
        #expect(error.reason == .untrustedPeer)
        #expect(error.found.contains("the certificate of \(host) was rejected"))
        #expect(error.found.contains("mismatch"))
    }

    @Test func `an expired certificate is refused`() throws {
        let error = try refusal(pipe(serving: \.expired))
        #expect(error.reason == .untrustedPeer)
        #expect(error.found.contains("certificate has expired"))
    }

    @Test func `a common name alone does not name a host`() throws {
        #expect(try refusal(pipe(serving: \.nameless)).reason == .untrustedPeer)
    }

    @Test func `an alert tells the server why it was rejected`() throws {
        let pipe = try pipe(trusting: \.otherCA)
        _ = try refusal(pipe)
        pipe.carry(from: pipe.client, to: pipe.server)
        let error = try #require(throws: TLSError.self) { _ = try pipe.server.handshake() }
        #expect(error.reason == .protocolFailure)
        #expect(error.found.contains("unknown ca"))
    }

    @Test func `bytes may arrive one at a time`() throws {
        var pipe = try pipe()
        pipe.stride = 1
        _ = try pipe.client.handshake()
        var rounds = 0
        var serverIsDone = false
        while !serverIsDone {
            var byte: [UInt8] = [0]
            let sender = pipe.client.ciphertextCount > 0 ? pipe.client : pipe.server
            let receiver = sender === pipe.client ? pipe.server : pipe.client
            let count = byte.withUnsafeMutableBytes { sender.takeCiphertext(into: $0) }
            try #require(count == 1)
            byte.withUnsafeBytes { receiver.feed($0) }
            let done = try receiver.handshake()
            serverIsDone = receiver === pipe.server && done
            rounds += 1
        }
        #expect(rounds > 500)
        #expect(try pipe.say([1, 2, 3], from: pipe.client, to: pipe.server) == [1, 2, 3])
    }

    @Test func `large plaintext crosses in many records`() throws {
        let pipe = try pipe()
        try pipe.handshake()
        let text = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(try pipe.say(text, from: pipe.client, to: pipe.server) == text)
    }

    @Test func `a closed connection is distinguished from a truncated one`() throws {
        let closed = try pipe()
        try closed.handshake()
        closed.server.close()
        closed.carry(from: closed.server, to: closed.client)
        closed.client.feedEnd()
        #expect(try closed.client.readAll().end == .closed)

        let cut = try pipe()
        try cut.handshake()
        cut.carry(from: cut.server, to: cut.client)
        cut.client.feedEnd()
        let error = try #require(throws: TLSError.self) { _ = try cut.client.readAll() }
        #expect(error.reason == .truncated)
    }

    @Test func `a peer that hangs up during the handshake is reported`() throws {
        let pipe = try pipe()
        _ = try pipe.client.handshake()
        pipe.client.feedEnd()
        let error = try #require(throws: TLSError.self) { _ = try pipe.client.handshake() }
        #expect(error.reason == .truncated)
    }

    @Test func `a peer that does not speak TLS is refused`() throws {
        let pipe = try pipe()
        _ = try pipe.client.handshake()
        Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8).withUnsafeBytes { pipe.client.feed($0) }
        let error = try #require(throws: TLSError.self) { _ = try pipe.client.handshake() }
        #expect(error.reason == .protocolFailure)
        #expect(error.found.contains("wrong version number"))
    }

    @Test func `a record that was tampered with is refused`() throws {
        let pipe = try pipe()
        try pipe.handshake()
        pipe.carry(from: pipe.server, to: pipe.client)
        try Array("secret".utf8).withUnsafeBytes { try pipe.server.write($0) }
        var record = [UInt8](repeating: 0, count: pipe.server.ciphertextCount)
        _ = record.withUnsafeMutableBytes { pipe.server.takeCiphertext(into: $0) }
        record[record.count - 1] ^= 1
        record.withUnsafeBytes { pipe.client.feed($0) }
        let error = try #require(throws: TLSError.self) { _ = try pipe.client.readAll() }
        #expect(error.reason == .protocolFailure)
    }

    @Test func `a session is resumed, again and again`() throws {
        let certificates = try TestCertificates.shared.get()
        let trust = try TLSContext.client(caFile: certificates.ca)
        let server = try TLSContext.server(
            certificate: certificates.good.certificate, key: certificates.good.key)
        var resumption: TLSResumption?
        var resumed: [Bool] = []
        for _ in 0..<4 {
            let pipe = Pipe(
                client: try .client(trust, host: "localhost", resuming: resumption),
                server: try .server(server))
            try pipe.handshake()
            resumed.append(pipe.client.wasResumed)
            _ = try pipe.say([1], from: pipe.server, to: pipe.client)
            resumption = pipe.client.resumption
        }
        #expect(resumed == [false, true, true, true])
    }

    @Test func `the error of a context names the unusable file`() throws {
        let certificates = try TestCertificates.shared.get()
        let noFile = try #require(throws: TLSError.self) {
            _ = try TLSContext.client(caFile: "/nonexistent/ca.pem")
        }
        #expect(noFile.reason == .files)
        #expect(noFile.found.contains("/nonexistent/ca.pem"))
        #expect(noFile.found.contains("No such file or directory"))
        let noCertificate = try #require(throws: TLSError.self) {
            _ = try TLSContext.client(caFiles: [certificates.ca, certificates.good.key])
        }
        #expect(noCertificate.found.contains("good.key"))
        let mismatch = try #require(throws: TLSError.self) {
            _ = try TLSContext.server(
                certificate: certificates.good.certificate, key: certificates.expired.key)
        }
        #expect(mismatch.found.contains("key values mismatch"))
    }
}
