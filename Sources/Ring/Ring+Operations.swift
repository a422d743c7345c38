import Base
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
        let result = await perform(.poll(descriptor.rawValue, events))
        return PollEvents(rawValue: UInt32(try checked(result)))
    }

    /// Has the backend carry an operation out, and returns its result.
    ///
    /// When the task is cancelled the operation is cancelled too. The result is the operation's own
    /// in any case: what it did before the cancellation reached it is not lost.
    ///
    /// At the limit this returns `-ENOBUFS` at once, without a suspension: do not just try again.
    /// What has to be done even so, to get below the limit again, is done `beyondLimit`.
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

    /// Waits until the descriptor is readable, whether the task is cancelled or not. For cleaning
    /// up, hence beyond `Limit.operationsInFlightMax` too.
    @RingActor
    func pollToTheEnd(_ descriptor: borrowing Descriptor) async -> Int32 {
        let operation = Operation.poll(descriptor.rawValue, .input)
        let tag = slots.take()
        return await withUnsafeContinuation { start(operation, tag, $0) }
    }

    /// Begins the operation, or ends it at once when it is cancelled already.
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
        // Before it is begun: that may take the inbox in, with a cancellation of this operation.
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
