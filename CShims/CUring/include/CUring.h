// The part of liburing that module Ring uses, as real functions: liburing consists largely of
// macros and inline functions, which Swift does not import.
//
// Only CUring.c includes liburing.h: it contains a copy of linux/io_uring.h that conflicts with the
// kernel's own, which SystemPackage's C module includes. This header must not define a feature-test
// macro either, because glibc's structures would then differ from those in Swift's Glibc module.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/// An io_uring: its submission queue, completion queue and descriptor.
struct CUring;

// Setup flags: DEFER_TASKRUN exists since Linux 6.1, SINGLE_ISSUER since 6.0, COOP_TASKRUN since
// 5.19, R_DISABLED since 5.10. A kernel returns EINVAL for a flag that it does not know.
static const unsigned CUring_SETUP_R_DISABLED = 1U << 6;
static const unsigned CUring_SETUP_COOP_TASKRUN = 1U << 8;
static const unsigned CUring_SETUP_SINGLE_ISSUER = 1U << 12;
static const unsigned CUring_SETUP_DEFER_TASKRUN = 1U << 13;

/// Sets up a ring, and stores it in `ring`. Returns 0 or a negated errno.
///
/// Returns EINVAL on kernels before 5.7: without IORING_FEAT_FAST_POLL (io_uring_setup(2)), each
/// operation that waits would occupy a kernel thread. All operations below exist since 5.6 at the
/// latest (io_uring_enter(2)).
int CUring_init(struct CUring **ring, unsigned entries, unsigned flags);
/// Test whether the other two system calls of io_uring are allowed; a seccomp filter may block
/// them. Each returns 0 or a negated errno.
int CUring_probe_enter(void);
int CUring_probe_register(void);
/// Enables a ring that was set up with R_DISABLED, and binds it to the calling thread. Returns 0 or
/// a negated errno.
int CUring_enable(struct CUring *ring);
/// Submits the queued SQEs to the kernel. Returns how many it accepted, or a negated errno.
int CUring_submit(struct CUring *ring);
/// The same, and makes the kernel post completions that are due.
int CUring_submit_and_get_events(struct CUring *ring);
/// The same, and waits for at least one completion.
int CUring_submit_and_wait(struct CUring *ring);

/// A completion, copied from the queue that is shared with the kernel.
struct CUring_completion {
    uint64_t tag;
    /// A count, a descriptor, or a negated errno.
    int32_t result;
};

/// Copies up to `max` completions to `out`, frees their entries in the queue, and returns how many
/// it copied.
unsigned CUring_drain(struct CUring *ring, struct CUring_completion *out, unsigned max);

// Each of the following functions queues one SQE, whose completion will have the given tag. It
// returns false if the queue is full. The caller keeps a buffer valid until the completion, and an
// address or a time until the submission.

bool CUring_read(struct CUring *, uint64_t tag, int fd, void *bytes, size_t count);
bool CUring_recv(struct CUring *, uint64_t tag, int fd, void *bytes, size_t count);
/// On a broken connection the operation fails; it never raises SIGPIPE. Since 5.19 the kernel
/// continues after a short send by itself; older kernels return the short count.
bool CUring_send(struct CUring *, uint64_t tag, int fd, const void *bytes, size_t count);
/// The accepted socket is close-on-exec and in blocking mode: for a non-blocking socket, an
/// operation that has to wait would fail with EAGAIN.
bool CUring_accept(struct CUring *, uint64_t tag, int fd);
bool CUring_connect(
    struct CUring *, uint64_t tag, int fd, const struct sockaddr *address, socklen_t length);
bool CUring_poll(struct CUring *, uint64_t tag, int fd, unsigned events);

/// Has the same layout as the kernel's __kernel_timespec.
struct CUring_timespec {
    int64_t seconds;
    int64_t nanoseconds;
};

/// Completes with ETIME at the instant `at` of CLOCK_MONOTONIC.
bool CUring_timeout(struct CUring *, uint64_t tag, struct CUring_timespec *at);
/// Cancels the operation whose tag is `target`.
bool CUring_cancel(struct CUring *, uint64_t tag, uint64_t target);
