#define _GNU_SOURCE
#include "CLinuxProcesses.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CLinuxThreads.h"
#include "deadline.h"

bool CLinux_has_seccomp_filter(void) { return prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER; }

struct child {
    pid_t pid;
    int hang_up;
};

/* Does not reap the child: its parent does. */
static void *wait_for_end(void *argument) {
    struct child child = *(struct child *)argument;
    free(argument);
    siginfo_t end;
    while (waitid(P_PID, child.pid, &end, WEXITED | WNOWAIT) < 0 && errno == EINTR) {}
    close(child.hang_up);
    return NULL;
}

static int hang_up_at_end(pid_t pid) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -1;
    struct child *child = malloc(sizeof *child);
    int error = ENOMEM;
    if (child) {
        *child = (struct child){.pid = pid, .hang_up = ends[1]};
        error = CLinux_start_thread("ring-child", wait_for_end, child);
        if (!error) return ends[0];
        free(child);
    }
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return -1;
}

int CLinux_child_end(pid_t pid) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    /* A seccomp filter may answer EPERM to a system call that it does not know. */
    return pidfd < 0 && (errno == ENOSYS || errno == EPERM) ? hang_up_at_end(pid) : pidfd;
}

int CLinux_output_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) < 0) return -1;
    return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static int prepare(
    posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, int output
) {
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    int error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error) error = posix_spawn_file_actions_adddup2(actions, output, 1);
    if (!error) error = posix_spawn_file_actions_adddup2(actions, output, 2);
    if (!error) error = posix_spawn_file_actions_addclosefrom_np(actions, 3);
    if (!error) error = posix_spawnattr_setsigdefault(attributes, &all);
    if (!error) error = posix_spawnattr_setsigmask(attributes, &none);
    if (error) return error;
    return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
}

/* Locked for reading while posix_spawn runs. It returns after the child's exec has succeeded or
   failed. */
static pthread_rwlock_t spawning = PTHREAD_RWLOCK_INITIALIZER;

int CLinux_spawn(
    pid_t *pid, const char *path, char *const argv[], char *const envp[], int output
) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        error = prepare(&actions, &attributes, output);
        if (!error) {
            pthread_rwlock_rdlock(&spawning);
            error = posix_spawn(pid, path, &actions, &attributes, argv, envp);
            pthread_rwlock_unlock(&spawning);
        }
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

bool CLinux_await_spawns(unsigned milliseconds) {
    struct timespec end = after(milliseconds);
    if (pthread_rwlock_clockwrlock(&spawning, CLOCK_MONOTONIC, &end) != 0) return false;
    pthread_rwlock_unlock(&spawning);
    return true;
}
