/* Loop devices, for tests and the EC2 simulator: a sparse file as a real block device. */
#pragma once
#include <stdint.h>

/* Binds a free loop device to `backing`, an open file. Returns the device's open descriptor
   (close-on-exec) and sets `minor` to its minor number, or returns a negated errno. The kernel
   unbinds the device when it is neither open nor mounted any more, so a process that dies leaves no
   loop device behind. The device has partitions if the kernel can read its partition table; they
   disappear together with it. Linux 5.8. */
int CLoop_bind(int backing, uint32_t *minor);

/* Makes the device as large as its backing file is now. Returns 0 or an errno. */
int CLoop_resize(int device);

/* Adds a partition with this number, start and length (in bytes), whatever the device contains: a
   kernel may be built without any code that reads partition tables. Returns 0 or an errno; EBUSY if
   this partition, or one that overlaps with it, exists already. */
int CLoop_add_partition(int device, int number, uint64_t start, uint64_t length);

/* Shrinks the partition that begins at `start` (in bytes) to its first sector, even while it is
   mounted. Returns 0 or an errno. */
int CLoop_shrink_partition(int device, int number, uint64_t start);

/* Takes the device away while it is in use: from now on every read and write fails. Dirty blocks of
   the device itself are written first; those of a mounted file system are lost, as in a forced
   detach. The backing file is not changed. Partitions must be shrunk one by one. Returns 0 or an
   errno. */
int CLoop_tear(int device);
