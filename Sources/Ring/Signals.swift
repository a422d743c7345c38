import CLinux
import Glibc
package import SystemPackage

/// Signals that end the daemon, taken as events of the ring instead of interrupting it.
@RingActor
package final class TerminationSignals {
    package enum Signal: Sendable { case interrupt, terminate }

    private let descriptor: Descriptor

    /// From now on SIGINT and SIGTERM wait for `next`. They are blocked in the calling thread,
    /// which must be the only one that does not block all signals: create this first on the ring of
    /// a program that runs it on its main thread.
    package init() throws(Errno) {
        let signals = [SIGINT, SIGTERM]
        let fd = CLinux_signalfd(signals, UInt32(signals.count))
        guard fd >= 0 else { throw .current }
        descriptor = Descriptor(owning: fd)
    }

    /// Waits for the next of the signals. Throws `Errno.canceled` when the task is cancelled.
    package func next() async throws(Errno) -> Signal {
        while true {
            switch CLinux_signalfd_read(descriptor.rawValue) {
            case SIGINT: return .interrupt
            case SIGTERM: return .terminate
            case 0: _ = try await RingActor.ring.poll(descriptor, .input)
            default: throw .current
            }
        }
    }
}
