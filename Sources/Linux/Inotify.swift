import CLinux
import Glibc
import Ring
import SystemPackage

/// Events about changes to the nodes in one directory.
@RingActor
final class Inotify {
    /// Udev changes a node's mode after creating it, and some device managers create it under
    /// another name and rename it.
    private static let mask =
        UInt32(IN_CREATE) | UInt32(IN_ATTRIB) | UInt32(IN_MOVED_TO) | UInt32(IN_MOVED_FROM)
        | UInt32(IN_DELETE) | UInt32(IN_ONLYDIR)

    private let path: String
    private let descriptor: Descriptor
    private var watch: Int32?

    /// Initially idle.
    init(path: String) throws(Errno) {
        let descriptor = inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
        guard descriptor >= 0 else { throw lastErrno }
        self.path = path
        self.descriptor = Descriptor(owning: descriptor)
    }

    /// From now on no change goes unnoticed. Returns whether the watch was not armed before.
    func arm() throws(Errno) -> Bool {
        guard watch == nil else { return false }
        let added = inotify_add_watch(descriptor.rawValue, path, Self.mask)
        guard added >= 0 else { throw lastErrno }
        watch = added
        return true
    }

    func disarm() {
        guard let armed = watch else { return }
        watch = nil
        inotify_rm_watch(descriptor.rawValue, armed)
        _ = take()
    }

    /// Suspends until there are events. Throws `Errno.canceled` if the task is cancelled.
    func wait() async throws(Errno) {
        _ = try await RingActor.ring.poll(descriptor, .input)
    }

    /// Reads the pending events; returns whether there were any. Their kind does not matter: a full
    /// queue (IN_Q_OVERFLOW) is a change as well. If the directory itself disappears (IN_IGNORED),
    /// the watch is no longer armed.
    ///
    /// The read does not wait. A read through the ring would take five times as long, because a
    /// kernel worker performs it.
    func take() -> Bool {
        var changed = false
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            while true {
                let count = read(descriptor.rawValue, buffer.baseAddress, buffer.count)
                guard count > 0 else { return }
                for event in Events(UnsafeRawBufferPointer(buffer)[..<count]) {
                    let isEnd = event.mask & UInt32(IN_IGNORED) != 0
                    if isEnd, event.wd == watch { watch = nil }
                    if !isEnd || watch == nil { changed = true }
                }
            }
        }
        return changed
    }

    /// The records of one read: each is a header and the number of name bytes that it states.
    private struct Events: Sequence, IteratorProtocol {
        private var rest: Slice<UnsafeRawBufferPointer>

        init(_ bytes: Slice<UnsafeRawBufferPointer>) { rest = bytes }

        mutating func next() -> inotify_event? {
            let size = MemoryLayout<inotify_event>.size
            guard rest.count >= size else { return nil }
            let event = UnsafeRawBufferPointer(rebasing: rest).loadUnaligned(as: inotify_event.self)
            rest = rest.dropFirst(size + Int(event.len))
            return event
        }
    }
}
