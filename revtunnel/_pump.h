/* What the files of the data plane share: _pump_table.c (things, the loop, what Python is told), _pump_pairs.c
(bytes of pairs), _pump_tls.c (those of sides with TLS), _pump_accept.c (listening sockets), _pump_stock.c (data
sockets that wait), _pump_doors.c (clients that come), _pump_gates.c (data sockets that come), _pump_dials.c (data sockets that an agent brings), _pump.c
(Python's methods). The rules stand at the heads of those files.

Source: ours. */

#ifndef REVTUNNEL_PUMP_H
#define REVTUNNEL_PUMP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST (1024 * 1024) /* bytes of a reading */
#define RECORD (16 * 1024)    /* of one when much is held, as in ends.py */
#define SMALL (4 * 1024)      /* of one that is a message rather than bulk */
#define BATCH 64              /* events, or news, at once */
#define WAKE UINT64_MAX       /* the event of our own eventfd */
#define FAILURES 64           /* of accept, one behind the other: whoever waits is not even taken away, so Python rests */
#define UNFETCHED 64          /* of one acceptor: given up, that Python has not fetched; behind them it waits */
#define TICK 8000000          /* nanoseconds between two tellings of what may wait */
#define YOUNG 200000000       /* nanoseconds that a pair made here may live before Python has to know of it */

/* News of a thing, as in data_plane.py. Those from OPENED on are of pairs made here only. */
enum { ENDING = 1, DONE = 2, CUT = 4, OPENED = 8, GIVEN = 16, ASKED = 32 };
enum { UNABLE = 64 }; /* of what accepts: it does not any more; errno says why */
enum { READ_ENDED = 1, WRITE_ENDED = 2, IS_ENDING = 4 }; /* state of a side, likewise */

typedef struct Link { /* of a ring; one that is in none points to itself */
    struct Link *before, *behind;
} Link;

typedef struct Pump Pump;
typedef struct Thing Thing;
typedef struct Told Told;
typedef struct Dials Dials;
typedef struct Tickets Tickets;
typedef struct Pair Pair;

/* What a kind of thing does; the lock is held. */
typedef struct {
    void (*happened)(Pump *, Thing *, int side, uint32_t events); /* then its turn comes, if it is in ``fresh`` */
    void (*take_turn)(Pump *, Thing *);
    void (*told)(Pump *, Thing *, Told *); /* Python fetches its news; ``Told.gone``: it is freed behind that */
    void (*destroy)(Thing *);              /* free its memory, close what it owns; it is in no slot and no ring */
    void (*fetched)(Pump *, Thing *, Pair *); /* Python was told of a pair that it made; NULL: it makes none */
} Kind;

struct Thing { /* the first member of whatever is in a slot */
    const Kind *kind;
    Link turn, told; /* in the pump's rings */
    uint64_t handle; /* 0: it has no slot */
    unsigned news;
    bool over; /* ended, cut or given up: nothing happens to it any more */
};

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
    void *ssl;                /* OpenSSL's, which is Python's; NULL: it is plain */
    int fault;                /* of TLS: found behind good bytes, for the next reading */
    bool reads_when_writable, writes_when_readable; /* what TLS waits for */
    bool parting;             /* a close_notify is with the engine, not yet with the kernel */
    _Atomic uint64_t taken;   /* bytes, by this side's kernel */
    _Atomic uint64_t waiting; /* bytes held, for who asks without the lock */
    _Atomic unsigned state;
} Side;

/* A pair that was made here is ``made``: its descriptors are closed here, until Python has been told of it. */
struct Pair {
    Thing thing;
    Side side[2]; /* near, far */
    size_t first, most, calm, pool;
    int cut_side, cut_error;
    bool made;
    uint64_t maker;          /* the handle of what made it */
    Link kin, young;         /* in a ring of its maker's; in the pump's of those that Python does not know of */
    uint64_t number;         /* of its data socket */
    int64_t came, opened, ended; /* nanoseconds, as now() says; 0: not */
    struct sockaddr_storage name; /* of who connected */
    char *said;              /* what was read of one side and said to the other, until it opens */
    size_t said_size;
    char *heard;             /* what came of the answer, if that is not for us to judge */
    size_t heard_size;
    Link held;               /* in the pump's ring of those that wait for others to have ended */
    uint64_t turn_of;        /* such a one: how many came there before it */
    uint64_t awaited;        /* the ``turn_of`` of the first that waits for it; 0: nobody does */
};

typedef struct {
    Thing *thing;
    uint32_t generation, next; /* next: a free slot's */
} Slot;

struct Pump {
    PyObject_HEAD
    pthread_mutex_t queue, lock;
    pthread_t thread;
    pid_t runs_in; /* the process with the thread; 0: there is none */
    atomic_bool stopping;
    int epoll, told_fd, wake_fd;
    Slot *slots;         /* given and freed by Python's thread alone, so that it finds things without the lock */
    uint32_t size, free; /* free: the first free slot, or size */
    Link fresh, bulk, told, young;
    Link held_back;      /* pairs that wait for others to have ended (_pump_doors.c) */
    Link dry;            /* doors that wait for a data socket */
    bool tell;           /* Python is to be told behind this batch */
    bool tell_later;     /* or with the next tick */
    bool ticks;          /* something waits for one; the thread's own */
    int64_t ticked;      /* when that was last */
    uint32_t made, most; /* pairs made here that Python has not fetched; how many may be */
    size_t held;         /* bytes of all pairs */
    size_t calm;         /* readings of bulk that are to stay small */
    char *buffer;
    Dials *dials; /* NULL: nobody has set their limits */
    Tickets *tickets; /* NULL: there never was a gate */
};

struct Told { /* one row for Python */
    Thing *gone; /* to be destroyed behind that */
    uint64_t handle;
    unsigned news;
    int side, error;
    Pair *made; /* all else is read of it; it is ours alone by then, or nothing of that changes any more */
    PyObject *(*row)(const Told *, int64_t time); /* that makes another row of it; NULL: the usual one */
};

#define THING_OF(link, member) ((Thing *)((char *)(link)-offsetof(Thing, member)))
#define PAIR_OF(link, member) ((Pair *)((char *)(link)-offsetof(Pair, member)))

/* _pump_table.c */
void ring(Link *link);
void leave(Link *link);
void append(Link *to, Link *link);
bool in_none(const Link *link);
void acquire(Pump *pump);
void release(Pump *pump);
int64_t now(void);
void begin_thing(Thing *thing, const Kind *kind);
Thing *find(Pump *pump, uint64_t handle);
bool place(Pump *pump, Thing *thing);
void detach(Pump *pump, Thing *thing);
int watch(Pump *pump, Thing *thing, int side, int fd, uint32_t events);
void tell(Pump *pump, Thing *thing, unsigned news);
void tell_later(Pump *pump, Thing *thing, unsigned news);
void tell_young(Pump *pump, bool all);
void wake(Pump *pump);
bool keep(char **kept, size_t *size, const char *data, size_t more);
bool run(Pump *pump, int timeout);
void *work(void *pump);

/* _pump_pairs.c */
#define CHANGES (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET)
extern const Kind joined; /* the bytes of a pair are moved */
void was_fetched(Pump *pump, Pair *pair, Told *told);
void begin_side(Side *side, int fd, unsigned state, uint64_t taken, size_t first);
void begin_pair(Pair *pair, const Kind *kind, size_t first, size_t most, size_t calm, size_t pool);
Pair *new_pair(const Kind *kind, size_t first, size_t most, size_t calm, size_t pool);
void happened_to(Side *side, uint32_t events);
void pair_happened(Pump *pump, Thing *thing, int side, uint32_t events);
void pair_turn(Pump *pump, Thing *thing);
ssize_t send_some(Side *side, const char *data, size_t size);
bool hold(Pump *pump, Side *side, const char *data, size_t size);
void drop(Pump *pump, Side *side);
void push(Pump *pump, Pair *pair, int which, const char *data, size_t size);
void take_turn(Pump *pump, Pair *pair);
void note(Side *side);
void cut(Pump *pump, Pair *pair, int side, int error);
void close_side(Side *side, bool in_order);
void forget(Pump *pump, Pair *pair);
void give_up(Pump *pump, Pair *pair, int side, int error);
void free_pair(Thing *thing);

/* _pump_tls.c; of a side with ``ssl``, each -1 with errno for what is wrong, which may be none of the kernel's */
ssize_t tls_read(Side *side, char *data, size_t room); /* 0: the end; EAGAIN: nothing now */
ssize_t tls_send(Side *side, const char *data, size_t size);
int tls_end(Side *side); /* our end of file; 0: once more when writable */
void tls_happened(Side *side, uint32_t events);
extern PyMethodDef tls_methods[];

/* _pump_dials.c */
bool dials_tick(Pump *pump);
void dials_free(Pump *pump);
extern PyMethodDef dial_methods[];

/* _pump_accept.c */
typedef struct { /* the first member of whatever accepts */
    Thing thing;
    int fd, error;
    bool stands; /* nobody is accepted at present */
    uint32_t burst, failures, unfetched; /* unfetched: given up, that Python has not fetched */
} Acceptor;

void stand(Pump *pump, Acceptor *acceptor, bool stands);
void begin_acceptor(Acceptor *acceptor, const Kind *kind, int fd);
int lend_acceptor(Pump *pump, Acceptor *acceptor);
void take_acceptor(Pump *pump, Acceptor *acceptor);
bool was_unfetched(Acceptor *acceptor);
void acceptor_happened(Pump *pump, Thing *thing, int side, uint32_t events);
void acceptor_told(Pump *pump, Thing *thing, Told *told);
void accept_some(Pump *pump, Acceptor *acceptor, const Kind *kind, uint32_t most, bool (*waits)(Pump *, Acceptor *),
                 void (*serve)(Pump *, Acceptor *, int fd, const struct sockaddr_storage *, Pair *));

/* _pump_gates.c */
void tickets_free(Pump *pump);
extern PyMethodDef gate_methods[];

/* _pump_stock.c */
typedef struct {
    Thing thing;
    Link spare; /* pairs without a near side; the oldest first */
    uint32_t count, full, used; /* full: when Python was told last; used since then */
    uint32_t doors;
    int64_t filled;
    size_t first, most, calm, pool; /* as of RelayLimits */
} Stock;

extern const Kind stock_kind;
Pair *draw(Pump *pump, Stock *stock);
bool stock_takes(Pump *pump, uint64_t stock, Pair *pair, int fd, uint64_t number, int64_t time, bool *was_dry);
extern PyMethodDef stock_methods[];

/* _pump_doors.c */
void look_at_doors(Pump *pump);
bool doors_wait(const Pump *pump);
extern PyMethodDef door_methods[];

/* _pump.c */
void take_lock(Pump *pump);
Thing *thing_of(Pump *pump, uint64_t handle, const Kind *kind, const char *missing);
Thing *thing_given(Pump *pump, PyObject *handle, const Kind *kind, const char *missing);
PyObject *raised(int error);

#endif
