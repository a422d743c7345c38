#define _GNU_SOURCE
#include "CLinuxDevices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nvme_ioctl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int CLinux_node_at(int directory, const char *path, bool follow, struct CLinux_node *node) {
    int flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_EMPTY_PATH;
    if (!follow)
        flags |= AT_SYMLINK_NOFOLLOW;
    struct statx answer;
    if (statx(directory, path, flags, STATX_TYPE | STATX_MODE, &answer) != 0)
        return errno;
    node->mode = answer.stx_mode;
    node->device_major = answer.stx_dev_major;
    node->device_minor = answer.stx_dev_minor;
    node->number_major = answer.stx_rdev_major;
    node->number_minor = answer.stx_rdev_minor;
    return 0;
}

int CLinux_open_directory_without_links(const char *path) {
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_SYMLINKS,
    };
    long descriptor = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return descriptor < 0 ? -errno : (int)descriptor;
}

bool CLinux_is_block_device(uint32_t mode) { return S_ISBLK(mode); }
bool CLinux_is_directory(uint32_t mode) { return S_ISDIR(mode); }

int CLinux_device_size(int device, uint64_t *bytes) {
    return ioctl(device, BLKGETSIZE64, bytes) == 0 ? 0 : errno;
}

int CLinux_device_is_read_only(int device, bool *is_read_only) {
    int answer = 0;
    if (ioctl(device, BLKROGET, &answer) != 0)
        return errno;
    *is_read_only = answer != 0;
    return 0;
}

int CLinux_set_device_read_only(int device, bool is_read_only) {
    int value = is_read_only;
    return ioctl(device, BLKROSET, &value) == 0 ? 0 : errno;
}

int CLinux_nvme_identify_controller(int device, uint8_t *answer) {
    enum { identify = 0x06, controller = 0x01, answer_size = 4096, timeout_ms = 5000 };
    struct nvme_admin_cmd command = {
        .opcode = identify,
        .addr = (uint64_t)(uintptr_t)answer,
        .data_len = answer_size,
        .cdw10 = controller,
        .timeout_ms = timeout_ms,
    };
    int result = ioctl(device, NVME_IOCTL_ADMIN_CMD, &command);
    return result < 0 ? errno : -result;
}

const char *CLinux_errno_name(int code) { return strerrorname_np(code); }
