/* Threads, what wakes them, and their heap. */
#pragma once
#include <semaphore.h>
#include <stdbool.h>

/* Starts a detached thread with all signals blocked but those of its own faults. Returns 0 or the
   error. */
int CLinux_start_thread(const char *name, void *(*body)(void *), void *context);

/* Waits for a token of the semaphore for so long at most; false when none came. sem_clockwait is a
   GNU extension. */
bool CLinux_take_token(sem_t *tokens, unsigned milliseconds);

/* Has all threads share one heap, and keeps large blocks out of it. To be called before the first
   thread starts. A heap of a thread's own keeps most of what the thread has freed, and so does one
   heap with large blocks in it. */
void CLinux_share_heap(void);
