import Base
import CUring
import Glibc
package import SystemPackage

/// What to wait for on a descriptor, and what was found. Values as poll(2) has them.
package struct PollEvents: OptionSet, Sendable, Hashable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let input = PollEvents(rawValue: 0x001)
    package static let output = PollEvents(rawValue: 0x004)
    /// Reported whether asked for or not.
    package static let error = PollEvents(rawValue: 0x008)
    /// Reported whether asked for or not.
    package static let hangUp = PollEvents(rawValue: 0x010)
    /// The peer has shut its sending side down.
    package static let peerHangUp = PollEvents(rawValue: 0x2000)
}

extension Ring {
    /// Waits until one of `events` is there, and returns those that are.
    ///
    /// Throws `Errno.canceled` when the task is cancelled, `Errno.noBufferSpace` when
    /// `Limit.operationsInFlightMax` operations are in flight; so do all operations here.
    @RingActor
    package func poll(
        _ descriptor: borrowing Descriptor, _ events: PollEvents
    ) async throws(Errno) -> PollEvents {
        let fd = descriptor.rawValue
        let result = await perform { CUring_poll($0, $1, fd, events.rawValue) }
        return PollEvents(rawValue: UInt32(try checked(result)))
    }

    /// Reads up to `buffer.count` bytes, at a byte offset or, when it is nil, at the file's own
    /// position. Returns how many; 0 at the end.
    ///
    /// The buffer has to stay valid until this returns, which after a cancellation too is only when
    /// the kernel has let go of it. For an inotify descriptor, `poll` and read(2): a read in the
    /// ring would occupy a kernel thread.
    @RingActor
    package func read(
        _ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64?
    ) async throws(Errno) -> Int {
        let fd = descriptor.rawValue
        let result = await perform {
            CUring_read($0, $1, fd, buffer.baseAddress, buffer.count, offset ?? .max)
        }
        return try checked(result)
    }

    /// Writes up to `buffer.count` bytes, at a byte offset or, when it is nil, at the file's own
    /// position. Returns how many. The buffer has to stay valid until this returns.
    @RingActor
    package func write(
        _ descriptor: borrowing Descriptor, from buffer: UnsafeRawBufferPointer, at offset: UInt64?
    ) async throws(Errno) -> Int {
        let fd = descriptor.rawValue
        let result = await perform {
            CUring_write($0, $1, fd, buffer.baseAddress, buffer.count, offset ?? .max)
        }
        return try checked(result)
    }

    /// Queues one SQE by `prepare`, given the ring and the SQE's tag, waits for its completion, and
    /// returns that one's result: a count, or a negated errno.
    ///
    /// When the task is cancelled the SQE is cancelled too. The result is the operation's own in
    /// any case: what it did before the cancellation reached it is not lost.
    ///
    /// At the limit this returns `-ENOBUFS` at once, without a suspension: do not just try again.
    /// What has to be done even so, to get below the limit again, is done `beyondLimit`.
    @RingActor
    func perform(
        beyondLimit: Bool = false, _ prepare: (OpaquePointer, UInt64) -> Bool
    ) async -> Int32 {
        guard beyondLimit || slots.inUse < Limit.operationsInFlightMax else { return -ENOBUFS }
        let tag = slots.take()
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { queue(tag, $0, prepare) }
        } onCancel: {
            cancel(tag)
        }
    }

    /// Waits until the descriptor is readable, whether the task is cancelled or not. For cleaning
    /// up, hence beyond `Limit.operationsInFlightMax` too.
    @RingActor
    func pollToTheEnd(_ descriptor: borrowing Descriptor) async -> Int32 {
        let fd = descriptor.rawValue
        let tag = slots.take()
        return await withUnsafeContinuation {
            queue(tag, $0) { CUring_poll($0, $1, fd, PollEvents.input.rawValue) }
        }
    }

    /// A timeout's SQE, which points into the operation's slot.
    @RingActor
    func performTimeout(_ instant: Instant, beyondLimit: Bool = false) async -> Int32 {
        await perform(beyondLimit: beyondLimit) { uring, tag in
            let slot = slots.slot(of: OperationTag(rawValue: tag))
            guard let slot, let offset = MemoryLayout<Slot>.offset(of: \.timespec) else {
                preconditionFailure("an operation that is being queued has a slot")
            }
            slot.pointee.timespec = CUring_timespec(instant)
            let timespec = UnsafeMutableRawPointer(slot).advanced(by: offset)
            return CUring_timeout(
                uring, tag, timespec.assumingMemoryBound(to: CUring_timespec.self))
        }
    }

    /// Queues the operation's SQE, or ends it at once when it is cancelled already.
    private func queue(
        _ tag: OperationTag, _ continuation: UnsafeContinuation<Int32, Never>,
        _ prepare: (OpaquePointer, UInt64) -> Bool
    ) {
        guard let slot = slots.slot(of: tag) else {
            preconditionFailure("an operation is queued once")
        }
        if slot.pointee.isCancelled {
            slots.release(tag)
            return continuation.resume(returning: -ECANCELED)
        }
        // Before the SQE is queued: that may take the inbox in, with a cancellation of this
        // operation.
        slot.pointee.continuation = continuation
        guard queue({ prepare($0, tag.rawValue) }) else {
            slot.pointee.continuation = nil
            slots.release(tag)
            return continuation.resume(returning: -ENOBUFS)
        }
    }
}

/// A completion's result as a count.
func checked(_ result: Int32) throws(Errno) -> Int {
    guard result >= 0 else { throw Errno(rawValue: -result) }
    return Int(result)
}

extension CUring_timespec {
    fileprivate init(_ instant: Instant) {
        let (seconds, rest) = instant.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.init(seconds: Int64(seconds), nanoseconds: Int64(rest))
    }
}
