import Base

/// Received bytes that are not yet consumed, or bytes to be sent, in a heap block that grows up to
/// a maximum.
///
/// While an operation uses the block, changing the buffer traps.
@RingActor
package final class ByteBuffer {
    /// More than the buffer's maximum was requested.
    package struct Full: Error, Sendable, CustomStringConvertible {
        package var description: String { "the buffer holds as much as it may" }
    }

    /// Unsafe only for `deinit`, which has exclusive access to the buffer on any thread.
    nonisolated(unsafe) private var storage: UnsafeMutableRawPointer
    private var capacity: Int
    private let max: Int
    private var head = 0
    private var tail = 0
    /// Set while the kernel may read or write the block.
    private(set) var isInUse = false

    /// An empty buffer for at most `max` bytes, with room for `capacity` of them.
    package init(capacity: Int, max: Int) {
        precondition(0 < capacity && capacity <= max)
        self.capacity = capacity
        self.max = max
        storage = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { storage.deallocate() }

    /// The number of readable bytes.
    package var count: Int { tail - head }

    package var isEmpty: Bool { head == tail }

    /// The readable bytes, valid until the buffer is next changed.
    package var readable: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: storage + head, count: count)
    }

    package func append(_ bytes: UnsafeRawBufferPointer) throws(Full) {
        guard !bytes.isEmpty else { return }
        try reserve(bytes.count).copyMemory(from: bytes)
        commit(bytes.count)
    }

    package func append(_ bytes: [UInt8]) throws(Full) {
        let room = try reserve(bytes.count)
        bytes.withUnsafeBytes { room.copyMemory(from: $0) }
        commit(bytes.count)
    }

    package func append(_ byte: UInt8) throws(Full) {
        try reserve(1)[0] = byte
        commit(1)
    }

    /// Appends the text's UTF-8.
    package func append(_ text: StaticString) throws(Full) {
        try append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends the text's UTF-8.
    package func append(_ text: String) throws(Full) {
        let utf8 = text.utf8
        let room = try reserve(utf8.count)
        room.copyBytes(from: utf8)
        commit(utf8.count)
    }

    /// Takes `count` readable bytes from the front.
    package func consume(_ count: Int) {
        precondition(!isInUse && 0 <= count && count <= self.count)
        head += count
        if head == tail { (head, tail) = (0, 0) }
    }

    package func clear() { consume(count) }

    /// Space for at least `count` bytes after the readable ones, to be filled from its start and
    /// made readable by `commit`; valid until the buffer is next changed.
    @discardableResult
    package func reserve(_ count: Int) throws(Full) -> UnsafeMutableRawBufferPointer {
        precondition(!isInUse && count >= 0)
        if capacity - tail < count { try makeRoom(count) }
        return UnsafeMutableRawBufferPointer(start: storage + tail, count: capacity - tail)
    }

    /// Space for a receive operation: at least one byte, and enough for most messages in a few
    /// operations.
    func reserveForReceiving() throws(Full) -> UnsafeMutableRawBufferPointer {
        try reserve(Swift.max(1, min(Limit.receiveMin, max - count)))
    }

    /// Makes the first `count` bytes of the reserved space readable.
    package func commit(_ count: Int) {
        precondition(!isInUse && 0 <= count && count <= capacity - tail)
        tail += count
    }

    /// Claims the block for an operation, which holds it until `endUse`.
    func beginUse() {
        precondition(!isInUse, "the buffer is used by another operation")
        isInUse = true
    }

    func endUse() { isInUse = false }

    /// Moves the readable bytes to the front, or into a larger block if that is not enough.
    private func makeRoom(_ count: Int) throws(Full) {
        let needed = self.count + count
        guard needed <= max else { throw Full() }
        let readable = self.readable
        if needed <= capacity {
            storage.copyMemory(from: storage + head, byteCount: readable.count)
        } else {
            capacity = min(max, Swift.max(needed, capacity * 2))
            let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
            larger.copyMemory(from: storage + head, byteCount: readable.count)
            storage.deallocate()
            storage = larger
        }
        (head, tail) = (0, readable.count)
    }
}
