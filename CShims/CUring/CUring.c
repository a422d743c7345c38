#define _GNU_SOURCE 1

#include "CUring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
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

// -1 is no valid descriptor: a call that reaches io_uring fails with EBADF or EINVAL because of it.
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

// Takes the next free SQE, fills it with one of the io_uring_prep_… functions, and sets its tag.
#define QUEUE(prepare, ...)                                        \
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);      \
    if (!sqe) return false;                                        \
    prepare(sqe, __VA_ARGS__);                                     \
    sqe->user_data = tag;                                          \
    return true

// io_uring has 32 bits for a count. A larger one is reduced, because every caller must expect a
// short result anyway.
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
