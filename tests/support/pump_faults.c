/* A build of the extension whose calls fail when a test says so; these are in their place (tests/support/fault_drive.py).

A plan is for one kind of call: the one with that number fails, and, if ``faults_every`` is not 0, each so many
behind it. An errno of 0 is a short one: one byte is sent or read, and epoll tells of the rest as it does of a
kernel's buffer that was full or empty. Pieces of memory are counted, too.

Source: ours. */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define DESCRIPTORS 65536

enum { MEMORY, RECV, SEND, ACCEPT, SOCKET, CONNECT, SHUTDOWN, WATCH, WAIT, POLL, CALLS };

_Atomic long faults_calls[CALLS]; /* so far */
_Atomic long faults_live;         /* pieces of memory */
_Atomic long faults_made;         /* faults */
long faults_call = -1, faults_first, faults_every;
int faults_error;

static struct {
    int epoll;
    struct epoll_event event;
} watched[DESCRIPTORS];

/* Whether this one fails. */
static bool fails(int call)
{
    long number = ++faults_calls[call] - faults_first;
    if (call != faults_call || number < 0 || (number && (!faults_every || number % faults_every)))
        return false;
    faults_made++;
    errno = faults_error;
    return true;
}

static void *counted(void *place)
{
    faults_live += place != NULL;
    return place;
}

void *fault_malloc(size_t size) { return fails(MEMORY) ? NULL : counted(malloc(size)); }

void *fault_calloc(size_t count, size_t size) { return fails(MEMORY) ? NULL : counted(calloc(count, size)); }

void *fault_realloc(void *place, size_t size)
{
    if (fails(MEMORY))
        return NULL;
    return place == NULL ? counted(malloc(size)) : realloc(place, size);
}

void fault_free(void *place)
{
    faults_live -= place != NULL;
    free(place);
}

/* Have epoll tell anew what there is: a kernel would, behind a short one. */
static void rearm(int fd)
{
    if (fd < DESCRIPTORS && watched[fd].epoll)
        epoll_ctl(watched[fd].epoll, EPOLL_CTL_MOD, fd, &watched[fd].event);
}

ssize_t fault_recv(int fd, void *data, size_t size, int flags)
{
    bool fault = fails(RECV);
    if (fault && faults_error)
        return -1;
    ssize_t done = recv(fd, data, fault && size ? 1 : size, flags);
    if (fault)
        rearm(fd);
    return done;
}

ssize_t fault_send(int fd, const void *data, size_t size, int flags)
{
    bool fault = fails(SEND);
    if (fault && faults_error)
        return -1;
    ssize_t done = send(fd, data, fault && size ? 1 : size, flags);
    if (fault)
        rearm(fd);
    return done;
}

int fault_accept4(int fd, struct sockaddr *name, socklen_t *size, int flags)
{
    return fails(ACCEPT) ? -1 : accept4(fd, name, size, flags);
}

int fault_socket(int family, int kind, int protocol) { return fails(SOCKET) ? -1 : socket(family, kind, protocol); }

int fault_connect(int fd, const struct sockaddr *name, socklen_t size)
{
    return fails(CONNECT) ? -1 : connect(fd, name, size);
}

int fault_shutdown(int fd, int how) { return fails(SHUTDOWN) ? -1 : shutdown(fd, how); }

int fault_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    if (what == EPOLL_CTL_ADD && fails(WATCH))
        return -1;
    if (fd < DESCRIPTORS && what == EPOLL_CTL_DEL)
        watched[fd].epoll = 0;
    int done = epoll_ctl(epoll, what, fd, event);
    if (fd < DESCRIPTORS && what != EPOLL_CTL_DEL && done == 0) {
        watched[fd].epoll = epoll;
        watched[fd].event = *event;
    }
    return done;
}

int fault_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    return fails(WAIT) ? -1 : epoll_wait(epoll, events, most, timeout);
}

int fault_poll(struct pollfd *asked, nfds_t count, int timeout) { return fails(POLL) ? -1 : poll(asked, count, timeout); }
