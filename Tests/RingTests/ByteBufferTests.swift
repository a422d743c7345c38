import Ring
import TestSupport
import Testing

@Suite struct ByteBufferTests {
    @Test func `it grows to its maximum and no further`() async throws {
        try await onRing {
            let buffer = ByteBuffer(capacity: 4, max: 10)
            try buffer.append("0123456789")
            #expect(throws: ByteBuffer.Full.self) { try buffer.append("x") }
            #expect(text(buffer) == "0123456789")
            buffer.consume(1)
            try buffer.append("x")
            #expect(text(buffer) == "123456789x")
        }
    }

    /// Compares the buffer with an array over many random steps.
    @Test func `bytes come out in the order they went in`() async throws {
        try await onRing {
            var random = SystemRandomNumberGenerator()
            let buffer = ByteBuffer(capacity: 8, max: 100)
            var model: [UInt8] = []
            for step in 0..<20_000 {
                if Bool.random(using: &random) {
                    let bytes = (0..<Int.random(in: 0...12, using: &random)).map {
                        UInt8(truncatingIfNeeded: step + $0)
                    }
                    if model.count + bytes.count <= 100 {
                        try buffer.append(bytes)
                        model += bytes
                    } else {
                        #expect(throws: ByteBuffer.Full.self) { try buffer.append(bytes) }
                    }
                } else {
                    let count = Int.random(in: 0...model.count, using: &random)
                    buffer.consume(count)
                    model.removeFirst(count)
                }
                #expect(buffer.readable.elementsEqual(model))
            }
        }
    }

    @Test func `changing a buffer that a receive uses traps`() async {
        await #expect(processExitsWith: .failure) {
            try await onRing {
                let (a, b) = try socketPair()
                let into = try buffer()
                let receiving = RingActor.spawn { try await a.receive(into: into) }
                await Task.yield()
                try into.append("x")
                receiving.cancel()
                b.close()
            }
        }
    }
}
