#define _GNU_SOURCE
#include "CLoop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int bind_to(int number, int backing) {
    char path[32];
    snprintf(path, sizeof path, "/dev/loop%d", number);
    int device = open(path, O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -errno;
    /* One call instead of LOOP_SET_FD and LOOP_SET_STATUS64, which would freeze the queue of the
       new device a second time. */
    struct loop_config config = {
        .fd = (uint32_t)backing,
        .info = {.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN},
    };
    if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
        /* The device may have been made read-only while it was bound to another file. */
        int refuses_writes = 0;
        ioctl(device, BLKROSET, &refuses_writes);
        return device;
    }
    int code = errno;
    close(device);
    return -code;
}

int CLoop_bind(int backing, uint32_t *minor) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return -errno;
    int device;
    int number;
    /* Another process may take the device that the kernel reported as free: ask again. */
    do {
        number = ioctl(control, LOOP_CTL_GET_FREE);
        device = number < 0 ? -errno : bind_to(number, backing);
    } while (device == -EBUSY);
    close(control);
    if (device >= 0)
        *minor = (uint32_t)number;
    return device;
}

int CLoop_resize(int device) {
    return ioctl(device, LOOP_SET_CAPACITY, 0) == 0 ? 0 : errno;
}

int CLoop_add_partition(int device, int number, uint64_t start, uint64_t length) {
    struct blkpg_partition partition = {
        .pno = number, .start = (long long)start, .length = (long long)length};
    struct blkpg_ioctl_arg request = {
        .op = BLKPG_ADD_PARTITION, .datalen = sizeof partition, .data = &partition};
    return ioctl(device, BLKPG, &request) == 0 ? 0 : errno;
}

int CLoop_shrink_partition(int device, int number, uint64_t start) {
    struct blkpg_partition partition = {.pno = number, .start = (long long)start, .length = 512};
    struct blkpg_ioctl_arg request = {
        .op = BLKPG_RESIZE_PARTITION, .datalen = sizeof partition, .data = &partition};
    return ioctl(device, BLKPG, &request) == 0 ? 0 : errno;
}

int CLoop_tear(int device) {
    struct loop_info64 info;
    if (ioctl(device, LOOP_GET_STATUS64, &info) != 0)
        return errno;
    /* A loop device that is in use cannot be unbound. After it is shrunk to its first sector, it
       has no block that a file system could use. */
    info.lo_sizelimit = 512;
    return ioctl(device, LOOP_SET_STATUS64, &info) == 0 ? 0 : errno;
}
