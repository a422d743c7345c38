import Foundation
import TLS
import TestSupport
import Testing

/// Our sessions against OpenSSL's own programs, over TCP on the loopback.
@Suite(.timeLimit(.minutes(5))) struct OpenSSLPeerTests {
    private let certificates: TestCertificates

    init() throws { certificates = try TestCertificates.shared.get() }

    /// Starts `openssl s_server` on a free port.
    private func server(_ arguments: [String]) throws -> (tool: Tool, port: UInt16) {
        let good = certificates.good
        let tool = try Tool(
            "openssl",
            ["s_server", "-accept", "127.0.0.1:0", "-cert", good.certificate, "-key", good.key]
                + arguments)
        let line = try #require(tool.line(containing: "ACCEPT"))
        return (tool, try #require(line.split(separator: ":").last.flatMap { UInt16($0) }))
    }

    @Test(arguments: [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
    func `a client talks to s_server and resumes`(option: String, version: String) throws {
        let (tool, port) = try server([option, "-www"])
        defer { tool.stop() }
        let context = try TLSContext.client(caFile: certificates.ca)
        var resumption: TLSResumption?
        for round in 0..<3 {
            let session = try TLSSession.client(context, host: "localhost", resuming: resumption)
            let connection = try Connection(to: port, session)
            try connection.handshake()
            #expect(session.version == version)
            #expect(session.wasResumed == (round > 0))
            try connection.write("GET / HTTP/1.0\r\n\r\n")
            let answer = try connection.readToEnd()
            #expect(answer.contains("HTTP/1.0 200 ok"))
            #expect(answer.contains(round > 0 ? "Reused, \(version)" : "New, \(version)"))
            resumption = session.resumption
        }
    }

    @Test func `a server that speaks only TLS 1.1 is refused`() throws {
        let (tool, port) = try server(["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"])
        defer { tool.stop() }
        let session = try TLSSession.client(.client(caFile: certificates.ca), host: "localhost")
        let connection = try Connection(to: port, session)
        let error = try #require(throws: TLSError.self) { try connection.handshake() }
        #expect(error.reason == .protocolFailure)
        #expect(error.found.contains("protocol version"))
    }

    @Test(arguments: [("localhost", true), ("127.0.0.1", false)])
    func `the server is requested by name, but not by address`(host: String, named: Bool) throws {
        let good = certificates.good
        let (tool, port) = try server([
            "-naccept", "1", "-servername", "localhost", "-cert2", good.certificate,
            "-key2", good.key,
        ])
        let session = try TLSSession.client(.client(caFile: certificates.ca), host: host)
        let connection = try Connection(to: port, session)
        try connection.handshake()
        session.close()
        try connection.flush()
        let line = tool.finish().output.split(separator: "\n")
            .first { $0.contains("Hostname in TLS extension") }
        #expect(line == (named ? "Hostname in TLS extension: \"localhost\"" : nil))
    }

    private func client(_ port: UInt16, _ arguments: [String]) throws -> Tool {
        try Tool(
            "openssl",
            [
                "s_client", "-connect", "127.0.0.1:\(port)", "-CAfile", certificates.ca,
                "-verify_hostname", "localhost", "-verify_return_error",
            ] + arguments)
    }

    private func serverSession() throws -> TLSSession {
        let good = certificates.good
        return try .server(.server(certificate: good.certificate, key: good.key))
    }

    @Test(arguments: ["-tls1_2", "-tls1_3"])
    func `a server talks to s_client`(option: String) throws {
        let listener = try LoopbackListener()
        let peer = try client(listener.port, [option, "-ign_eof"])
        let connection = try Connection(accepting: listener, serverSession())
        try connection.handshake()
        try peer.send("ping\n")
        #expect(try connection.readSome() == "ping\n")
        try connection.write("pong\n")
        connection.session.close()
        try connection.flush()
        let (status, output) = peer.finish()
        #expect(status == 0)
        #expect(output.contains("Verification: OK"))
        #expect(output.contains("pong"))
    }

    @Test func `a client that speaks only TLS 1.1 is refused`() throws {
        let listener = try LoopbackListener()
        let peer = try client(listener.port, ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"])
        let connection = try Connection(accepting: listener, serverSession())
        let error = try #require(throws: TLSError.self) { try connection.handshake() }
        #expect(error.found.contains("unsupported protocol"))
        let (status, output) = peer.finish()
        #expect(status != 0)
        #expect(output.contains("alert protocol version"))
    }
}
