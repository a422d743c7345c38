import Base
import HTTPClient
import HTTPServer
import HTTPWire
import Ring
import TLS
import TestSupport
import Testing

/// Client and server of this project.
@Suite(.timeLimit(.minutes(5))) struct OwnServerTests {
    @RingActor
    private func start(
        port: UInt16 = 0, _ handler: @escaping HTTPServer.Handler
    ) throws -> (server: HTTPServer, port: UInt16) {
        let listener = try Listener(address: .ipv4(.loopback, port: port))
        let server = HTTPServer(listener: listener, tls: try serverContext(), handler: handler)
        RingActor.spawn { try await server.run() }
        return (server, listener.port)
    }

    @Test func `bodies cross in both directions over one connection`() async throws {
        try await onRing {
            let (server, port) = try start { HTTPResponse(status: 200, text: "\($0.body.count)") }
            let client = try makeClient()
            let origin = try origin(.https, "localhost", port)
            for size in [0, 1, 16_384, 60_000] + Array(1...96) {
                let response = try await client.send(
                    HTTPRequest(
                        method: "POST", target: "/size", body: .init(repeating: 7, count: size)),
                    to: origin, by: soon)
                #expect(response.body == Array("\(size)".utf8))
            }
            #expect(client.statistics.connections == 1)
            #expect(client.statistics.handshakes == 1)
            await server.stop(by: soon)
        }
    }

    @Test func `a restart of the server goes unnoticed`() async throws {
        try await onRing {
            let (server, port) = try start { _ in HTTPResponse(status: 200, text: "old") }
            let client = try makeClient()
            let origin = try origin(.https, "localhost", port)
            #expect(try await client.get(origin) == "old")
            await server.stop(by: soon)
            let (next, _) = try start(port: port) { _ in HTTPResponse(status: 200, text: "new") }
            let response = try await client.send(
                HTTPRequest(method: "POST", target: "/"), to: origin, by: soon)
            #expect(response.body == Array("new".utf8))
            await next.stop(by: soon)
        }
    }
}
