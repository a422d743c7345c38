/* Threads, semaphores to wake them, and their heap. */
#pragma once
#include <semaphore.h>
#include <stdbool.h>

/* Starts a detached thread with all signals blocked except those that its own faults cause. Returns
   0 or an errno. */
int CLinux_start_thread(const char *name, void *(*body)(void *), void *context);

/* Waits for a token of the semaphore. Returns false if none came within this time. sem_clockwait is
   a GNU extension. */
bool CLinux_take_token(sem_t *tokens, unsigned milliseconds);

/* Makes all threads share one heap and allocates large blocks outside it. Must be called before the
   first thread starts. If every thread had its own heap, or if the heap contained large blocks,
   most of the memory that is freed would stay with the process. */
void CLinux_share_heap(void);
