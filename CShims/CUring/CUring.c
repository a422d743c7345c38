#define _GNU_SOURCE 1

#include "CUring.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct CUring {
    struct io_uring ring;
};

_Static_assert(
    sizeof(struct CUring_timespec) == sizeof(struct __kernel_timespec), "the kernel's layout");

int CUring_init(struct CUring **out, unsigned entries, unsigned flags) {
    struct CUring *ring = calloc(1, sizeof *ring);
    if (!ring) return -ENOMEM;
    int result = io_uring_queue_init(entries, &ring->ring, flags | IORING_SETUP_CLAMP);
    if (result == 0 && !(ring->ring.features & IORING_FEAT_FAST_POLL)) {
        io_uring_queue_exit(&ring->ring);
        result = -EINVAL;
    }
    if (result < 0) {
        free(ring);
        return result;
    }
    *out = ring;
    return 0;
}

// No descriptor is -1: a call that reaches io_uring fails by that, with EBADF or EINVAL.
static int probe(long result) {
    return result < 0 && errno != EBADF && errno != EINVAL ? -errno : 0;
}

int CUring_probe_enter(void) { return probe(syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0)); }

int CUring_probe_register(void) {
    return probe(syscall(SYS_io_uring_register, -1, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
}

int CUring_enable(struct CUring *ring) { return io_uring_enable_rings(&ring->ring); }

int CUring_submit(struct CUring *ring) { return io_uring_submit(&ring->ring); }

int CUring_submit_and_get_events(struct CUring *ring) {
    return io_uring_submit_and_get_events(&ring->ring);
}

int CUring_submit_and_wait(struct CUring *ring) { return io_uring_submit_and_wait(&ring->ring, 1); }

unsigned CUring_drain(struct CUring *ring, struct CUring_completion *out, unsigned max) {
    unsigned head, count = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&ring->ring, head, cqe) {
        if (count == max) break;
        out[count].tag = cqe->user_data;
        out[count].result = cqe->res;
        count++;
    }
    io_uring_cq_advance(&ring->ring, count);
    return count;
}

// Fills the next SQE by a call of io_uring_prep_…, whose first argument is the SQE.
#define QUEUE(prepare, ...)                                        \
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);      \
    if (!sqe) return false;                                        \
    prepare(sqe, __VA_ARGS__);                                     \
    sqe->user_data = tag;                                          \
    return true

// A larger count is cut: recv(2) may return less than was asked for.
static unsigned clamped(size_t count) { return count < INT32_MAX ? (unsigned)count : INT32_MAX; }

bool CUring_read(struct CUring *ring, uint64_t tag, int fd, void *bytes, size_t count) {
    QUEUE(io_uring_prep_read, fd, bytes, clamped(count), 0);
}

bool CUring_recv(struct CUring *ring, uint64_t tag, int fd, void *bytes, size_t count) {
    QUEUE(io_uring_prep_recv, fd, bytes, clamped(count), 0);
}

bool CUring_send(struct CUring *ring, uint64_t tag, int fd, const void *bytes, size_t count) {
    QUEUE(io_uring_prep_send, fd, bytes, clamped(count), MSG_NOSIGNAL | MSG_WAITALL);
}

bool CUring_accept(struct CUring *ring, uint64_t tag, int fd) {
    QUEUE(io_uring_prep_accept, fd, NULL, NULL, SOCK_CLOEXEC);
}

bool CUring_connect(
    struct CUring *ring, uint64_t tag, int fd, const struct sockaddr *address, socklen_t length
) {
    QUEUE(io_uring_prep_connect, fd, address, length);
}

bool CUring_poll(struct CUring *ring, uint64_t tag, int fd, unsigned events) {
    QUEUE(io_uring_prep_poll_add, fd, events);
}

bool CUring_timeout(struct CUring *ring, uint64_t tag, struct CUring_timespec *at) {
    QUEUE(io_uring_prep_timeout, (struct __kernel_timespec *)at, 0, IORING_TIMEOUT_ABS);
}

bool CUring_cancel(struct CUring *ring, uint64_t tag, uint64_t target) {
    QUEUE(io_uring_prep_cancel64, target, 0);
}

int CUring_eventfd(void) { return eventfd(0, EFD_CLOEXEC); }

pid_t CUring_peer_pid(int fd) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

bool CUring_has_seccomp_filter(void) { return prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER; }

int CUring_accept_now(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC); }

struct child {
    pid_t pid;
    int hang_up;
};

// Leaves the child to be reaped by its parent.
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
        error = CUring_start_thread("ring-child", wait_for_end, child);
        if (!error) return ends[0];
        free(child);
    }
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return -1;
}

int CUring_child_end(pid_t pid) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    // A seccomp filter may answer EPERM for what it does not know.
    return pidfd < 0 && (errno == ENOSYS || errno == EPERM) ? hang_up_at_end(pid) : pidfd;
}

int CUring_signalfd(const int *signals, unsigned count) {
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < count; i++) sigaddset(&set, signals[i]);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error) {
        errno = error;
        return -1;
    }
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int CUring_signalfd_read(int fd) {
    struct signalfd_siginfo info;
    ssize_t count = read(fd, &info, sizeof info);
    if (count < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return (int)info.ssi_signo;
}

int CUring_output_pipe(int ends[2]) {
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

// By CLOCK_MONOTONIC.
static struct timespec after(unsigned milliseconds) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += milliseconds / 1000;
    time.tv_nsec += milliseconds % 1000 * 1000000L;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    return time;
}

// Held shared while posix_spawn runs, which returns once the child's exec has succeeded or failed.
static pthread_rwlock_t spawning = PTHREAD_RWLOCK_INITIALIZER;

int CUring_spawn(pid_t *pid, const char *path, char *const argv[], char *const envp[], int output) {
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

bool CUring_await_spawns(unsigned milliseconds) {
    struct timespec end = after(milliseconds);
    if (pthread_rwlock_clockwrlock(&spawning, CLOCK_MONOTONIC, &end) != 0) return false;
    pthread_rwlock_unlock(&spawning);
    return true;
}

struct start {
    char name[16];
    void *(*body)(void *);
    void *context;
};

static void *run_thread(void *argument) {
    struct start start = *(struct start *)argument;
    free(argument);
    pthread_setname_np(pthread_self(), start.name);
    return start.body(start.context);
}

// The thread names itself: a detached one may be gone before its maker could.
int CUring_start_thread(const char *name, void *(*body)(void *), void *context) {
    struct start *start = malloc(sizeof *start);
    if (!start) return ENOMEM;
    *start = (struct start){.body = body, .context = context};
    strncpy(start->name, name, sizeof start->name - 1);
    pthread_t thread;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error) {
        free(start);
        return error;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // Of what a thread has freed its own heap would keep most, and so would one heap with large
    // blocks in it: one for all, and glibc's threshold stays where it is at the start.
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    sigset_t others, before;
    sigfillset(&others);
    // Those by which a thread ends the process itself: blocked, none could be handled.
    const int own[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&others, own[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    error = pthread_create(&thread, &attributes, run_thread, start);
    if (error) free(start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

bool CUring_take_token(sem_t *tokens, unsigned milliseconds) {
    struct timespec end = after(milliseconds);
    int result;
    do result = sem_clockwait(tokens, CLOCK_MONOTONIC, &end);
    while (result < 0 && errno == EINTR);
    return result == 0;
}
