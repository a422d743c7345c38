#include "CLinuxGrow.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>

/* From fs/xfs/libxfs/xfs_fs.h and fs/ext4/ext4.h of Linux. The header of XFS for programs is part
   of the package xfslibs-dev; ext4 has no such header. The layouts are part of the kernel's ABI. */

struct xfs_geometry {
    uint32_t block_size, realtime_extent, group_blocks, group_count;
    uint32_t log_blocks, sector_size, inode_size, inode_percent;
    uint64_t data_blocks, realtime_blocks, realtime_extents, log_start;
    uint8_t uuid[16];
    uint32_t stripe_unit, stripe_width;
    int32_t version;
    uint32_t flags, log_sector_size, realtime_sector_size, directory_block_size;
};
_Static_assert(sizeof(struct xfs_geometry) == 112, "struct xfs_fsop_geom_v1");

struct xfs_growth {
    uint64_t blocks;
    uint32_t inode_percent;
};
_Static_assert(sizeof(struct xfs_growth) == 16, "struct xfs_growfs_data");

#define XFS_GEOMETRY _IOR('X', 100, struct xfs_geometry)
#define XFS_GROW_DATA _IOW('X', 110, struct xfs_growth)
#define EXT4_RESIZE _IOW('f', 16, uint64_t)

static int geometry(int directory, struct xfs_geometry *answer) {
    return ioctl(directory, XFS_GEOMETRY, answer) == 0 ? 0 : errno;
}

int CLinux_xfs_size(int directory, uint64_t *blocks, uint32_t *block_size) {
    struct xfs_geometry answer;
    int code = geometry(directory, &answer);
    if (code != 0)
        return code;
    *blocks = answer.data_blocks;
    *block_size = answer.block_size;
    return 0;
}

int CLinux_xfs_grow(int directory, uint64_t blocks) {
    struct xfs_geometry now;
    int code = geometry(directory, &now);
    if (code != 0)
        return code;
    struct xfs_growth growth = {.blocks = blocks, .inode_percent = now.inode_percent};
    return ioctl(directory, XFS_GROW_DATA, &growth) == 0 ? 0 : errno;
}

int CLinux_ext4_grow(int directory, uint64_t blocks) {
    return ioctl(directory, EXT4_RESIZE, &blocks) == 0 ? 0 : errno;
}
