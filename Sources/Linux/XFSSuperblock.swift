import Base

/// The superblock of an xfs.
///
/// Source: struct xfs_dsb in the kernel's fs/xfs/libxfs/xfs_format.h, whose numbers are big-endian.
struct XFSSuperblock: Equatable {
    static let offset: UInt64 = 0
    /// The smallest possible sector of an xfs.
    static let size = 512

    /// In bytes; sb_blocksize.
    var blockSize: UInt64
    /// sb_dblocks.
    var blocks: UInt64
    /// sb_rblocks: those of a realtime device.
    var realtimeBlocks: UInt64
    /// sb_logstart: 0 if the log is on another device.
    private var logStart: UInt64
    /// sb_versionnum, its low four bits.
    var version: UInt16
    /// sb_inprogress.
    var isInProgress: Bool
    /// sb_features_ro_compat, of version 5.
    var readOnlyFeatures: UInt32
    /// sb_features_incompat, of version 5.
    var incompatibleFeatures: UInt32

    /// Nil if the bytes are not such a superblock.
    init?(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        guard bytes.prefix(4).elementsEqual("XFSB".utf8) else { return nil }
        func number<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
            (0..<T.bitWidth / 8).reduce(0) {
                $0 << 8 | T(truncatingIfNeeded: bytes[offset + $1])
            }
        }
        blockSize = UInt64(number(UInt32.self, 4))
        blocks = number(UInt64.self, 8)
        realtimeBlocks = number(UInt64.self, 16)
        logStart = number(UInt64.self, 48)
        version = number(UInt16.self, 100) & 0xF
        isInProgress = bytes[126] != 0
        let hasFeatures = version >= 5
        readOnlyFeatures = hasFeatures ? number(UInt32.self, 212) : 0
        incompatibleFeatures = hasFeatures ? number(UInt32.self, 216) : 0
    }

    var hasExternalLog: Bool { logStart == 0 }

    /// XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR: xfs_repair must run first.
    var needsRepair: Bool { incompatibleFeatures & 0x10 != 0 }
}

extension ProvenDevice {
    func xfsSuperblock() throws(OperationError) -> XFSSuperblock {
        let bytes = try bytes(at: XFSSuperblock.offset, count: XFSSuperblock.size)
        guard let superblock = XFSSuperblock(bytes) else {
            throw OperationError(
                .content, doing: doing, found: "its superblock is not that of an xfs",
                advice: "nothing was changed; look at the output of 'xfs_db -r -c sb -c print'")
        }
        return superblock
    }
}
