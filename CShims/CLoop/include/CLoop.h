/* Loop devices, for tests and the EC2 simulator: a sparse file as a real block device. */
#pragma once
#include <stdint.h>

/* Binds a free loop device to `backing`, an open file, and returns its open descriptor (close on
   exec), its minor number in `minor`; or a negated errno. The kernel unbinds it by itself once
   nothing has it open or mounted, so that a process that dies leaves no loop device behind. Its
   partitions are shown as far as the kernel reads their tables, and go with it. Linux 5.8. */
int CLoop_bind(int backing, uint32_t *minor);

/* Makes the device as large as its backing file is now. Returns 0 or an errno. */
int CLoop_resize(int device);

/* Shows a part of the device, in bytes, as its partition of that number, whatever is on it: a
   kernel may be built without any code that reads partition tables. Returns 0 or an errno; EBUSY
   where that partition, or one that overlaps, is shown already. */
int CLoop_add_partition(int device, int number, uint64_t start, uint64_t length);

/* Leaves of the partition that begins at `start`, in bytes, its first sector, also under whoever
   has it mounted. Returns 0 or an errno. */
int CLoop_shrink_partition(int device, int number, uint64_t start);

/* Tears the device away under whoever holds it: from now on every read and write fails. Dirty
   blocks of the device itself are written first, those of a mounted file system are lost, as at a
   forced detach. The backing file is left as it is. Partitions
   are shrunk one by one. Returns 0 or an errno. */
int CLoop_tear(int device);
