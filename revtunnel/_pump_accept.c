/* Listening sockets that Python has lent, and whom they bring: what doors (_pump_doors.c) and gates (_pump_gates.c)
have in common.

The rules: a turn takes few at first, and more while there are more. Whoever is Python's is given up with nothing
read of him, UNFETCHED of them at most: behind that nobody is accepted until Python has fetched them. Where a
socket, or the process, cannot accept, and where FAILURES in a row are all there is, it stands and Python is told
why (UNABLE); what befell one connection alone is its own.

Source: sockets/listening.py; accept(2); ours. */

#include "_pump.h"

void stand(Pump *pump, Acceptor *acceptor, bool stands)
{
    struct epoll_event event = {.events = stands ? 0 : EPOLLIN, .data.u64 = acceptor->thing.handle};
    if (stands != acceptor->stands)
        epoll_ctl(pump->epoll, EPOLL_CTL_MOD, acceptor->fd, &event);
    acceptor->stands = stands;
}

void begin_acceptor(Acceptor *acceptor, const Kind *kind, int fd)
{
    begin_thing(&acceptor->thing, kind);
    acceptor->fd = fd;
    acceptor->burst = 1;
}

/* Python has fetched one that was given up; true: it may accept again. */
bool was_unfetched(Acceptor *acceptor) { return acceptor->unfetched-- == UNFETCHED && !acceptor->error; }

/* Begin to accept; an errno: it is nowhere. */
int lend_acceptor(Pump *pump, Acceptor *acceptor)
{
    if (!place(pump, &acceptor->thing))
        return ENOMEM;
    int error = watch(pump, &acceptor->thing, 0, acceptor->fd, EPOLLIN) < 0 ? errno : 0;
    if (error)
        detach(pump, &acceptor->thing);
    return error;
}

/* Accept nobody any more. */
void take_acceptor(Pump *pump, Acceptor *acceptor)
{
    epoll_ctl(pump->epoll, EPOLL_CTL_DEL, acceptor->fd, NULL);
    detach(pump, &acceptor->thing);
}

void acceptor_happened(Pump *pump, Thing *thing, int side, uint32_t events)
{
    Acceptor *acceptor = (Acceptor *)thing;
    if (events & (EPOLLHUP | EPOLLERR)) { /* somebody has shut it */
        epoll_ctl(pump->epoll, EPOLL_CTL_DEL, acceptor->fd, NULL);
        acceptor->error = EINVAL;
        tell(pump, thing, UNABLE);
    } else if (!acceptor->stands && !acceptor->error) {
        append(&pump->fresh, &thing->turn);
    }
}

void acceptor_told(Pump *pump, Thing *thing, Told *told) { told->error = ((Acceptor *)thing)->error; }

static bool only_this_failed(int error)
{
    return error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM && error != EBADF &&
           error != EFAULT && error != EINVAL && error != ENOTSOCK;
}

/* Accept whoever waits, each with a pair of that kind to have him in, and ``serve`` him; at most so many in one turn,
none while the acceptor ``waits`` (NULL: it never does). */
void accept_some(Pump *pump, Acceptor *acceptor, const Kind *kind, uint32_t most, bool (*waits)(Pump *, Acceptor *),
                 void (*serve)(Pump *, Acceptor *, int fd, const struct sockaddr_storage *, Pair *))
{
    struct sockaddr_storage name;
    for (uint32_t count = 0; count < acceptor->burst; count++) {
        if (waits != NULL && waits(pump, acceptor))
            return;
        if (acceptor->unfetched >= UNFETCHED) {
            stand(pump, acceptor, true);
            return;
        }
        socklen_t size = sizeof name;
        Pair *pair = new_pair(kind, 0, 0, 0, 0);
        int fd = pair == NULL ? -1 : accept4(acceptor->fd, (struct sockaddr *)&name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            acceptor->failures = 0;
            serve(pump, acceptor, fd, &name, pair);
            continue;
        }
        int error = pair == NULL ? ENOMEM : errno;
        if (pair != NULL)
            free_pair(&pair->thing);
        if (error == EAGAIN || error == EWOULDBLOCK) {
            acceptor->burst = 1;
            acceptor->failures = 0;
            return;
        }
        if (!only_this_failed(error) || ++acceptor->failures == FAILURES) {
            acceptor->error = error;
            stand(pump, acceptor, true);
            tell(pump, &acceptor->thing, UNABLE);
            return;
        }
    }
    acceptor->burst = acceptor->burst * 2 < most ? acceptor->burst * 2 : most;
}
