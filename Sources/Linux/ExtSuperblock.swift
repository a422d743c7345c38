import Base

/// The superblock of an ext2, ext3 or ext4.
///
/// Source: struct ext4_super_block in the kernel's fs/ext4/ext4.h, whose numbers are little-endian.
struct ExtSuperblock: Equatable {
    static let offset: UInt64 = 1024
    static let size = 1024

    /// In bytes; from s_log_block_size.
    var blockSize: UInt64
    /// s_blocks_count_lo and _hi.
    var blocks: UInt64
    /// s_state.
    private var state: UInt16
    /// s_feature_compat, s_feature_incompat and s_feature_ro_compat.
    private var compatibleFeatures: UInt32
    var incompatibleFeatures: UInt32
    var readOnlyFeatures: UInt32
    /// s_journal_inum: 0 if the journal is on another device.
    private var journalInode: UInt32

    /// Nil if the bytes are not such a superblock.
    init?(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        func number<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
            (0..<T.bitWidth / 8).reduce(0) {
                $0 | T(truncatingIfNeeded: bytes[offset + $1]) << ($1 * 8)
            }
        }
        let logBlockSize = number(UInt32.self, 0x18)
        guard number(UInt16.self, 0x38) == 0xEF53, logBlockSize <= 6 else { return nil }
        blockSize = 1024 << UInt64(logBlockSize)
        state = number(UInt16.self, 0x3A)
        compatibleFeatures = number(UInt32.self, 0x5C)
        incompatibleFeatures = number(UInt32.self, 0x60)
        readOnlyFeatures = number(UInt32.self, 0x64)
        journalInode = number(UInt32.self, 0xE0)
        blocks = UInt64(number(UInt32.self, 0x4))
        // EXT4_FEATURE_INCOMPAT_64BIT: only then is the upper half of the count valid.
        if incompatibleFeatures & 0x80 != 0 { blocks |= UInt64(number(UInt32.self, 0x150)) << 32 }
    }

    /// EXT4_FEATURE_INCOMPAT_RECOVER: the journal must be replayed.
    var needsRecovery: Bool { incompatibleFeatures & 0x4 != 0 }

    /// Whether it has a journal (EXT4_FEATURE_COMPAT_HAS_JOURNAL) on another device.
    var hasExternalJournal: Bool { compatibleFeatures & 0x4 != 0 && journalInode == 0 }

    /// Whether the kernel warns of damage when it mounts the file system: it has no journal and was
    /// not unmounted (EXT4_VALID_FS is missing), or errors were found in it (EXT4_ERROR_FS). A
    /// check that is due by mount count or date is not a sign of damage.
    ///
    /// Source: ext4_setup_super in the kernel's fs/ext4/super.c.
    var isDamaged: Bool { state & 1 == 0 || state & 2 != 0 }
}

extension ProvenDevice {
    func extSuperblock() throws(OperationError) -> ExtSuperblock {
        let bytes = try bytes(at: ExtSuperblock.offset, count: ExtSuperblock.size)
        guard let superblock = ExtSuperblock(bytes) else {
            throw OperationError(
                .content, doing: doing,
                found: "its superblock is not that of an ext2, ext3 or ext4",
                advice: "nothing was changed; look at the output of 'dumpe2fs -h'")
        }
        return superblock
    }
}
