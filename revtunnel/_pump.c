/* Pairs of plain sockets whose bytes are moved by a thread without Python: the data plane.

The rules are those of sockets/relay.py, which is the specification and runs where this is not there: what one
side does not take is held, at most one reading of it, and the other side is not read until that is gone. An
end of file is passed on behind its bytes, each direction by itself. A cut of one side is told at once where
nobody reads it, else behind its bytes. A reading is bounded, starts small and doubles while all of it is
taken; a small message of anybody keeps the readings of bulk small for a while.

Descriptors are Python's: it gives a pair, is told that it has ended or was cut, takes it back, and closes.
Nothing is closed here, so no number ever belongs to another connection while a pair has it.

One lock guards the pairs. The thread holds it for one turn of one pair; a second lock makes a queue of it, so
that a thread under load hands it over (``acquire``). Counters are atomic and read without it. An event names a
pair by its slot and the slot's generation, so that one of a pair taken back meanwhile is known as such.
Whoever became ready has a turn before those that go on with bulk, and epoll is asked between their turns.

Source: sockets/relay.py; epoll(7); ours. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST (1024 * 1024) /* bytes of a reading */
#define RECORD (16 * 1024)    /* of one when much is held, as in ends.py */
#define SMALL (4 * 1024)      /* of one that is a message rather than bulk */
#define BATCH 64              /* events at once */
#define WAKE UINT64_MAX       /* the event of our own eventfd */

enum { ENDING = 1, DONE = 2, CUT = 4 }; /* news of a pair, as in data_plane.py */
enum { READ_ENDED = 1, WRITE_ENDED = 2, IS_ENDING = 4 }; /* state of a side, likewise */

typedef struct Link { /* of a ring; one that is in none points to itself */
    struct Link *before, *behind;
} Link;

typedef struct {
    int fd;
    char *held; /* for this side, which does not take it */
    size_t held_at, held_end, held_size;
    size_t room;           /* bytes of the next reading */
    uint64_t lost;         /* bytes for this side that a failed write had in hand */
    bool readable, over;   /* as epoll said last; over: an end of file or a cut has come */
    bool writable, failed; /* failed: EPOLLERR */
    bool urgent;           /* a reading stops there, though there is more */
    bool ending, read_ended, write_ended;
    _Atomic uint64_t taken;   /* bytes, by this side's kernel */
    _Atomic uint64_t waiting; /* bytes held, for who asks without the lock */
    _Atomic unsigned state;
} Side;

typedef struct {
    Link turn, told; /* in the pump's rings */
    Side side[2];    /* near, far */
    uint64_t handle;
    size_t first, most, calm, pool;
    unsigned news;
    int cut_side, cut_error;
    bool over; /* ended or cut: nothing moves any more */
} Pair;

typedef struct {
    Pair *pair;
    uint32_t generation, next; /* next: a free slot's */
} Slot;

typedef struct {
    PyObject_HEAD
    pthread_mutex_t queue, lock;
    pthread_t thread;
    bool running;
    atomic_bool stopping;
    int epoll, told_fd, wake_fd;
    Slot *slots;
    uint32_t size, free; /* free: the first free slot, or size */
    Link fresh, bulk, told;
    bool tell;   /* Python is to be told behind this batch */
    size_t held; /* bytes of all pairs */
    size_t calm; /* readings of bulk that are to stay small */
    char *buffer;
} Pump;

#define PAIR_OF(link, member) ((Pair *)((char *)(link) - offsetof(Pair, member)))

static void ring(Link *link) { link->before = link->behind = link; }

static void leave(Link *link)
{
    link->before->behind = link->behind;
    link->behind->before = link->before;
    ring(link);
}

static void append(Link *to, Link *link)
{
    leave(link);
    link->before = to->before;
    link->behind = to;
    to->before->behind = link;
    to->before = link;
}

static bool in_none(const Link *link) { return link->behind == link; }

static void acquire(Pump *pump)
{
    pthread_mutex_lock(&pump->queue);
    pthread_mutex_lock(&pump->lock);
    pthread_mutex_unlock(&pump->queue);
}

static void release(Pump *pump) { pthread_mutex_unlock(&pump->lock); }

static Pair *find(Pump *pump, uint64_t handle)
{
    uint32_t number = (uint32_t)handle;
    if (number >= pump->size || pump->slots[number].generation != (uint32_t)(handle >> 32))
        return NULL;
    return pump->slots[number].pair;
}

/* -- a pair's turn; the lock is held */

static void tell(Pump *pump, Pair *pair, unsigned news)
{
    pair->news |= news;
    if (in_none(&pair->told))
        append(&pump->told, &pair->told);
    pump->tell = true;
    pair->over = pair->over || news & (DONE | CUT);
}

static void cut(Pump *pump, Pair *pair, int side, int error)
{
    if (pair->over)
        return;
    pair->cut_side = side;
    pair->cut_error = error;
    tell(pump, pair, CUT);
}

static void check(Pump *pump, Pair *pair)
{
    Side *near = &pair->side[0], *far = &pair->side[1];
    if (pair->over || !(near->ending && far->ending))
        return;
    if (near->write_ended && far->write_ended)
        tell(pump, pair, DONE);
    else if (!(pair->news & ENDING))
        tell(pump, pair, ENDING);
}

static ssize_t send_some(Side *side, const char *data, size_t size)
{
    ssize_t sent;
    do
        sent = send(side->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        sent = 0;
    if (sent >= 0 && (size_t)sent < size)
        side->writable = false;
    if (sent > 0)
        atomic_fetch_add_explicit(&side->taken, (uint64_t)sent, memory_order_relaxed);
    return sent;
}

static void drop(Pump *pump, Side *side)
{
    free(side->held);
    pump->held -= side->held_size;
    side->held = NULL;
    side->held_at = side->held_end = side->held_size = 0;
    atomic_store_explicit(&side->waiting, 0, memory_order_relaxed);
}

static bool hold(Pump *pump, Side *side, const char *data, size_t size)
{
    side->held = malloc(size);
    if (side->held == NULL)
        return false;
    memcpy(side->held, data, size);
    side->held_end = side->held_size = size;
    pump->held += size;
    atomic_store_explicit(&side->waiting, size, memory_order_relaxed);
    return true;
}

/* Write what is held, then the end of file if that is next. */
static void flush(Pump *pump, Pair *pair, int which)
{
    Side *side = &pair->side[which], *other = &pair->side[!which];
    if (pair->over)
        return;
    if (side->held != NULL && side->writable) {
        ssize_t sent = send_some(side, side->held + side->held_at, side->held_end - side->held_at);
        if (sent < 0) {
            cut(pump, pair, which, errno);
            return;
        }
        side->held_at += (size_t)sent;
        atomic_store_explicit(&side->waiting, side->held_end - side->held_at, memory_order_relaxed);
        if (side->held_at == side->held_end)
            drop(pump, side);
    }
    if (side->held == NULL && other->read_ended && !side->write_ended) {
        bool last = side->read_ended && other->write_ended; /* the close says it */
        if (!last && shutdown(side->fd, SHUT_WR) < 0) {
            cut(pump, pair, which, errno);
            return;
        }
        side->write_ended = true;
    }
    check(pump, pair);
}

/* Write what the other side sent, and hold what is not taken. Nothing is held before. */
static void push(Pump *pump, Pair *pair, int which, const char *data, size_t size)
{
    Side *side = &pair->side[which];
    ssize_t sent = send_some(side, data, size);
    if (sent < 0) {
        side->lost += size;
        cut(pump, pair, which, errno);
    } else if ((size_t)sent < size) {
        pair->side[!which].room = pair->first;
        if (!hold(pump, side, data + sent, size - (size_t)sent)) {
            side->lost += size - (size_t)sent;
            cut(pump, pair, which, ENOMEM);
        }
    }
}

/* While it is not read: whether it has ended, or was cut. */
static void left(Pump *pump, Pair *pair, int which)
{
    Side *side = &pair->side[which];
    int error = 0;
    socklen_t size = sizeof error;
    if (side->failed) {
        side->failed = false;
        if (getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error)
            cut(pump, pair, which, error);
    }
    if (side->over) {
        side->ending = true;
        check(pump, pair);
    }
}

static size_t room_of(Pump *pump, Pair *pair, Side *side)
{
    size_t room = side->room;
    if (room > pair->first && pump->calm) {
        pump->calm--;
        room = pair->first;
    }
    return pump->held >= pair->pool ? RECORD : room;
}

static void grow(Pump *pump, Pair *pair, Side *side, size_t size, size_t room, bool taken)
{
    if (size < SMALL) {
        if (room == pair->first)
            pump->calm = pair->calm;
    } else if (room - size < RECORD && taken && room == side->room)
        side->room = room * 2 < pair->most ? room * 2 : pair->most;
}

/* Read once, and give it to the other side; up to its end if that is said to come. */
static void pull(Pump *pump, Pair *pair, int which)
{
    Side *side = &pair->side[which], *other = &pair->side[!which];
    for (int turns = 0; turns < 2 && side->readable; turns++) {
        if (pair->over || side->read_ended || other->held != NULL)
            break;
        size_t room = room_of(pump, pair, side);
        ssize_t size = recv(side->fd, pump->buffer, room, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            side->readable = side->urgent = false;
        } else if (size < 0) {
            cut(pump, pair, which, errno);
        } else if (size == 0) {
            side->readable = false;
            side->ending = side->read_ended = true;
            flush(pump, pair, !which);
        } else {
            push(pump, pair, !which, pump->buffer, (size_t)size);
            grow(pump, pair, side, (size_t)size, room, other->held == NULL);
            if ((size_t)size < room && !side->over && !side->urgent)
                side->readable = false; /* that was all: what comes later is told */
        }
        if (size <= 0 || (size_t)size >= room)
            break; /* a bounded turn, except for the end behind the last bytes */
    }
    if (side->read_ended || other->held != NULL)
        left(pump, pair, which);
}

static bool wants_more(Pair *pair)
{
    for (int which = 0; which < 2; which++) {
        Side *side = &pair->side[which], *other = &pair->side[!which];
        if (side->readable && !side->read_ended && other->held == NULL)
            return true;
        if (side->held != NULL && side->writable)
            return true;
    }
    return false;
}

static void note(Side *side)
{
    unsigned state = (side->read_ended ? READ_ENDED : 0) | (side->write_ended ? WRITE_ENDED : 0) |
                     (side->ending ? IS_ENDING : 0);
    atomic_store_explicit(&side->state, state, memory_order_relaxed);
}

static void take_turn(Pump *pump, Pair *pair)
{
    leave(&pair->turn);
    for (int which = 0; which < 2; which++)
        flush(pump, pair, which);
    for (int which = 0; which < 2; which++)
        pull(pump, pair, which);
    for (int which = 0; which < 2; which++)
        note(&pair->side[which]);
    if (!pair->over && wants_more(pair))
        append(&pump->bulk, &pair->turn);
}

/* -- the loop */

static void happened(Pump *pump, const struct epoll_event *event)
{
    uint64_t key = event->data.u64;
    Pair *pair = find(pump, key & ~(1ull << 31));
    if (pair == NULL || pair->over)
        return;
    Side *side = &pair->side[key >> 31 & 1];
    const uint32_t over = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    side->over = side->over || event->events & over;
    side->failed = side->failed || event->events & EPOLLERR;
    side->urgent = side->urgent || event->events & EPOLLPRI;
    side->readable = side->readable || event->events & (EPOLLIN | EPOLLPRI | over);
    side->writable = side->writable || event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
    append(&pump->fresh, &pair->turn);
}

static Pair *next_of(Link *ring)
{
    return in_none(ring) ? NULL : PAIR_OF(ring->behind, turn);
}

/* One batch of events, a turn of each pair they are for, and one of bulk; true: there is more of that. */
static bool run(Pump *pump, int timeout)
{
    struct epoll_event events[BATCH];
    Pair *pair;
    int count = epoll_wait(pump->epoll, events, BATCH, timeout);
    acquire(pump);
    for (int i = 0; i < count; i++)
        if (events[i].data.u64 != WAKE)
            happened(pump, &events[i]);
    bool waits = next_of(&pump->bulk) != NULL; /* who has just had a turn waits for the next round */
    while ((pair = next_of(&pump->fresh)) != NULL) {
        take_turn(pump, pair);
        release(pump);
        acquire(pump);
    }
    if (waits && (pair = next_of(&pump->bulk)) != NULL)
        take_turn(pump, pair);
    bool more = next_of(&pump->bulk) != NULL || next_of(&pump->fresh) != NULL, tell = pump->tell;
    pump->tell = false;
    release(pump);
    uint64_t one = 1;
    if (tell && write(pump->told_fd, &one, sizeof one) < 0)
        ; /* EAGAIN alone is possible: it is told already */
    return more;
}

static void *work(void *argument)
{
    Pump *pump = argument;
    bool more = false;
    pthread_setname_np(pthread_self(), "revtunnel-pump");
    while (!atomic_load(&pump->stopping))
        more = run(pump, more ? 0 : -1);
    return NULL;
}

/* -- Python's */

static void take_lock(Pump *pump)
{
    Py_BEGIN_ALLOW_THREADS
    acquire(pump);
    Py_END_ALLOW_THREADS
}

static void stop_thread(Pump *pump)
{
    uint64_t one = 1;
    if (!pump->running)
        return;
    atomic_store(&pump->stopping, true);
    if (write(pump->wake_fd, &one, sizeof one) < 0)
        ; /* it is awake */
    Py_BEGIN_ALLOW_THREADS
    pthread_join(pump->thread, NULL);
    Py_END_ALLOW_THREADS
    if (read(pump->wake_fd, &one, sizeof one) < 0)
        ; /* it was full */
    pump->running = false;
}

static PyObject *pump_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Pump *pump = (Pump *)allocate(type, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};
    if (pump == NULL)
        return NULL;
    pthread_mutex_init(&pump->queue, NULL);
    pthread_mutex_init(&pump->lock, NULL);
    ring(&pump->fresh);
    ring(&pump->bulk);
    ring(&pump->told);
    pump->epoll = epoll_create1(EPOLL_CLOEXEC);
    pump->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pump->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pump->buffer = malloc(LARGEST);
    if (pump->epoll < 0 || pump->told_fd < 0 || pump->wake_fd < 0 || pump->buffer == NULL ||
        epoll_ctl(pump->epoll, EPOLL_CTL_ADD, pump->wake_fd, &event) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(pump);
        return NULL;
    }
    return (PyObject *)pump;
}

/* Nobody finds it any more, and no turn of it will come; the lock is held. */
static void detach(Pump *pump, Pair *pair)
{
    Slot *slot = &pump->slots[(uint32_t)pair->handle];
    leave(&pair->turn);
    leave(&pair->told);
    for (int which = 0; which < 2; which++) {
        epoll_ctl(pump->epoll, EPOLL_CTL_DEL, pair->side[which].fd, NULL);
        pump->held -= pair->side[which].held_size;
    }
    slot->pair = NULL;
    slot->generation++;
    slot->next = pump->free;
    pump->free = (uint32_t)pair->handle;
}

static void destroy(Pair *pair)
{
    for (int which = 0; which < 2; which++)
        free(pair->side[which].held);
    free(pair);
}

static void pump_dealloc(PyObject *self)
{
    Pump *pump = (Pump *)self;
    PyTypeObject *type = Py_TYPE(self);
    stop_thread(pump);
    for (uint32_t number = 0; number < pump->size; number++)
        if (pump->slots[number].pair != NULL)
            destroy(pump->slots[number].pair);
    free(pump->slots);
    free(pump->buffer);
    close(pump->epoll);
    close(pump->told_fd);
    close(pump->wake_fd);
    pthread_mutex_destroy(&pump->lock);
    pthread_mutex_destroy(&pump->queue);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* A slot for a pair; false: no memory. */
static bool place(Pump *pump, Pair *pair)
{
    if (pump->free == pump->size) {
        uint32_t size = pump->size ? pump->size * 2 : 64;
        Slot *slots = size > 1u << 30 ? NULL : realloc(pump->slots, size * sizeof *slots);
        if (slots == NULL)
            return false;
        for (uint32_t number = pump->size; number < size; number++)
            slots[number] = (Slot){NULL, 0, number + 1};
        pump->slots = slots;
        pump->size = size;
    }
    uint32_t number = pump->free;
    pair->handle = (uint64_t)pump->slots[number].generation << 32 | number;
    pump->free = pump->slots[number].next;
    pump->slots[number].pair = pair;
    return true;
}

static void begin(Side *side, int fd, unsigned state, uint64_t taken, size_t first)
{
    side->fd = fd;
    side->room = first;
    side->read_ended = state & READ_ENDED;
    side->write_ended = state & WRITE_ENDED;
    side->ending = state & (READ_ENDED | IS_ENDING);
    atomic_init(&side->taken, taken);
    atomic_init(&side->state, state);
}

static int watch(Pump *pump, Pair *pair, int which)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    event.data.u64 = pair->handle | (which ? 1ull << 31 : 0);
    return epoll_ctl(pump->epoll, EPOLL_CTL_ADD, pair->side[which].fd, &event);
}

PyDoc_STRVAR(join_doc, "join(near, far, limits) -> handle\n\n"
    "Move bytes between two sockets from now on, each (fd, state, taken, held bytes for it).\n"
    "limits: first, turn, calm, pool as of RelayLimits.");

typedef struct {
    int fd;
    unsigned state;
    unsigned long long taken;
    Py_buffer held;
} Given;

static int add(Pump *pump, Pair *pair, const Given given[2])
{
    if (!place(pump, pair))
        return ENOMEM;
    for (int which = 0; which < 2; which++) /* both, before one can fail: detach goes by their descriptors */
        begin(&pair->side[which], given[which].fd, given[which].state, given[which].taken, pair->first);
    for (int which = 0; which < 2; which++) {
        const Given *of = &given[which];
        if (of->held.len && !hold(pump, &pair->side[which], of->held.buf, (size_t)of->held.len))
            return ENOMEM;
    }
    return watch(pump, pair, 0) < 0 || watch(pump, pair, 1) < 0 ? errno : 0;
}

static PyObject *pump_join(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Given near, far;
    Py_ssize_t first, most, calm, pool;
    if (!PyArg_ParseTuple(args, "(iIKy*)(iIKy*)(nnnn):join", &near.fd, &near.state, &near.taken, &near.held,
                          &far.fd, &far.state, &far.taken, &far.held, &first, &most, &calm, &pool))
        return NULL;
    Pair *pair = calloc(1, sizeof *pair);
    uint64_t handle = 0;
    int error = ENOMEM;
    if (pair != NULL) {
        ring(&pair->turn);
        ring(&pair->told);
        pair->first = (size_t)(first < LARGEST ? first : LARGEST);
        pair->most = (size_t)(most < LARGEST ? most : LARGEST);
        pair->calm = (size_t)calm;
        pair->pool = (size_t)pool;
        take_lock(pump);
        error = add(pump, pair, (Given[]){near, far});
        handle = pair->handle;
        if (error && find(pump, handle) == pair)
            detach(pump, pair);
        release(pump);
        if (error)
            destroy(pair);
    }
    PyBuffer_Release(&near.held);
    PyBuffer_Release(&far.held);
    if (!error)
        return PyLong_FromUnsignedLongLong(handle);
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static Pair *found(Pump *pump, PyObject *handle)
{
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred())
        return NULL;
    Pair *pair = find(pump, number);
    if (pair == NULL)
        PyErr_SetString(PyExc_KeyError, "no such pair");
    return pair;
}

static PyObject *counts_of(Side *side)
{
    return Py_BuildValue("(KKI)", (unsigned long long)atomic_load_explicit(&side->taken, memory_order_relaxed),
                         (unsigned long long)atomic_load_explicit(&side->waiting, memory_order_relaxed),
                         atomic_load_explicit(&side->state, memory_order_relaxed));
}

PyDoc_STRVAR(counts_doc, "counts(handle) -> near, far\n\n"
    "Of each side: bytes that its kernel has taken, bytes held for it, state. Takes no lock.");

static PyObject *pump_counts(PyObject *self, PyObject *handle)
{
    Pair *pair = found((Pump *)self, handle);
    return pair == NULL ? NULL : Py_BuildValue("(NN)", counts_of(&pair->side[0]), counts_of(&pair->side[1]));
}

PyDoc_STRVAR(leave_doc, "leave(handle) -> near, far\n\n"
    "Take a pair back. Of each side: bytes taken, bytes for it that a failed write had in hand, state,\n"
    "and what is held for it.");

static PyObject *pump_leave(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Pair *pair = found(pump, handle);
    PyObject *sides[2] = {NULL, NULL};
    if (pair == NULL)
        return NULL;
    take_lock(pump);
    detach(pump, pair);
    release(pump);
    for (int which = 0; which < 2; which++) {
        Side *side = &pair->side[which];
        note(side);
        sides[which] = Py_BuildValue("(KKIy#)", (unsigned long long)atomic_load(&side->taken),
                                     (unsigned long long)side->lost, atomic_load(&side->state),
                                     side->held == NULL ? "" : side->held + side->held_at,
                                     (Py_ssize_t)(side->held_end - side->held_at));
    }
    destroy(pair);
    if (sides[0] == NULL || sides[1] == NULL) {
        Py_XDECREF(sides[0]);
        Py_XDECREF(sides[1]);
        return NULL;
    }
    return Py_BuildValue("(NN)", sides[0], sides[1]);
}

typedef struct {
    uint64_t handle;
    unsigned news;
    int side, error;
} News;

PyDoc_STRVAR(take_doc, "take() -> [(handle, news, side, errno), ...]\n\n"
    "What happened since the last time, when the descriptor is readable. CUT has a side (0 near, 1 far).");

static PyObject *pump_take(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    News news[BATCH];
    int count = 0;
    uint64_t told;
    if (read(pump->told_fd, &told, sizeof told) < 0)
        ; /* nothing was told: the ring is the truth */
    take_lock(pump);
    while (count < BATCH && !in_none(&pump->told)) {
        Pair *pair = PAIR_OF(pump->told.behind, told);
        leave(&pair->told);
        news[count++] = (News){pair->handle, pair->news, pair->cut_side, pair->cut_error};
    }
    bool more = !in_none(&pump->told);
    release(pump);
    told = 1;
    if (more && write(pump->told_fd, &told, sizeof told) < 0)
        ; /* it is told already */
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *row = Py_BuildValue("(KIii)", (unsigned long long)news[i].handle, news[i].news, news[i].side,
                                      news[i].error);
        if (row == NULL || PyList_SetItem(list, i, row) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyDoc_STRVAR(turn_doc, "turn() -> bool\n\nWithout the thread: what is to be done now; True: there is more.");

static PyObject *pump_turn(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    if (pump->running) {
        PyErr_SetString(PyExc_RuntimeError, "a thread does that");
        return NULL;
    }
    return PyBool_FromLong(run(pump, 0));
}

PyDoc_STRVAR(start_doc, "start()\n\nHave a thread move the bytes, which has no signals and never needs Python.");

static PyObject *pump_start(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    sigset_t all, before;
    if (pump->running)
        Py_RETURN_NONE;
    atomic_store(&pump->stopping, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pump->thread, NULL, work, pump);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pump->running = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "stop()\n\nEnd the thread; the pairs stay.");

static PyObject *pump_stop(PyObject *self, PyObject *nothing)
{
    stop_thread((Pump *)self);
    Py_RETURN_NONE;
}

static PyObject *pump_fileno(PyObject *self, PyObject *nothing)
{
    return PyLong_FromLong(((Pump *)self)->told_fd);
}

static PyMethodDef methods[] = {
    {"join", pump_join, METH_VARARGS, join_doc},
    {"counts", pump_counts, METH_O, counts_doc},
    {"leave", pump_leave, METH_O, leave_doc},
    {"take", pump_take, METH_NOARGS, take_doc},
    {"turn", pump_turn, METH_NOARGS, turn_doc},
    {"start", pump_start, METH_NOARGS, start_doc},
    {"stop", pump_stop, METH_NOARGS, stop_doc},
    {"fileno", pump_fileno, METH_NOARGS, "fileno() -> int\n\nReadable when there is news."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Pairs of plain sockets. Its methods are for one thread of Python's."},
    {Py_tp_new, pump_new},
    {Py_tp_dealloc, pump_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"revtunnel._pump.Pump", sizeof(Pump), 0, Py_TPFLAGS_DEFAULT, slots};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    if (type == NULL || PyModule_AddObject(module, "Pump", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot parts[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "revtunnel._pump", "The data plane: pairs of plain sockets, moved without Python.", 0,
    NULL, parts, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__pump(void) { return PyModuleDef_Init(&definition); }
