import Base
import HTTPServer
import HTTPWire
import Ring
import Streams
import TLS
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct LifetimeTests {
    @Test(arguments: [
        "G", "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
    ])
    func `a request that stalls is answered 408 and its connection ends`(text: String) async throws
    {
        let bounds = HTTPServer.Bounds.patient { $0.receiveTimeMax = .milliseconds(50) }
        try await withServer(bounds: bounds) { server in
            let client = try await server.connect()
            try await client.send(text)
            #expect(try await client.response().status == 408)
            #expect(try await client.bytesToEnd() == 0)
        }
    }

    @Test func `a request that trickles in is cut by its first byte's deadline`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.receiveTimeMax = .milliseconds(100) }
        try await withServer(bounds: bounds) { server in
            let client = try await server.connect()
            let trickle = RingActor.spawn {
                try await client.send("GET / HTTP/1.1\r\n")
                while true {
                    try await client.send("A: b\r\n")
                    try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(5))
                }
            }
            #expect(try await client.response().status == 408)
            trickle.cancel()
            client.close()
            _ = await trickle.result
        }
    }

    @Test func `an idle connection outlives the time for a request`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.receiveTimeMax = .milliseconds(20) }
        try await withServer(bounds: bounds) { server in
            let client = try await server.connect()
            for _ in 0..<2 {
                try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(100))
                try await client.send(get("/"))
                #expect(try await client.answer().status == 200)
            }
        }
    }

    @Test func `stalled clients do not hold up others`() async throws {
        try await withServer { server in
            var stalled: [TestClient] = []
            for _ in 0..<20 {
                let client = try await server.connect()
                try await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Le")
                stalled.append(client)
            }
            let client = try await server.connect()
            try await client.send(get("/"))
            #expect(try await client.answer().status == 200)
            // The stalled clients are served once they continue.
            for client in stalled {
                try await client.send("ngth: 1\r\n\r\na")
                #expect(try await client.answer() == Answer(200, "POST / (no type) a"))
            }
        }
    }

    @Test func `a client that does not read is cut, and holds up nobody`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.sendTimeMax = .milliseconds(100) }
        let size = 16 * 1024 * 1024
        try await withServer(bounds: bounds) { request in
            let count = request.target == "/large" ? size : 1
            return .now(
                HTTPServer.Answer(
                    HTTPResponse(status: 200, body: Array(repeating: 0x78, count: count))))
        } _: { server in
            let deaf = try await server.connect()
            try await deaf.send(get("/large"))
            let client = try await server.connect()
            try await client.send(get("/"))
            #expect(try await client.answer() == Answer(200, "x"))
            try await deaf.stream.hangUp()
            let received = try await deaf.bytesToEnd()
            #expect(0 < received && received < size)
        }
    }

    @Test(arguments: ["/now", "/later"])
    func `a client that reads slowly gets all of large answers`(target: String) async throws {
        let size = 900 * 1024
        let large = HTTPServer.Answer(
            HTTPResponse(status: 200, body: Array(repeating: 0x78, count: size)))
        try await withServer { request in
            request.target == "/now" ? .now(large) : .later { large }
        } _: { server in
            let client = try await server.connect()
            try await client.send(get(target) + get(target))
            #expect(try await client.response().body.count == size)
            #expect(try await client.response().body.count == size)
        }
    }

    @Test func `a new connection takes the place of the one that idles for longest`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.connectionsMax = 2 }
        try await withServer(bounds: bounds) { server in
            let first = try await server.connect()
            try await first.send(get("/"))
            #expect(try await first.answer().status == 200)
            let second = try await server.connect()
            try await second.send(get("/"))
            #expect(try await second.answer().status == 200)
            let third = try await server.connect()
            try await third.send(get("/"))
            #expect(try await third.answer().status == 200)
            #expect(try await first.bytesToEnd() == 0)
            try await second.send(get("/"))
            #expect(try await second.answer().status == 200)
        }
    }

    @Test func `a new connection waits while all are busy`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.connectionsMax = 2 }
        let gate = Gate()
        let started = Mailbox<String>()
        try await withServer(bounds: bounds) { request in
            started.put(request.target)
            if request.target != "/3" { await gate.pass() }
            return HTTPResponse(status: 200, text: request.target)
        } _: { server in
            var clients: [TestClient] = []
            for number in 1...2 {
                clients.append(try await server.connect())
                try await clients[number - 1].send(get("/\(number)"))
                #expect(await started.take() == "/\(number)")
            }
            clients.append(try await server.connect())
            try await clients[2].send(get("/3"))
            try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(20))
            #expect(started.isEmpty)
            gate.open()
            for (index, client) in clients.enumerated() {
                #expect(try await client.answer() == Answer(200, "/\(index + 1)"))
            }
        }
    }

    @Test func `a burst beyond the limit of connections is answered to the last`() async throws {
        let bounds = HTTPServer.Bounds.patient { $0.connectionsMax = 4 }
        try await withServer(bounds: bounds) { server in
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<100 {
                    group.addTask {
                        let client = try await server.connect()
                        try await client.send(get("/"))
                        return try await client.response().status
                    }
                }
                var statuses: [Int] = []
                for try await status in group { statuses.append(status) }
                return statuses
            }
            #expect(statuses == Array(repeating: 200, count: 100))
        }
    }

    @Test func `a handler is cancelled when its client hangs up`() async throws {
        let events = Mailbox<String>()
        try await withServer { _ in
            events.put("started")
            do { try await RingActor.ring.sleep(until: RingActor.ring.now + patience) } catch {
                events.put("\(type(of: error))")
            }
            return HTTPResponse(status: 200)
        } _: { server in
            let client = try await server.connect()
            try await client.send(get("/"))
            #expect(await events.take() == "started")
            client.close()
            #expect(await events.take() == "CancellationError")
        }
    }

    @Test func `a handler is told whether its answer went out`() async throws {
        let gate = Gate()
        let events = Mailbox<String>()
        try await withServer(replier: { request in
            .later { @RingActor in
                events.put("started")
                if request.target == "/gone" { await gate.pass() }
                return HTTPServer.Answer(HTTPResponse(status: 200)) { isSent in
                    events.put("\(request.target) \(isSent)")
                }
            }
        }) { server in
            let client = try await server.connect()
            try await client.send(get("/here"))
            #expect(await events.take() == "started")
            #expect(await events.take() == "/here true")
            #expect(try await client.answer().status == 200)
            try await client.send(get("/gone"))
            #expect(await events.take() == "started")
            client.close()
            gate.open()
            #expect(await events.take() == "/gone false")
        }
    }

    @Test(arguments: ["/now", "/later"], [true, false])
    func `an answer that goes out in parts has gone out with the last of them`(
        target: String, readsAll: Bool
    ) async throws {
        let events = Mailbox<Bool>()
        let size = 16 * 1024 * 1024
        let response = HTTPResponse(status: 200, body: Array(repeating: 0x78, count: size))
        let answer = HTTPServer.Answer(response) { events.put($0) }
        try await withServer(replier: { request in
            request.target == "/now" ? .now(answer) : .later { answer }
        }) { server in
            let client = try await server.connect()
            try await client.send(get(target, "Connection: close\r\n"))
            _ = try await client.bytes(16)
            #expect(events.isEmpty)
            if readsAll { #expect(try await client.bytesToEnd() > size) } else { client.close() }
            #expect(await events.take() == readsAll)
        }
    }

    @Test func `a client that has finished sending is answered, and its hang-up is seen`()
        async throws
    {
        let gate = Gate()
        let events = Mailbox<String>()
        try await withServer { request in
            events.put(request.target)
            if request.target == "/answered" {
                await gate.pass()
                return HTTPResponse(status: 200, text: Task.isCancelled ? "cancelled" : "whole")
            }
            do { try await RingActor.ring.sleep(until: RingActor.ring.now + patience) } catch {
                events.put("\(type(of: error))")
            }
            return HTTPResponse(status: 200)
        } _: { server in
            let client = try await server.connect()
            try await client.send(get("/answered"))
            client.stream.endSending()
            #expect(await events.take() == "/answered")
            // A later connection has been served in the meantime, so the loop has had enough turns.
            let other = try await server.connect()
            try await other.send(get("/cut"))
            #expect(await events.take() == "/cut")
            gate.open()
            #expect(try await client.answer() == Answer(200, "whole"))
            #expect(try await client.bytesToEnd() == 0)
            other.stream.endSending()
            other.close()
            #expect(await events.take() == "CancellationError")
        }
    }

    @Test func `a client that has finished sending is answered under TLS, too`() async throws {
        let certificates = try TestCertificates.shared.get()
        let context = try TLSContext.server(
            certificate: certificates.good.certificate, key: certificates.good.key)
        let trust = try TLSContext.client(caFile: certificates.ca)
        let gate = Gate()
        let started = Mailbox<String>()
        try await withServer(tls: context) { request in
            started.put(request.target)
            await gate.pass()
            return HTTPResponse(status: 200, text: Task.isCancelled ? "cancelled" : "whole")
        } _: { server in
            let client = try await server.connect(TLSSession.client(trust, host: "localhost"))
            try await client.stream.handshake()
            try await client.send(get("/1"))
            client.stream.endSending()
            #expect(await started.take() == "/1")
            let other = try await server.connect(TLSSession.client(trust, host: "localhost"))
            try await other.stream.handshake()
            try await other.send(get("/2"))
            #expect(await started.take() == "/2")
            gate.open()
            #expect(try await client.answer() == Answer(200, "whole"))
            #expect(try await other.answer() == Answer(200, "whole"))
        }
    }

    @Test func `a handler that waited is answered as any other`() async throws {
        try await withServer { request in
            try? await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(1))
            return HTTPResponse(status: 200, text: Task.isCancelled ? "cancelled" : request.target)
        } _: { server in
            let client = try await server.connect()
            for number in 1...3 {
                try await client.send(get("/\(number)"))
                #expect(try await client.answer() == Answer(200, "/\(number)"))
            }
        }
    }

    @Test func `stopping lets running requests finish, and ends idle connections`() async throws {
        let gate = Gate()
        let started = Mailbox<String>()
        try await withServer { request in
            started.put(request.target)
            if request.target == "/slow" { await gate.pass() }
            return HTTPResponse(status: 200, text: request.target)
        } _: { server in
            let idle = try await server.connect()
            try await idle.send(get("/"))
            #expect(try await idle.answer().status == 200)
            let busy = try await server.connect()
            try await busy.send(get("/slow"))
            _ = await started.take()
            #expect(await started.take() == "/slow")
            let stopping = RingActor.spawn {
                await server.server.stop(by: RingActor.ring.now + patience)
            }
            #expect(try await idle.bytesToEnd() == 0)
            await #expect(throws: (any Error).self) { try await server.connect() }
            gate.open()
            let response = try await busy.response()
            #expect(response.body == Array("/slow".utf8))
            #expect(response.headers["connection"] == "close")
            await stopping.value
        }
    }

    @Test func `what is left at the deadline to stop by is cancelled`() async throws {
        let events = Mailbox<String>()
        try await withServer { _ in
            events.put("started")
            do { try await RingActor.ring.sleep(until: RingActor.ring.now + patience) } catch {
                events.put("\(type(of: error))")
            }
            return HTTPResponse(status: 200)
        } _: { server in
            let client = try await server.connect()
            try await client.send(get("/"))
            #expect(await events.take() == "started")
            await server.server.stop(by: RingActor.ring.now + .milliseconds(20))
            #expect(await events.take() == "CancellationError")
            #expect(try await client.bytesToEnd() == 0)
        }
    }
}
