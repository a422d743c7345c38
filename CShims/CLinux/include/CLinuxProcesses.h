/* Child processes, and the restrictions of this process. Each function returns -1 and sets errno on
   failure, unless its comment says otherwise. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

/* Whether a seccomp filter applies to the system calls of this thread. */
bool CLinux_has_seccomp_filter(void);

/* A pipe, both ends close-on-exec, the read end non-blocking. */
int CLinux_output_pipe(int ends[2]);

/* Starts `path` without a shell: standard input is /dev/null, standard output and standard error
   are `output`, no other descriptor is passed on, signals are unblocked and have their default
   actions. Returns 0 or an errno. */
int CLinux_spawn(pid_t *pid, const char *path, char *const argv[], char *const envp[], int output);

/* Blocks while a child is between fork and exec, because during that time it has a copy of every
   descriptor. Returns false if that is still so after this time. pthread_rwlock_clockwrlock is a
   GNU extension. */
bool CLinux_await_spawns(unsigned milliseconds);

/* A close-on-exec descriptor that polls as readable or hung up after the child has ended: a pidfd
   (since Linux 5.3), otherwise a pipe whose other end is closed by a thread. */
int CLinux_child_end(pid_t pid);
