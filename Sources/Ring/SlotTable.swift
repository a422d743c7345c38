import CUring

/// The state of one operation in flight.
struct Slot {
    /// Set while the backend owns the operation.
    var continuation: UnsafeContinuation<Int32, Never>?
    /// Counts the slot's users, so that a late cancellation of an earlier one finds nothing.
    var generation: UInt32 = 0
    var nextFree: UInt32 = SlotTable.none
    var isCancelled = false
    /// Where a timeout ends; io_uring reads it when the SQE is submitted.
    var timespec = CUring_timespec()
}

/// Names an operation in flight; io_uring's user_data.
struct OperationTag: Hashable, Sendable {
    var rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    init(index: UInt32, generation: UInt32) {
        rawValue = UInt64(index) | UInt64(generation) << 32
    }

    var index: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
    var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }

    /// The read of the eventfd by which other threads wake the loop.
    static let wake = OperationTag(rawValue: .max)
    /// A cancellation, whose own result does not matter, because the cancelled operation completes
    /// too.
    static let cancellation = OperationTag(rawValue: .max - 1)
}

/// The slots of the operations in flight. A slot never moves, because SQEs point into it.
struct SlotTable: ~Copyable {
    static let none = UInt32.max
    private static let chunkShift: UInt32 = 8
    private static let chunkSize = 1 << Int(chunkShift)

    private var chunks: [UnsafeMutablePointer<Slot>] = []
    private var firstFree = SlotTable.none
    private(set) var inUse = 0

    deinit {
        for chunk in chunks {
            chunk.deinitialize(count: Self.chunkSize)
            chunk.deallocate()
        }
    }

    /// Takes a free slot, which `release` returns.
    mutating func take() -> OperationTag {
        if firstFree == Self.none { addChunk() }
        let index = firstFree
        let slot = self[index]
        firstFree = slot.pointee.nextFree
        inUse += 1
        return OperationTag(index: index, generation: slot.pointee.generation)
    }

    mutating func release(_ tag: OperationTag) {
        let slot = self[tag.index]
        slot.pointee.generation &+= 1
        slot.pointee.isCancelled = false
        slot.pointee.nextFree = firstFree
        firstFree = tag.index
        inUse -= 1
    }

    /// The slot of an operation, nil once that operation has ended.
    func slot(of tag: OperationTag) -> UnsafeMutablePointer<Slot>? {
        let slot = self[tag.index]
        return slot.pointee.generation == tag.generation ? slot : nil
    }

    private subscript(index: UInt32) -> UnsafeMutablePointer<Slot> {
        chunks[Int(index >> Self.chunkShift)] + Int(index & UInt32(Self.chunkSize - 1))
    }

    private mutating func addChunk() {
        let chunk = UnsafeMutablePointer<Slot>.allocate(capacity: Self.chunkSize)
        chunk.initialize(repeating: Slot(), count: Self.chunkSize)
        let first = UInt32(chunks.count * Self.chunkSize)
        for offset in 0..<Self.chunkSize - 1 {
            chunk[offset].nextFree = first + UInt32(offset) + 1
        }
        firstFree = first
        chunks.append(chunk)
    }
}
