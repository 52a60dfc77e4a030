/* Doors: listening sockets that Python has lent, whose clients are joined here to data sockets that wait.

The wire is that of carriers/data_opening.py, the rules those of carriers/data_stream.py: a client's first bytes
go behind CONNECT and are kept until OPENED, one reading beyond RECORD at most; from OPENED on the two are a pair.
Whatever else happens is Python's: the client and its data socket are given up to it (GIVEN) as they are, with
what was said and heard; ASKED says whether CONNECT was. A client that cannot be served is given up before
anything is read of it, also one that has ended before a byte or was cut already (arrivals.py).

Where their stock (_pump_stock.c) is dry, and was filled a moment ago, the next clients stay in the kernel's queue
for DRY at most.

A device may take one connection at a time (streams/lines.py): where FEW are there, a client waits until those
that have ended before it came are gone, for ``ended_wait`` at most and once. ``outside`` are those that Python
has and that are not here; while there are such, and few, clients wait in the kernel's queue for LEAVING, once, and
then Python judges, until it has none.

Source: issue 16 "as a second step, accepts clients"; carriers/data_stream.py; streams/lines.py. */

#include "_pump.h"

#include <netinet/in.h>
#include <poll.h>

#define HEAD 1024          /* bytes before a client's first ones, for what is said before them */
#define FEW 8              /* clients up to which a service may be one that takes one at a time */
#define MOST 4             /* clients in one turn */
#define DRY 50000000       /* nanoseconds */
#define LEAVING 10000000   /* likewise, that a client of Python's may need to be gone */
#define ORIGIN_HEADER "\0\x0d\x1e\0"
#define ORIGIN_HEADER_SIX "\0\x25\x1e\0"

static const char ANSWER[4] = "\0\0\x13\0"; /* OPENED */

typedef struct {
    Acceptor at;
    Stock *stock;
    char *connect;
    size_t connect_size;
    bool origins;
    bool vain; /* those that Python has were waited for, and stay */
    int64_t ended_wait, dry_since;
    uint32_t made, most, outside;
    uint64_t came;
    Link live, dry;
} Door;

static const Kind held_back, opening, unserved, door_kind;

#define DOOR_OF(link) ((Door *)((char *)(link)-offsetof(Door, dry)))
#define HELD_OF(link) PAIR_OF(link, held)

static Door *door_of(Pump *pump, Pair *pair)
{
    Thing *maker = find(pump, pair->maker);
    return maker != NULL && maker->kind == &door_kind ? (Door *)maker : NULL;
}

/* -- giving up */

/* A client that nothing was done for. */
static void give_client(Pump *pump, Door *door, Pair *pair, int error)
{
    pair->thing.kind = &unserved;
    pump->made++;
    door->made++;
    door->at.unfetched++;
    give_up(pump, pair, 0, error);
}

static void given_told(Pump *pump, Thing *thing, Told *told)
{
    Pair *pair = (Pair *)thing;
    told->news |= GIVEN | (thing->kind == &opening ? ASKED : 0);
    if (thing->kind == &unserved) {
        Door *door = door_of(pump, pair);
        if (door != NULL && was_unfetched(&door->at) && in_none(&door->dry))
            stand(pump, &door->at, false);
    }
    thing->over = true;
    was_fetched(pump, pair, told);
}

/* -- from asked to open */

static ssize_t read_some(int fd, char *place, size_t room)
{
    ssize_t size;
    do
        size = recv(fd, place, room, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    return size;
}

static void open_pair(Pump *pump, Pair *pair, const char *rest, size_t size)
{
    pair->opened = now();
    pair->thing.kind = &joined;
    free(pair->said); /* nobody asks for it any more, and the pair may live for long */
    pair->said = NULL;
    pair->said_size = 0;
    if (size)
        push(pump, pair, 0, rest, size);
    take_turn(pump, pair);
}

static void hear(Pump *pump, Pair *pair)
{
    Side *far = &pair->side[1];
    ssize_t size = read_some(far->fd, pump->buffer, pair->first);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        far->readable = false;
    } else if (size <= 0) {
        give_up(pump, pair, 1, size < 0 ? errno : 0);
    } else if (size >= 4 && memcmp(pump->buffer, ANSWER, 4) == 0) {
        far->readable = (size_t)size == pair->first || far->over || far->urgent;
        open_pair(pump, pair, pump->buffer + 4, (size_t)size - 4);
    } else {
        bool kept = keep(&pair->heard, &pair->heard_size, pump->buffer, (size_t)size);
        give_up(pump, pair, 1, kept ? 0 : ENOMEM);
    }
}

/* What is said, and what of it is the client's; false: it is given up. */
static bool say(Pump *pump, Pair *pair, const char *data, size_t head, size_t size)
{
    Side *far = &pair->side[1];
    ssize_t sent = send(far->fd, data, head + size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        sent = 0; /* a fault only where something has to be said before it */
    size_t taken = sent < (ssize_t)head ? 0 : (size_t)sent - head;
    if (sent < (ssize_t)head)
        give_up(pump, pair, 1, sent < 0 ? errno : EMSGSIZE);
    atomic_store_explicit(&far->taken, atomic_load(&far->taken) + taken, memory_order_relaxed);
    if (taken == size)
        return sent >= (ssize_t)head;
    far->writable = false;
    if (!hold(pump, far, data + head + taken, size - taken) && !pair->thing.over)
        give_up(pump, pair, 1, ENOMEM);
    return !pair->thing.over;
}

/* What the client says before the answer. */
static void hear_client(Pump *pump, Pair *pair)
{
    Side *near = &pair->side[0], *far = &pair->side[1];
    if (!near->readable || near->ending || far->held != NULL || pair->said_size >= RECORD)
        return;
    ssize_t size = read_some(near->fd, pump->buffer, RECORD);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        near->readable = false;
    } else if (size < 0) {
        give_up(pump, pair, 0, errno);
    } else if (size == 0) {
        near->ending = true; /* it is read once more when it is open */
    } else {
        if (size < RECORD && !near->over && !near->urgent)
            near->readable = false;
        if (!keep(&pair->said, &pair->said_size, pump->buffer, (size_t)size))
            give_up(pump, pair, 0, ENOMEM);
        else
            say(pump, pair, pump->buffer, 0, (size_t)size);
    }
}

static void opening_turn(Pump *pump, Thing *thing)
{
    Pair *pair = (Pair *)thing;
    if (pair->side[1].readable)
        hear(pump, pair);
    if (thing->over || thing->kind != &opening)
        return;
    if (pair->side[0].failed)
        give_up(pump, pair, 0, 0);
    else
        hear_client(pump, pair);
}

/* ORIGIN, where the agent wants to know; its size. */
static size_t write_origin(int fd, const struct sockaddr_storage *name, char *place)
{
    struct sockaddr_storage ours;
    socklen_t size = sizeof ours;
    const struct sockaddr_storage *ends[2] = {name, &ours};
    if (getsockname(fd, (struct sockaddr *)&ours, &size) < 0 || ours.ss_family != name->ss_family)
        return 0;
    const struct in6_addr *six[2];
    bool four = name->ss_family == AF_INET;
    for (int which = 0; which < 2; which++)
        six[which] = &((const struct sockaddr_in6 *)ends[which])->sin6_addr;
    bool mapped = !four && IN6_IS_ADDR_V4MAPPED(six[0]) && IN6_IS_ADDR_V4MAPPED(six[1]);
    size_t length = four || mapped ? 4 : 16;
    memcpy(place, length == 4 ? ORIGIN_HEADER : ORIGIN_HEADER_SIX, 4);
    place[4] = length == 4 ? 4 : 6;
    char *at = place + 5;
    for (int which = 0; which < 2; which++) {
        const struct sockaddr_in *inet = (const struct sockaddr_in *)ends[which];
        const void *address = four ? (const void *)&inet->sin_addr : six[which];
        memcpy(at, (const char *)address + (mapped ? 12 : 0), length);
        memcpy(at + length, &inet->sin_port, 2); /* at the same place in both families */
        at += length + 2;
    }
    return (size_t)(at - place);
}

/* Say CONNECT, with the client's first bytes behind it. */
static void ask(Pump *pump, Door *door, Pair *pair)
{
    char origin[64], *place = pump->buffer + HEAD;
    size_t size = door->origins ? write_origin(pair->side[0].fd, &pair->name, origin) : 0;
    size_t head = size + door->connect_size;
    pair->thing.kind = &opening;
    memcpy(place - head, origin, size);
    memcpy(place - door->connect_size, door->connect, door->connect_size);
    if (pair->said_size)
        memcpy(place, pair->said, pair->said_size);
    if (say(pump, pair, place - head, head, pair->said_size) &&
        (pair->side[1].readable || pair->side[0].readable || pair->side[0].failed))
        append(&pump->fresh, &pair->thing.turn);
}

static void opening_happened(Pump *pump, Thing *thing, int side, uint32_t events)
{
    happened_to(&((Pair *)thing)->side[side], events);
    append(&pump->fresh, &thing->turn);
}

/* -- those that wait for others to have ended */

/* Whether somebody has to be waited for; those that are here only count up to FEW. */
static bool must_wait(Door *door, Pair *pair)
{
    struct pollfd asked[FEW];
    Pair *whose[FEW];
    int count = 0;
    for (Link *link = door->live.behind; link != &door->live; link = link->behind) {
        Pair *other = PAIR_OF(link, kin);
        if (other == pair || other->thing.kind == &held_back)
            continue;
        if (count == FEW)
            return false;
        whose[count] = other;
        asked[count++] = (struct pollfd){other->side[0].fd, POLLRDHUP, 0};
    }
    bool waits = false;
    if (count && poll(asked, (nfds_t)count, 0) > 0)
        for (int i = 0; i < count; i++)
            if (asked[i].revents && whose[i]->awaited != UINT64_MAX) {
                whose[i]->awaited = whose[i]->awaited ? whose[i]->awaited : pair->turn_of;
                waits = true;
            }
    return waits;
}

/* Whether one of those it waits for is still there; ``no_more``: it is waited for in vain, by all. */
static bool waits_for(Door *door, Pair *pair, bool no_more)
{
    bool waits = false;
    for (Link *link = door->live.behind; link != &door->live; link = link->behind) {
        Pair *other = PAIR_OF(link, kin);
        if (other == pair || !other->awaited || other->awaited > pair->turn_of)
            continue;
        waits = true;
        if (no_more)
            other->awaited = UINT64_MAX;
    }
    return waits && !no_more;
}

static void held_turn(Pump *pump, Thing *thing)
{
    Pair *pair = (Pair *)thing;
    if (pair->side[0].failed || pair->side[1].readable || pair->side[1].over)
        give_up(pump, pair, pair->side[0].failed ? 0 : 1, 0);
}

/* -- clients come */

/* Whether Python has clients of the same service, one of whom may have to be waited for. */
static bool is_unclear(Door *door)
{
    uint32_t live = door->outside;
    for (Link *link = door->live.behind; link != &door->live && live <= FEW; link = link->behind)
        live++;
    return door->ended_wait && door->outside && live <= FEW;
}

static bool may_have_one(Pump *pump, Door *door)
{
    return pump->made < pump->most && door->made < door->most && !in_none(&door->stock->spare) && !is_unclear(door);
}

/* A client, as it was accepted. */
static void serve(Pump *pump, Acceptor *at, int fd, const struct sockaddr_storage *name, Pair *room)
{
    Door *door = (Door *)at;
    Stock *stock = door->stock;
    char *place = pump->buffer + HEAD;
    ssize_t size = -1;
    int error = EAGAIN;
    bool serves = may_have_one(pump, door);
    if (serves) {
        size = read_some(fd, place, RECORD);
        error = size < 0 ? errno : 0;
        serves = size > 0 || error == EAGAIN || error == EWOULDBLOCK;
    }
    Pair *pair = serves ? draw(pump, stock) : room;
    begin_side(&pair->side[0], fd, 0, 0, stock->first);
    pair->came = now();
    pair->name = *name;
    pair->made = true;
    pair->maker = door->at.thing.handle;
    if (!serves) {
        give_client(pump, door, pair, size == 0 || error == EAGAIN ? 0 : error);
        return;
    }
    free_pair(&room->thing);
    pump->made++;
    door->made++;
    append(&door->live, &pair->kin);
    append(&pump->young, &pair->young);
    pair->turn_of = ++door->came;
    stock->used++;
    tell_later(pump, &stock->thing, 0);
    pump->tell = pump->tell || stock->count * 2 <= stock->full;
    bool kept = size <= 0 || keep(&pair->said, &pair->said_size, place, (size_t)size);
    pair->thing.kind = kept ? &held_back : &opening; /* nobody can ask for it without these bytes: it is cut */
    if (!kept || watch(pump, &pair->thing, 0, fd, CHANGES) < 0)
        give_up(pump, pair, 0, ENOMEM);
    else if (door->ended_wait && must_wait(door, pair))
        append(&pump->held_back, &pair->held);
    else
        ask(pump, door, pair);
}

/* Whether there is nothing to wait for before somebody is accepted. */
static bool is_served(Door *door)
{
    return !in_none(&door->stock->spare) && (door->vain || !is_unclear(door));
}

/* Whether to wait for a data socket, which is said to come, or for a client of Python's, who is about to leave. */
static bool is_dry(Pump *pump, Acceptor *at)
{
    Door *door = (Door *)at;
    if (is_served(door))
        return false;
    int64_t time = now();
    if (in_none(&door->dry)) {
        if (in_none(&door->stock->spare) && time - door->stock->filled > DRY)
            return false;
        door->dry_since = time;
        append(&pump->dry, &door->dry);
        stand(pump, at, true);
    }
    return at->stands;
}

static void door_turn(Pump *pump, Thing *thing)
{
    accept_some(pump, (Acceptor *)thing, &unserved, MOST, is_dry, serve);
}

static void door_fetched(Pump *pump, Thing *thing, Pair *pair)
{
    Door *door = (Door *)thing;
    door->made--;
    if (pair->thing.news & (DONE | CUT))
        return;
    if (door->most)
        door->most--;
    if (pair->thing.over) /* given up: it is Python's and no more here, which ``allow`` says later */
        door->outside++;
}

static void free_door(Thing *thing)
{
    free(((Door *)thing)->connect);
    free(thing);
}

/* With every round: who need not wait any more, and doors that have waited for a data socket. */
void look_at_doors(Pump *pump)
{
    Link *next;
    int64_t time = doors_wait(pump) ? now() : 0;
    for (Link *link = pump->held_back.behind; link != &pump->held_back; link = next) {
        Pair *pair = HELD_OF(link);
        Door *door = door_of(pump, pair);
        next = link->behind;
        if (pair->thing.over || door == NULL) {
            leave(link);
        } else if (!waits_for(door, pair, time - pair->came >= door->ended_wait)) {
            leave(link);
            ask(pump, door, pair);
        }
    }
    for (Link *link = pump->dry.behind; link != &pump->dry; link = next) {
        Door *door = DOOR_OF(link);
        next = link->behind;
        bool served = is_served(door);
        if (!served && time - door->dry_since <= (in_none(&door->stock->spare) ? DRY : LEAVING))
            continue;
        leave(link);
        if (in_none(&door->stock->spare))
            door->stock->filled = 0; /* whoever comes now is given up */
        else if (!served)
            door->vain = true; /* likewise, until Python has none */
        if (door->at.unfetched < UNFETCHED && !door->at.error)
            stand(pump, &door->at, false);
    }
}

bool doors_wait(const Pump *pump) { return !in_none(&pump->held_back) || !in_none(&pump->dry); }

static void no_turn(Pump *pump, Thing *thing) {}

static void nothing(Pump *pump, Thing *thing, int side, uint32_t events) {}

static const Kind held_back = {opening_happened, held_turn, given_told, free_pair, NULL};
static const Kind opening = {opening_happened, opening_turn, given_told, free_pair, NULL};
static const Kind unserved = {nothing, no_turn, given_told, free_pair, NULL};
static const Kind door_kind = {acceptor_happened, door_turn, acceptor_told, free_door, door_fetched};

/* -- Python's */

PyDoc_STRVAR(door_doc, "door(stock, fd, connect, origins, ended_wait, most, outside) -> handle\n\n"
    "Accept clients at a listening socket, which stays the caller's, and serve them from a stock. connect: what is\n"
    "said for each; origins: behind where it comes from; ended_wait: seconds; most, outside: as for allow.\n"
    "Its news UNABLE have an errno: it accepts nobody any more.");

static PyObject *pump_door(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    unsigned long long handle;
    Py_buffer connect;
    double ended_wait;
    int fd, origins, error = ENOMEM;
    unsigned most, outside;
    if (!PyArg_ParseTuple(args, "Kiy*pdII:door", &handle, &fd, &connect, &origins, &ended_wait, &most, &outside))
        return NULL;
    Stock *stock = (Stock *)thing_of(pump, handle, &stock_kind, "no such stock");
    Door *door = stock == NULL || connect.len > HEAD - 64 ? NULL : calloc(1, sizeof *door);
    if (door != NULL && keep(&door->connect, &door->connect_size, connect.buf, (size_t)connect.len)) {
        begin_acceptor(&door->at, &door_kind, fd);
        ring(&door->live);
        ring(&door->dry);
        door->stock = stock;
        door->origins = origins;
        door->ended_wait = (int64_t)(ended_wait * 1e9);
        door->most = most, door->outside = outside;
        take_lock(pump);
        error = lend_acceptor(pump, &door->at);
        handle = door->at.thing.handle;
        stock->doors += !error;
        release(pump);
    }
    PyBuffer_Release(&connect);
    if (!error)
        return PyLong_FromUnsignedLongLong(handle);
    if (door != NULL)
        free_door(&door->at.thing);
    return stock == NULL ? NULL : raised(error);
}

PyDoc_STRVAR(allow_doc, "allow(door, most, outside, all)\n\n"
    "most: clients there, and all: those of all doors, that may be here without that Python was told of them; each\n"
    "that it is told of, and that has not ended, is one less. outside: clients of the same service that Python has.");

static PyObject *pump_allow(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    unsigned long long handle;
    unsigned most, outside, all;
    if (!PyArg_ParseTuple(args, "KIII:allow", &handle, &most, &outside, &all))
        return NULL;
    Door *door = (Door *)thing_of(pump, handle, &door_kind, "no such door");
    if (door == NULL)
        return NULL;
    take_lock(pump);
    door->most = most;
    door->outside = outside;
    door->vain = door->vain && outside;
    pump->most = all;
    bool waits = !in_none(&door->dry) && is_served(door);
    release(pump);
    if (waits)
        wake(pump);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_door_doc, "close_door(door)\n\nAccept nobody there any more. Whoever is there is told of, or given up,"
    " when\nnews are taken next.");

static PyObject *pump_close_door(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Door *door = (Door *)thing_given(pump, handle, &door_kind, "no such door");
    if (door == NULL)
        return NULL;
    take_lock(pump);
    take_acceptor(pump, &door->at);
    while (!in_none(&door->live)) {
        Pair *pair = PAIR_OF(door->live.behind, kin);
        leave(&pair->kin);
        leave(&pair->young);
        leave(&pair->held);
        if (pair->made)
            tell_later(pump, &pair->thing, 0);
    }
    leave(&door->dry);
    door->stock->doors--;
    release(pump);
    free_door(&door->at.thing);
    Py_RETURN_NONE;
}

PyMethodDef door_methods[] = {
    {"door", pump_door, METH_VARARGS, door_doc},
    {"allow", pump_allow, METH_VARARGS, allow_doc},
    {"close_door", pump_close_door, METH_O, close_door_doc},
    {NULL, NULL, 0, NULL},
};
