/* Child processes, and what confines this one. Each returns -1 and sets errno on failure, unless it
   says otherwise. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

/* Whether a seccomp filter decides on this thread's system calls. */
bool CLinux_has_seccomp_filter(void);

/* A pipe, both ends close-on-exec, the read end non-blocking. */
int CLinux_output_pipe(int ends[2]);

/* Starts `path` without a shell: standard input is /dev/null, standard output and standard error
   are `output`, no other descriptor is passed on, signals are unblocked and back at their
   defaults. Returns 0 or the error. */
int CLinux_spawn(pid_t *pid, const char *path, char *const argv[], char *const envp[], int output);

/* Blocks while a child is between fork and exec: so long it has a copy of every descriptor. For so
   long at most; false when one still is. pthread_rwlock_clockwrlock is a GNU extension. */
bool CLinux_await_spawns(unsigned milliseconds);

/* A descriptor that polls readable or hung up once the child has ended, close-on-exec: a pidfd
   (since 5.3), else a pipe that a thread hangs up. */
int CLinux_child_end(pid_t pid);
