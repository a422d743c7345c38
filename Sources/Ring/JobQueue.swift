/// A first-in, first-out queue of jobs that are ready to run. It grows as needed, and does not
/// shrink.
struct JobQueue: ~Copyable {
    private var storage: UnsafeMutablePointer<UnownedJob>
    /// The capacity, a power of two, minus one.
    private var mask: Int
    private var head = 0
    private var tail = 0

    init() {
        mask = 255
        storage = .allocate(capacity: mask + 1)
    }

    deinit { storage.deallocate() }

    var count: Int { tail &- head }
    var isEmpty: Bool { head == tail }

    mutating func push(_ job: UnownedJob) {
        if count > mask { grow() }
        (storage + (tail & mask)).initialize(to: job)
        tail &+= 1
    }

    /// The queue must not be empty.
    mutating func pop() -> UnownedJob {
        defer { head &+= 1 }
        return (storage + (head & mask)).move()
    }

    private mutating func grow() {
        let capacity = mask + 1
        let larger = UnsafeMutablePointer<UnownedJob>.allocate(capacity: capacity * 2)
        for index in 0..<capacity {
            (larger + index).initialize(to: (storage + ((head + index) & mask)).move())
        }
        storage.deallocate()
        storage = larger
        (head, tail, mask) = (0, capacity, capacity * 2 - 1)
    }
}
