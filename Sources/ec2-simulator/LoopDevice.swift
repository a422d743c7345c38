import CLinux
import Glibc
import Ring

/// A volume's file as a block device. Once it is released and nothing else has it open or mounted,
/// the kernel unbinds it.
///
/// Calls block, and come one at a time: hence `@unchecked`.
final class LoopDevice: @unchecked Sendable {
    let minor: UInt32
    private var descriptor: Descriptor?

    init(backing path: String) throws(SystemError) {
        let file = open(path, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw SystemError("open \(path)") }
        defer { close(file) }
        var minor: UInt32 = 0
        let result = CLinux_loop_bind(file, &minor)
        guard result >= 0 else { throw SystemError("bind a loop device to \(path)", -result) }
        descriptor = Descriptor(owning: result)
        self.minor = minor
    }

    /// Whether someone has it mounted, in whatever mount namespace, or holds it in another way.
    ///
    /// open(2) with O_EXCL on a block device fails with EBUSY while the device is in use by the
    /// system; an ordinary open descriptor, such as this one, does not count.
    func isHeld() throws(SystemError) -> Bool {
        let path = "/dev/loop\(minor)"
        let fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
        if fd >= 0 {
            close(fd)
            return false
        }
        guard errno == EBUSY else { throw SystemError("open \(path)") }
        return true
    }

    /// Every read and write fails from now on, also for who has it mounted.
    func tear() throws(SystemError) {
        let code = CLinux_loop_tear(rawDescriptor)
        guard code == 0 else { throw SystemError("tear loop\(minor) away", code) }
    }

    /// Takes over the file's new size.
    func resize() throws(SystemError) {
        let code = CLinux_loop_resize(rawDescriptor)
        guard code == 0 else { throw SystemError("resize loop\(minor)", code) }
    }

    func release() { descriptor = nil }

    private var rawDescriptor: Int32 {
        switch descriptor {
        case .some(let descriptor): descriptor.rawValue
        case .none: preconditionFailure("the loop device is released")
        }
    }
}
