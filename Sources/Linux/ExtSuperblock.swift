import Base
import Glibc
import Ring
import SystemPackage

/// What an ext2, ext3 or ext4 says of itself.
///
/// Source: struct ext4_super_block in the kernel's fs/ext4/ext4.h, and ext4_setup_super in
/// fs/ext4/super.c for when it asks for a check.
struct ExtSuperblock: Equatable {
    static let offset = 1024
    static let size = 1024

    /// In bytes.
    var blockSize: UInt64
    var blocks: UInt64
    private var state: UInt16
    private var needsRecovery: Bool
    private var mounts: UInt16
    private var mountsMax: Int16
    private var lastCheck: UInt32
    private var checkInterval: UInt32

    /// Nil where the bytes are no such superblock.
    init?(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        func number<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
            (0..<T.bitWidth / 8).reduce(0) {
                $0 | T(truncatingIfNeeded: bytes[offset + $1]) << ($1 * 8)
            }
        }
        let logBlockSize = number(UInt32.self, 24)
        guard number(UInt16.self, 56) == 0xEF53, logBlockSize <= 6 else { return nil }
        let incompatible = number(UInt32.self, 96)
        let is64bit = incompatible & 0x80 != 0
        blockSize = 1024 << UInt64(logBlockSize)
        blocks = UInt64(number(UInt32.self, 4))
        if is64bit { blocks |= UInt64(number(UInt32.self, 0x150)) << 32 }
        state = number(UInt16.self, 58)
        needsRecovery = incompatible & 0x4 != 0
        mounts = number(UInt16.self, 52)
        mountsMax = number(Int16.self, 54)
        lastCheck = number(UInt32.self, 64)
        checkInterval = number(UInt32.self, 68)
    }

    /// Whether e2fsck is to look at it before it is mounted: it was not unmounted, its journal is
    /// not replayed, the kernel found errors in it, or a check is due by count or time.
    func asksForCheck(unixSeconds: Int64) -> Bool {
        let (isValid, hasErrors) = (state & 1 != 0, state & 2 != 0)
        let isDueByCount = mountsMax > 0 && Int(mounts) >= Int(mountsMax)
        let isDueByTime =
            checkInterval > 0 && Int64(lastCheck) + Int64(checkInterval) <= unixSeconds
        return !isValid || hasErrors || needsRecovery || isDueByCount || isDueByTime
    }
}

extension ProvenDevice {
    func extSuperblock() throws(OperationError) -> ExtSuperblock {
        var bytes = [UInt8](repeating: 0, count: ExtSuperblock.size)
        let count = try explaining("pread", .device, doing: doing) { () throws(Errno) in
            let count = bytes.withUnsafeMutableBytes {
                pread(descriptor.rawValue, $0.baseAddress, $0.count, off_t(ExtSuperblock.offset))
            }
            if count < 0 { throw lastErrno }
            return count
        }
        guard count == bytes.count, let superblock = ExtSuperblock(bytes) else {
            throw OperationError(
                .content, doing: doing, found: "its superblock is no ext2's, ext3's or ext4's",
                advice: "nothing was changed; see what 'dumpe2fs -h' says of it")
        }
        return superblock
    }
}
