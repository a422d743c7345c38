// Asks a unix socket's HTTP server the same thing over and over: `load SOCKET CONNECTIONS SECONDS
// BODY`.
//
// Each connection sends the next request when the last one's answer is there. Prints how many were
// answered in all and, of the time after a short warm-up, microseconds: the median and the 99th
// percentile.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_MAX = 4 << 20, EVENTS = 256 };

struct connection {
    int descriptor;
    size_t received;
    uint64_t asked;
    char answer[8192];
};

static char request[4096];
static size_t request_length;
static uint32_t *samples;
static size_t samples_count, answered;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void ask(struct connection *connection) {
    connection->received = 0;
    connection->asked = now();
    if (write(connection->descriptor, request, request_length) != (ssize_t)request_length)
        fail("load: write");
}

static void open_connection(struct connection *connection, const char *path, int epoll) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    connection->descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(connection->descriptor, (struct sockaddr *)&address, sizeof address) < 0)
        fail("load: connect");
    fcntl(connection->descriptor, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->descriptor, &event);
}

// Whether the whole answer is here; it is to be a 200 with a Content-Length.
static int is_complete(struct connection *connection) {
    connection->answer[connection->received] = 0;
    char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end) return 0;
    char *length = strcasestr(connection->answer, "\r\ncontent-length:");
    if (strncmp(connection->answer, "HTTP/1.1 200", 12) != 0 || !length || length > end) {
        fprintf(stderr, "load: the server answers: %s\n", connection->answer);
        exit(1);
    }
    size_t size = (size_t)(end - connection->answer) + 4 + strtoul(length + 17, NULL, 10);
    return connection->received >= size;
}

static void take(struct connection *connection, uint64_t warm) {
    ssize_t count = read(
        connection->descriptor, connection->answer + connection->received,
        sizeof connection->answer - 1 - connection->received);
    if (count <= 0) fail("load: read");
    connection->received += (size_t)count;
    if (!is_complete(connection)) return;
    answered++;
    if (connection->asked >= warm && samples_count < SAMPLES_MAX)
        samples[samples_count++] = (uint32_t)(now() - connection->asked);
    ask(connection);
}

static int ascending(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fputs("usage: load SOCKET CONNECTIONS SECONDS BODY\n", stderr);
        return 64;
    }
    size_t connections = strtoul(arguments[2], NULL, 10);
    request_length = (size_t)snprintf(
        request, sizeof request,
        "POST /VolumeDriver.Get HTTP/1.1\r\nHost: plugin\r\nUser-Agent: Go-http-client/1.1\r\n"
        "Content-Length: %zu\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n%s",
        strlen(arguments[4]), arguments[4]);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    struct connection *all = calloc(connections, sizeof *all);
    if (!samples || !all || request_length >= sizeof request) fail("load");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < connections; i++) open_connection(&all[i], arguments[1], epoll);
    for (size_t i = 0; i < connections; i++) ask(&all[i]);
    uint64_t start = now(), warm = start + 300000000u;
    uint64_t end = start + (uint64_t)(strtod(arguments[3], NULL) * 1e9);
    while (now() < end) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 1000);
        for (int i = 0; i < ready; i++) take(events[i].data.ptr, warm);
    }
    qsort(samples, samples_count, sizeof *samples, ascending);
    if (samples_count == 0) fail("load: nothing was answered");
    printf(
        "%zu %.1f %.1f\n", answered, samples[samples_count / 2] / 1e3,
        samples[samples_count * 99 / 100] / 1e3);
    return 0;
}
