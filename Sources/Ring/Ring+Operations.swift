import Base
import Glibc
package import SystemPackage

/// The events to wait for on a descriptor, and those that occurred. The values are those of
/// poll(2).
package struct PollEvents: OptionSet, Sendable, Hashable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let input = PollEvents(rawValue: 0x001)
    package static let output = PollEvents(rawValue: 0x004)
    /// Always reported, even if not requested.
    package static let error = PollEvents(rawValue: 0x008)
    /// Always reported, even if not requested.
    package static let hangUp = PollEvents(rawValue: 0x010)
    /// The peer has shut down its sending side.
    package static let peerHangUp = PollEvents(rawValue: 0x2000)
}

extension Ring {
    /// Waits until one of `events` occurs, and returns those that did.
    ///
    /// Throws `Errno.canceled` if the task is cancelled, `Errno.noBufferSpace` if
    /// `Limit.operationsInFlightMax` operations are in flight; the same applies to all operations
    /// here.
    @RingActor
    package func poll(
        _ descriptor: borrowing Descriptor, _ events: PollEvents
    ) async throws(Errno) -> PollEvents {
        let result = await perform(.poll(descriptor.rawValue, events))
        return PollEvents(rawValue: UInt32(try checked(result)))
    }

    /// Makes the backend perform an operation, and returns its result.
    ///
    /// Cancelling the task also cancels the operation. The result is always that of the operation:
    /// what it did before the cancellation is not lost.
    ///
    /// At the limit this returns `-ENOBUFS` at once, without suspending: do not simply try again.
    /// Operations that are needed to get below the limit again use `beyondLimit`.
    @RingActor
    func perform(_ operation: Operation, beyondLimit: Bool = false) async -> Int32 {
        guard beyondLimit || slots.inUse < Limit.operationsInFlightMax else { return -ENOBUFS }
        let tag = slots.take()
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { start(operation, tag, $0) }
        } onCancel: {
            cancel(tag)
        }
    }

    /// Waits until the descriptor is readable, even if the task is cancelled. For cleaning up, so
    /// it also works beyond `Limit.operationsInFlightMax`.
    @RingActor
    func pollToTheEnd(_ descriptor: borrowing Descriptor) async -> Int32 {
        let operation = Operation.poll(descriptor.rawValue, .input)
        let tag = slots.take()
        return await withUnsafeContinuation { start(operation, tag, $0) }
    }

    /// Begins the operation, or ends it at once if it is already cancelled.
    private func start(
        _ operation: Operation, _ tag: OperationTag,
        _ continuation: UnsafeContinuation<Int32, Never>
    ) {
        guard let slot = slots.slot(of: tag) else {
            preconditionFailure("an operation is begun once")
        }
        if slot.pointee.isCancelled {
            slots.release(tag)
            return continuation.resume(returning: -ECANCELED)
        }
        // Before it begins: beginning it may process the inbox, including a cancellation of this
        // operation.
        slot.pointee.continuation = continuation
        if let result = begin(operation, tag, slot) {
            slot.pointee.continuation = nil
            slots.release(tag)
            continuation.resume(returning: result)
        }
    }
}

/// A completion's result as a count.
func checked(_ result: Int32) throws(Errno) -> Int {
    guard result >= 0 else { throw Errno(rawValue: -result) }
    return Int(result)
}
