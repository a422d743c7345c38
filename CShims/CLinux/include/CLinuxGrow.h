/* Growing mounted file systems. Each function takes an open directory of the file system and
   returns 0 or an errno; ENOTTY if the file system is of another type. CAP_SYS_ADMIN. */
#pragma once
#include <stdint.h>

/* The size of the data section of an XFS file system (XFS_IOC_FSGEOMETRY_V1). */
int CLinux_xfs_size(int directory, uint64_t *blocks, uint32_t *block_size);

/* XFS_IOC_FSGROWFSDATA. The kernel omits a last allocation group that would be too small. */
int CLinux_xfs_grow(int directory, uint64_t blocks);

/* EXT4_IOC_RESIZE_FS. Also for ext2 and ext3, which are mounted by the ext4 driver.
   CAP_SYS_RESOURCE. Linux 3.3. */
int CLinux_ext4_grow(int directory, uint64_t blocks);
