import Base
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct OperationTests {
    @Test func `poll returns when a byte arrives, and not before`() async throws {
        try await onRing {
            let (a, b) = try descriptorPair()
            let there = Descriptor(owning: b)
            let task = RingActor.spawn {
                let here = Descriptor(owning: a)
                return try await RingActor.ring.poll(here, .input)
            }
            await Task.yield()
            try check(Int32(write(there.rawValue, "x", 1)))
            #expect(try await task.value == .input)
        }
    }

    @Test func `several operations wait for one socket at a time`() async throws {
        try await onRing {
            let (a, b) = try socketPair()
            let full = [UInt8](repeating: 0, count: 4 * 1024 * 1024)
            var unread = try full.withUnsafeBytes { try a.sendNow($0) }
            let sending = RingActor.spawn { try await a.send(buffer("x")) }
            let hangingUp = RingActor.spawn { try await a.hangUp() }
            let into = try buffer()
            let receiving = RingActor.spawn { try await a.receive(into: into) }
            await Task.yield()

            try await b.send(buffer("y"))
            #expect(try await receiving.value == 1)
            let dropped = ByteBuffer(capacity: 64 * 1024, max: 64 * 1024)
            while unread >= 0 {
                unread -= try await b.receive(into: dropped)
                dropped.clear()
            }
            try await sending.value
            b.close()
            try await hangingUp.value
        }
    }

    @Test func `what comes while nothing receives waits for who does, and ends with its socket`()
        async throws
    {
        try await onRing {
            for _ in 0..<3 {
                let (a, b) = try socketPair()
                let into = try buffer()
                for _ in 0..<3 {
                    let receiving = RingActor.spawn { try await a.receive(into: into) }
                    await Task.yield()
                    try await b.send(buffer("x"))
                    #expect(try await receiving.value == 1)
                    try await b.send(buffer("y"))
                    // After this sleep, the loop has seen the byte that no operation waits for.
                    try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(1))
                    #expect(try await a.receive(into: into) == 1)
                }
                #expect(text(into) == "xyxyxy")
                // The next pair gets the same descriptor numbers as this one.
                a.close()
                b.close()
            }
        }
    }

    /// The copy keeps the file open, as a child process does until its exec.
    @Test func `what comes for a closed file ends no wait for the one that has its number`()
        async throws
    {
        try await onRing {
            let (number, peer) = try descriptorPair()
            let old = Descriptor(owning: peer)
            let copy = Descriptor(owning: try check(dup(number)))
            let later = try descriptorPair()
            let waiting = RingActor.spawn {
                let descriptor = Descriptor(owning: number)
                await #expect(throws: Errno.canceled) {
                    try await RingActor.ring.poll(descriptor, .input)
                }
                _ = descriptor.release()
            }
            await Task.yield()
            waiting.cancel()
            await waiting.value
            try check(dup2(later.0, number))
            let again = RingActor.spawn {
                try await RingActor.ring.poll(Descriptor(owning: number), .input)
            }
            await Task.yield()
            try check(Int32(write(old.rawValue, "x", 1)))
            // Gives the loop time to process the event.
            try await RingActor.ring.sleep(until: RingActor.ring.now + .milliseconds(1))
            again.cancel()
            await #expect(throws: Errno.canceled) { try await again.value }
            copy.close()
            for fd in [later.0, later.1] { Descriptor(owning: fd).close() }
        }
    }

    @Test func `a regular file is always ready`() async throws {
        try await onRing {
            try await withDirectory { path in
                let file = Descriptor(
                    owning: try check(open("\(path)/file", O_RDWR | O_CREAT, 0o600)))
                let events: PollEvents = [.input, .output]
                #expect(try await RingActor.ring.poll(file, events) == events)
            }
        }
    }

    @Test func `a cancelled poll throws`() async throws {
        try await onRing {
            let (a, b) = try descriptorPair()
            let there = Descriptor(owning: b)
            let task = RingActor.spawn {
                let here = Descriptor(owning: a)
                return try await RingActor.ring.poll(here, .input)
            }
            await Task.yield()
            task.cancel()
            await #expect(throws: Errno.canceled) { try await task.value }
            there.close()
        }
    }

    /// Whether the byte or the cancellation comes first, the operation ends exactly once, and the
    /// byte is either received or still in the socket.
    @Test func `a byte that arrives while its receive is cancelled is not lost`() async throws {
        try await onRing {
            var received = 0
            for round in 0..<500 {
                let (a, b) = try socketPair()
                let into = try buffer()
                let task = RingActor.spawn { try await a.receive(into: into) }
                for _ in 0..<round % 3 { await Task.yield() }
                async let sending: Void = b.send(buffer("x"))
                task.cancel()
                try await sending
                if case .success(let count) = await task.result {
                    #expect(count == 1)
                    received += 1
                } else {
                    try await expect("x", from: a)
                }
            }
            #expect(received < 500)
        }
    }

    @Test func `cancelling from another thread while a byte arrives loses nothing`() async throws {
        try await onRing {
            for _ in 0..<200 {
                let (a, b) = try socketPair()
                let into = try buffer()
                let task = RingActor.spawn { try await a.receive(into: into) }
                async let cancelling: Void = RingActor.ring.blocking { task.cancel() }
                try await b.send(buffer("x"))
                await cancelling
                if case .failure = await task.result { try await expect("x", from: a) }
            }
        }
    }

    @Test func `operations beyond the limit are refused, and those in flight go on`() async {
        await #expect(processExitsWith: .success) {
            try await onRing {
                let ring = RingActor.ring
                let listener = try Listener(address: .ipv4(.loopback, port: 0))
                let (a, b) = try socketPair()
                let waiting = RingActor.spawn { try await expect("x", from: b) }
                let sleeps = (1..<Limit.operationsInFlightMax).map { _ in
                    RingActor.spawn { try await ring.sleep(until: Instant(nanoseconds: .max)) }
                }
                await Task.yield()
                let refused = RingActor.spawn { try await ring.sleep(until: ring.now) }
                await #expect(throws: Errno.noBufferSpace) { try await refused.value }
                await #expect(throws: Errno.noBufferSpace) { try await a.hangUp() }
                let accepting = RingActor.spawn { try await listener.accept() }
                #expect(try [UInt8(ascii: "x")].withUnsafeBytes { try a.sendNow($0) } == 1)
                try await waiting.value

                for sleep in sleeps { sleep.cancel() }
                var cancelled = 0
                for sleep in sleeps {
                    if case .failure(is CancellationError) = await sleep.result { cancelled += 1 }
                }
                #expect(cancelled == sleeps.count)
                _ = try await Socket.connect(to: listener.address)
                _ = try await accepting.value
            }
        }
    }
}
