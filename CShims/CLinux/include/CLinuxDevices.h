/* System calls for nodes and block devices that Swift cannot import: statx needs _GNU_SOURCE, ioctl
   is variadic, and the request numbers are function-like macros. Calls that only GNU has stay in
   the .c file. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct CLinux_node {
    uint32_t mode;
    /* The device on which the node is stored. */
    uint32_t device_major, device_minor;
    /* The device that the node represents. */
    uint32_t number_major, number_minor;
};

/* statx(2). It never waits for the answer of a remote file system (AT_STATX_DONT_SYNC). An empty
   path means `directory` itself. Returns 0 or an errno. Linux 4.11. */
int CLinux_node_at(int directory, const char *path, bool follow, struct CLinux_node *node);

/* Opens a directory only as a reference to it (O_PATH, close-on-exec), if no part of its path is a
   symbolic link (openat2(2) with RESOLVE_NO_SYMLINKS). Returns the descriptor or a negated errno:
   ELOOP if a part is a symbolic link, ENOSYS before Linux 5.6. */
int CLinux_open_directory_without_links(const char *path);

bool CLinux_is_block_device(uint32_t mode);
bool CLinux_is_directory(uint32_t mode);

/* The device's size in bytes (BLKGETSIZE64). Returns 0 or an errno. */
int CLinux_device_size(int device, uint64_t *bytes);

/* Whether the device is read-only (BLKROGET), for whatever reason. Returns 0 or an errno. */
int CLinux_device_is_read_only(int device, bool *is_read_only);

/* Makes the kernel refuse writes to the device, or allow them again if the device itself accepts
   writes (BLKROSET). Returns 0 or an errno. */
int CLinux_set_device_read_only(int device, bool is_read_only);

/* Sends the command Identify Controller (NVM Express Base Specification, 5.17.2), whose answer has
   4096 bytes. Returns 0, an errno, or the negated NVMe status with which the controller refused. */
int CLinux_nvme_identify_controller(int device, uint8_t *answer);

/* For example "ENOENT"; NULL if the number is not an errno. */
const char *CLinux_errno_name(int code);
