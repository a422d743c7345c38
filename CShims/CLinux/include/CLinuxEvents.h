/* Descriptors that tell of events, and sockets: GNU extensions, and what is in no header that Swift
   imports. Each returns -1 and sets errno on failure. */
#pragma once
#include <sys/epoll.h>
#include <sys/types.h>

/* An eventfd, close-on-exec and in blocking mode. */
int CLinux_eventfd(void);

/* Blocks the signals in the calling thread and returns a descriptor that reads them:
   close-on-exec, non-blocking. */
int CLinux_signalfd(const int *signals, unsigned count);

/* The next pending signal's number; 0 when there is none. */
int CLinux_signalfd_read(int fd);

/* accept4(2) of a close-on-exec socket in blocking mode. */
int CLinux_accept_now(int fd);

/* The process at the other end of a connected unix socket; 0 when the caller's PID namespace does
   not show it. struct ucred is a GNU extension. */
pid_t CLinux_peer_pid(int fd);
