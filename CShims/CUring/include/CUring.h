// What module Ring needs of liburing, as real functions: most of it is macros and inline functions,
// which Swift does not import.
//
// liburing.h stays in CUring.c: it brings its own copy of linux/io_uring.h, which clashes with the
// kernel's that SystemPackage's C module includes. No feature-test macro may be defined here
// either: glibc's structures would then differ from those of Swift's Glibc module.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/// A ring: the submission queue, the completion queue, and their descriptor.
struct CUring;

// Setup flags by kernel: SINGLE_ISSUER and DEFER_TASKRUN since 6.1, COOP_TASKRUN since 5.19,
// R_DISABLED since 5.10. An older kernel answers EINVAL to those it does not know.
static const unsigned CUring_SETUP_R_DISABLED = 1U << 6;
static const unsigned CUring_SETUP_COOP_TASKRUN = 1U << 8;
static const unsigned CUring_SETUP_SINGLE_ISSUER = 1U << 12;
static const unsigned CUring_SETUP_DEFER_TASKRUN = 1U << 13;

/// Sets a ring up. Returns 0 or a negated errno, EINVAL for a kernel before 5.7: it lacks
/// IORING_FEAT_FAST_POLL (io_uring_setup(2)), so each operation that waits would hold a kernel
/// thread. Every operation here is older than that (io_uring_enter(2): 5.6 at the latest).
int CUring_init(struct CUring **ring, unsigned entries, unsigned flags);
/// Whether io_uring's two other system calls are let through, as a seccomp filter may not: 0 or a
/// negated errno.
int CUring_probe_enter(void);
int CUring_probe_register(void);
/// Starts a ring that was set up with R_DISABLED, and binds it to the calling thread. Returns 0 or
/// a negated errno.
int CUring_enable(struct CUring *ring);
/// Hands the queued SQEs to the kernel. Returns how many it took, or a negated errno.
int CUring_submit(struct CUring *ring);
/// The same, and lets the kernel post completions.
int CUring_submit_and_get_events(struct CUring *ring);
/// The same, and waits for a completion.
int CUring_submit_and_wait(struct CUring *ring);

/// A completion, copied out of the shared queue.
struct CUring_completion {
    uint64_t tag;
    /// A count or a descriptor; a negated errno.
    int32_t result;
};

/// Copies up to `max` completions out and hands their places back to the kernel at once.
unsigned CUring_drain(struct CUring *ring, struct CUring_completion *out, unsigned max);

// Each of the following queues one SQE, whose completion carries `tag`; false when the queue is
// full. Buffers have to stay in place until the completion, addresses and times until the
// submission.

bool CUring_read(struct CUring *, uint64_t tag, int fd, void *bytes, size_t count);
bool CUring_recv(struct CUring *, uint64_t tag, int fd, void *bytes, size_t count);
/// A broken connection is an error, never SIGPIPE. The kernel itself goes on after a short send
/// (since 5.19; before, the caller sees it).
bool CUring_send(struct CUring *, uint64_t tag, int fd, const void *bytes, size_t count);
/// The accepted socket is close-on-exec and in blocking mode: the ring waits for it by itself, and
/// would answer EAGAIN for a non-blocking one.
bool CUring_accept(struct CUring *, uint64_t tag, int fd);
bool CUring_connect(
    struct CUring *, uint64_t tag, int fd, const struct sockaddr *address, socklen_t length);
bool CUring_poll(struct CUring *, uint64_t tag, int fd, unsigned events);

/// The kernel's __kernel_timespec.
struct CUring_timespec {
    int64_t seconds;
    int64_t nanoseconds;
};

/// Completes with ETIME at `at` on CLOCK_MONOTONIC.
bool CUring_timeout(struct CUring *, uint64_t tag, struct CUring_timespec *at);
/// Cancels the operation that carries `target`.
bool CUring_cancel(struct CUring *, uint64_t tag, uint64_t target);
