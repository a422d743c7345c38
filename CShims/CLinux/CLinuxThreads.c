#define _GNU_SOURCE
#include "CLinuxThreads.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "deadline.h"

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

/* The thread sets its own name: a detached thread may have ended before its creator could. */
int CLinux_start_thread(const char *name, void *(*body)(void *), void *context) {
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
    sigset_t others, before;
    sigfillset(&others);
    /* The signals that a thread causes by its own faults: if blocked, they could not be handled. */
    const int own[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&others, own[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    error = pthread_create(&thread, &attributes, run_thread, start);
    if (error) free(start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

bool CLinux_take_token(sem_t *tokens, unsigned milliseconds) {
    struct timespec end = after(milliseconds);
    int result;
    do result = sem_clockwait(tokens, CLOCK_MONOTONIC, &end);
    while (result < 0 && errno == EINTR);
    return result == 0;
}

void CLinux_share_heap(void) {
    enum { large = 128 * 1024 };
    mallopt(M_ARENA_MAX, 1);
    /* The default of glibc. Once set, the threshold does not change any more. */
    mallopt(M_MMAP_THRESHOLD, large);
}
