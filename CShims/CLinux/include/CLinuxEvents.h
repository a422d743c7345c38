/* Descriptors for events, and sockets: GNU extensions, and calls from headers that Swift does not
   import. Each function returns -1 and sets errno on failure. */
#pragma once
#include <sys/epoll.h>
#include <sys/types.h>

/* An eventfd, close-on-exec and in blocking mode. */
int CLinux_eventfd(void);

/* Blocks the signals in the calling thread and returns a descriptor that reads them:
   close-on-exec, non-blocking. */
int CLinux_signalfd(const int *signals, unsigned count);

/* The number of the next pending signal, or 0 if there is none. */
int CLinux_signalfd_read(int fd);

/* accept4(2) of a close-on-exec socket in blocking mode. */
int CLinux_accept_now(int fd);

/* The process at the other end of a connected unix socket; 0 if it is not visible in the caller's
   PID namespace. struct ucred is a GNU extension. */
pid_t CLinux_peer_pid(int fd);
