/* Growing mounted file systems. Each takes an open directory of the file system, and returns 0 or
   an errno; ENOTTY where it is a file system of another kind. CAP_SYS_ADMIN. */
#pragma once
#include <stdint.h>

/* The size of an XFS's data section (XFS_IOC_FSGEOMETRY_V1). */
int CLinux_xfs_size(int directory, uint64_t *blocks, uint32_t *block_size);

/* XFS_IOC_FSGROWFSDATA. The kernel leaves out a last allocation group that would be too small. */
int CLinux_xfs_grow(int directory, uint64_t blocks);

/* EXT4_IOC_RESIZE_FS, also for ext2 and ext3, which the ext4 driver mounts. CAP_SYS_RESOURCE.
   Linux 3.3. */
int CLinux_ext4_grow(int directory, uint64_t blocks);
