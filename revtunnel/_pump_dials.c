/* Data sockets that an agent brings, from their ticket until their channel is a pair that Python knows.

The rules are those of carriers/agent_data.py and streams/dialler.py, which go on with what is given back here.
A ticket is a connection to the place that Python names, and ATTACH. Then the socket waits. What it reads first
has to be one CONNECT, byte for byte that of a goal that Python allows now, and bytes of the client's behind it.
The goal is dialled; when it has answered, OPENED is said, it is given these bytes, and both are a pair.

Everything else is given back in the state that it is in: other frames or half of one, another target, a dial
that failed or would be one too many, an end, a cut. So nothing is said here but ATTACH and OPENED, and what
Python allows no more is not dialled from the moment on at which it says so. A pair that lives for a while is
given back as it runs; one that ends before is closed here, and Python is told of it.

A dial is in one ring of its own at a time, which says what it waits for. A deadline is looked at with the tick.

Source: wire/link-extension.md "Data sockets"; carriers/agent_data.py; ours. */

#include "_pump.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define READ (64 * 1024)   /* bytes of the first reading, as of a FramedEnd */
#define TICKET 16          /* bytes */
#define LOWAT (512 * 1024) /* as NOTSENT of ends.py, for a pair that lives */
#define OVER (EPOLLRDHUP | EPOLLHUP | EPOLLERR)
#define SECOND 1e9 /* of now() */

enum { WAITING, CONNECTING, PARKED, DIALLING, OPEN, TOLD, RINGS };
enum { MISSED = 1, IDLE, FAILED, DIED, TAKEN, RUNS, CLOSED }; /* what Python is told, as in agent_dials.py */

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address;
    socklen_t size;
    int within; /* it stays within this machine */
} Place;

typedef struct {
    Place place;
    uint32_t id;
    size_t size;
    char connect[4 + 2 + 255 + 2]; /* the frame */
} Goal;

typedef struct {
    Pair pair; /* near: the server, far: the goal; ``came``: when CONNECT did */
    Link link;
    int ring, what, error;
    uint32_t owner, goal;
    char ticket[TICKET];
    Place place;
    int64_t due; /* until when it waits */
    size_t at;   /* where in ``said`` the client's bytes begin */
    uint32_t events[2]; /* of near and far, until its turn */
    bool alive;
} Dial;

struct Dials {
    Link rings[RINGS];
    size_t in[RINGS];
    Goal *goals;
    size_t size, most_connects, most_dials;
    int64_t connect, dial;
    size_t first, most, calm, pool;
};

#define DIAL_OF(of) ((Dial *)((char *)(of)-offsetof(Dial, link)))
#define NEAR(dial) ((dial)->pair.side[0].fd)
#define FAR(dial) ((dial)->pair.side[1].fd)

static const Kind dialled, opened;

static Dial *first_of(Dials *dials, int ring)
{
    return in_none(&dials->rings[ring]) ? NULL : DIAL_OF(dials->rings[ring].behind);
}

/* Into a ring; where there are deadlines, behind those that are due before it: limits change. */
static void enter(Dials *dials, Dial *dial, int ring)
{
    Link *head = &dials->rings[ring], *behind = head;
    dials->in[dial->ring = ring]++;
    while (ring != PARKED && ring < OPEN && behind->before != head && DIAL_OF(behind->before)->due > dial->due)
        behind = behind->before;
    append(behind, &dial->link);
}

static void become(Dials *dials, Dial *dial, int ring)
{
    dials->in[dial->ring]--;
    leave(&dial->link);
    enter(dials, dial, ring);
}

static void in_no_ring(Dials *dials, Dial *dial)
{
    dials->in[dial->ring]--;
    leave(&dial->link);
}

/* -- sockets */

static void set(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

/* As PlainEnd and tune make it, but for what only one that lives needs; -1: errno says why there is none. */
static int open_socket(const Place *place)
{
    static const struct linger reset = {1, 0};
    int fd = socket(place->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (!place->within) {
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
        set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    }
    return fd;
}

/* 0: connected; EINPROGRESS: not yet. */
static int begin_connect(int fd, const Place *place)
{
    if (connect(fd, &place->address.any, place->size) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    if (connect(fd, &place->address.any, place->size) == 0 || errno == EISCONN)
        return 0; /* this machine has answered already */
    return errno == EALREADY ? EINPROGRESS : errno;
}

static int fault_of(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

/* -- what is given back; the lock is held in all that follows */

static void tell_dial(Pump *pump, Dial *dial, int what, int error)
{
    dial->what = what;
    dial->error = error;
    become(pump->dials, dial, TOLD);
    tell(pump, &dial->pair.thing, GIVEN);
}

/* Its socket is Python's again, and what was read of it. */
static void give(Pump *pump, Dial *dial, int what, int error)
{
    close_side(&dial->pair.side[1], false);
    epoll_ctl(pump->epoll, EPOLL_CTL_DEL, NEAR(dial), NULL);
    tell_dial(pump, dial, what, error);
}

static void missed(Pump *pump, Dial *dial, int error)
{
    close_side(&dial->pair.side[0], false);
    tell_dial(pump, dial, MISSED, error);
}

/* Keep what was read; false: no memory, so it dies of that. */
static bool keep_said(Pump *pump, Dial *dial, const char *data, size_t size)
{
    if (keep(&dial->pair.said, &dial->pair.said_size, data, size))
        return true;
    close_side(&dial->pair.side[1], false);
    missed(pump, dial, ENOMEM);
    return false;
}

static void give_with(Pump *pump, Dial *dial, int what, int error, const char *data, size_t size)
{
    if (dial->pair.said != NULL || keep_said(pump, dial, data, size))
        give(pump, dial, what, error);
}

/* -- from the ticket to a socket that waits */

/* Say whose ticket it is, as soon as it is connected. */
static void attach(Pump *pump, Dial *dial)
{
    char frame[4 + TICKET] = {0, TICKET, 0x1b, 0};
    memcpy(frame + 4, dial->ticket, TICKET);
    ssize_t sent = send(NEAR(dial), frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == sizeof frame)
        become(pump->dials, dial, PARKED);
    else if (sent >= 0 || errno != EAGAIN)
        missed(pump, dial, sent < 0 ? errno : EPIPE);
}

static void begin_ticket(Pump *pump, Dial *dial)
{
    int fd = open_socket(&dial->place);
    NEAR(dial) = fd;
    if (fd < 0 || (connect(fd, &dial->place.address.any, dial->place.size) < 0 && errno != EINPROGRESS) ||
        watch(pump, &dial->pair.thing, 0, fd, CHANGES) < 0) {
        missed(pump, dial, errno);
        return;
    }
    dial->due = now() + pump->dials->connect;
    become(pump->dials, dial, CONNECTING);
    attach(pump, dial);
}

static void next_tickets(Pump *pump)
{
    Dials *dials = pump->dials;
    Dial *dial;
    while (dials->in[CONNECTING] < dials->most_connects && (dial = first_of(dials, WAITING)) != NULL) {
        if (dial->due <= now())
            missed(pump, dial, ECANCELED); /* the server has forgotten it, too */
        else
            begin_ticket(pump, dial);
    }
}

/* -- from CONNECT to a pair */

static void reached(Pump *pump, Dial *dial, const char *data, size_t size, bool more)
{
    static const char frame[] = {0, 0, 0x13, 0};
    Pair *pair = &dial->pair;
    char *own = pair->said;
    ssize_t sent = send(NEAR(dial), frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != sizeof frame) {
        give_with(pump, dial, DIED, sent < 0 ? errno : EPIPE, data, size);
        return;
    }
    pair->said = NULL;
    pair->thing.kind = &opened;
    pair->opened = now();
    for (int which = 0; which < 2; which++)
        pair->side[which].writable = true;
    pair->side[0].readable = more;
    become(pump->dials, dial, OPEN);
    append(&pump->young, &pair->young);
    if (size > dial->at)
        push(pump, pair, 1, data + dial->at, size - dial->at);
    free(own);
    take_turn(pump, pair);
}

static void dial_goal(Pump *pump, Dial *dial, const Goal *goal, const char *data, size_t size, bool more)
{
    int fd = open_socket(&goal->place);
    int error = fd < 0 ? errno : begin_connect(fd, &goal->place);
    bool connected = error == 0;
    FAR(dial) = fd;
    if (error == EINPROGRESS || connected)
        error = watch(pump, &dial->pair.thing, 1, fd, CHANGES) < 0 ? errno : 0;
    if (error) {
        give_with(pump, dial, FAILED, error, data, size);
    } else if (connected) {
        reached(pump, dial, data, size, more);
    } else if (keep_said(pump, dial, data, size)) {
        dial->due = now() + pump->dials->dial;
        become(pump->dials, dial, DIALLING);
    }
}

static const Goal *goal_of(Dials *dials, const char *data, size_t size)
{
    for (size_t number = 0; number < dials->size; number++) {
        const Goal *goal = &dials->goals[number];
        if (size >= goal->size && memcmp(goal->connect, data, goal->size) == 0)
            return goal;
    }
    return NULL;
}

/* A socket that waited has something to say. */
static void hear(Pump *pump, Dial *dial, uint32_t events)
{
    Dials *dials = pump->dials;
    ssize_t size;
    do
        size = recv(NEAR(dial), pump->buffer, READ, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size < 0 && errno == EAGAIN && !(events & OVER))
        return;
    const Goal *goal = size > 0 && !(events & OVER) ? goal_of(dials, pump->buffer, (size_t)size) : NULL;
    dial->pair.came = now();
    if (goal == NULL || dials->in[DIALLING] >= dials->most_dials) {
        give_with(pump, dial, IDLE, 0, pump->buffer, size > 0 ? (size_t)size : 0);
        return;
    }
    dial->goal = goal->id;
    dial->at = goal->size;
    dial_goal(pump, dial, goal, pump->buffer, (size_t)size, size == READ || events & EPOLLPRI);
}

static void dial_happened(Pump *pump, Thing *thing, int side, uint32_t events)
{
    ((Dial *)thing)->events[side] |= events;
    append(&pump->fresh, &thing->turn);
}

static void dial_turn(Pump *pump, Thing *thing)
{
    Dial *dial = (Dial *)thing;
    uint32_t near = dial->events[0], far = dial->events[1];
    dial->events[0] = dial->events[1] = 0;
    dial->pair.side[0].urgent = dial->pair.side[0].urgent || near & EPOLLPRI;
    if (dial->ring == CONNECTING && near & (EPOLLOUT | OVER)) {
        int error = near & OVER ? fault_of(NEAR(dial)) : 0;
        if (error)
            missed(pump, dial, error);
        else if (near & EPOLLOUT)
            attach(pump, dial);
        next_tickets(pump);
    }
    if (dial->ring == PARKED && near & (EPOLLIN | EPOLLPRI | OVER)) {
        hear(pump, dial, near);
    } else if (dial->ring == DIALLING && near & OVER) {
        give(pump, dial, TAKEN, 0);
    } else if (dial->ring == DIALLING && far & (EPOLLOUT | OVER)) {
        int error = far & OVER ? fault_of(FAR(dial)) : 0;
        if (error)
            give(pump, dial, FAILED, error);
        else if (far & EPOLLOUT) {
            happened_to(&dial->pair.side[1], far); /* it may have spoken, too */
            reached(pump, dial, dial->pair.said, dial->pair.said_size, true);
        }
    }
}

/* What is due now; true: there is something that will be. */
bool dials_tick(Pump *pump)
{
    Dials *dials = pump->dials;
    Dial *dial;
    if (dials == NULL || !(dials->in[WAITING] || dials->in[CONNECTING] || dials->in[DIALLING]))
        return false;
    int64_t at = now();
    while ((dial = first_of(dials, CONNECTING)) != NULL && dial->due <= at)
        missed(pump, dial, ETIMEDOUT);
    while ((dial = first_of(dials, DIALLING)) != NULL && dial->due <= at)
        give(pump, dial, FAILED, ETIMEDOUT);
    next_tickets(pump);
    return true;
}

/* -- Python is told */

static PyObject *dial_row(const Told *told, int64_t time)
{
    const Dial *dial = (const Dial *)told->made;
    const Pair *pair = &dial->pair;
    unsigned number = (unsigned)pair->number;
    double age = pair->came ? (double)(time - pair->came) / SECOND : 0.0;
    double until_open = (double)(pair->opened - pair->came) / SECOND;
    PyObject *row;
    switch (dial->what) {
    case MISSED:
        row = Py_BuildValue("iIIi", dial->what, dial->owner, number, dial->error);
        break;
    case RUNS:
        row = Py_BuildValue("iIIIddKii", dial->what, dial->owner, number, dial->goal, until_open, age,
                            (unsigned long long)told->handle, NEAR(dial), FAR(dial));
        break;
    case CLOSED:
        row = Py_BuildValue("iIIIddiiKK", dial->what, dial->owner, number, dial->goal, until_open,
                            (double)(pair->ended - pair->came) / SECOND, told->news & CUT ? pair->cut_side : -1,
                            pair->cut_error, (unsigned long long)atomic_load(&pair->side[1].taken),
                            (unsigned long long)atomic_load(&pair->side[0].taken));
        break;
    default:
        row = Py_BuildValue("iIIdiiy#", dial->what, dial->owner, number, age, dial->error, NEAR(dial),
                            pair->said == NULL ? "" : pair->said, (Py_ssize_t)pair->said_size);
    }
    return row == NULL ? NULL : Py_BuildValue("(KIiiN)", (unsigned long long)told->handle, told->news, 0, 0, row);
}

/* Whatever it is, it is Python's from now on. */
static void dial_told(Pump *pump, Thing *thing, Told *told)
{
    Dial *dial = (Dial *)thing;
    told->row = dial_row;
    told->made = &dial->pair;
    dial->pair.made = false;
    leave(&dial->pair.young);
    in_no_ring(pump->dials, dial);
    if (thing->kind == &opened)
        dial->what = thing->over ? CLOSED : RUNS;
    if (dial->what == RUNS) {
        thing->kind = &joined;
        for (int which = 0; which < 2; which++)
            set(dial->pair.side[which].fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, LOWAT);
        return;
    }
    detach(pump, thing);
    told->gone = thing;
}

static const Kind dialled = {dial_happened, dial_turn, dial_told, free_pair, NULL};
static const Kind opened = {pair_happened, pair_turn, dial_told, free_pair, NULL};

/* -- Python's methods */

static bool read_place(Place *place, const char *host, int port, unsigned scope, int within)
{
    memset(place, 0, sizeof *place);
    place->within = within;
    if (inet_pton(AF_INET, host, &place->address.four.sin_addr) == 1) {
        place->address.four.sin_family = AF_INET;
        place->address.four.sin_port = htons((uint16_t)port);
        place->size = sizeof place->address.four;
    } else if (inet_pton(AF_INET6, host, &place->address.six.sin6_addr) == 1) {
        place->address.six.sin6_family = AF_INET6;
        place->address.six.sin6_port = htons((uint16_t)port);
        place->address.six.sin6_scope_id = scope;
        place->size = sizeof place->address.six;
    } else {
        PyErr_Format(PyExc_ValueError, "%s is no address", host);
        return false;
    }
    return true;
}

static bool has_dials(Pump *pump)
{
    if (pump->dials == NULL)
        PyErr_SetString(PyExc_RuntimeError, "dial_limits comes first");
    return pump->dials != NULL;
}

PyDoc_STRVAR(dial_limits_doc, "dial_limits((connects, seconds), (dials, seconds), (first, turn, calm, pool))\n\n"
    "How many tickets and goals are dialled at once, and for how long; then as of RelayLimits. It comes first.");

static PyObject *pump_dial_limits(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Py_ssize_t connects, dials, first, most, calm, pool;
    double connect, dial;
    if (!PyArg_ParseTuple(args, "(nd)(nd)(nnnn):dial_limits", &connects, &connect, &dials, &dial, &first, &most,
                          &calm, &pool))
        return NULL;
    Dials *own = pump->dials == NULL ? calloc(1, sizeof *own) : pump->dials;
    if (own == NULL)
        return PyErr_NoMemory();
    for (int number = 0; pump->dials == NULL && number < RINGS; number++)
        ring(&own->rings[number]);
    take_lock(pump);
    own->most_connects = (size_t)connects;
    own->most_dials = (size_t)dials;
    own->connect = (int64_t)(connect * SECOND);
    own->dial = (int64_t)(dial * SECOND);
    own->first = (size_t)first;
    own->most = (size_t)most;
    own->calm = (size_t)calm;
    own->pool = (size_t)pool;
    pump->dials = own;
    release(pump);
    Py_RETURN_NONE;
}

static bool read_goal(Goal *goal, PyObject *row)
{
    const char *frame, *host;
    Py_ssize_t size;
    int port, within;
    unsigned scope;
    if (!PyArg_ParseTuple(row, "Iy#(siIp):allow_goals", &goal->id, &frame, &size, &host, &port, &scope, &within) ||
        !read_place(&goal->place, host, port, scope, within))
        return false;
    if (size < 1 || (size_t)size > sizeof goal->connect) {
        PyErr_SetString(PyExc_ValueError, "no CONNECT is that long");
        return false;
    }
    memcpy(goal->connect, frame, goal->size = (size_t)size);
    return true;
}

PyDoc_STRVAR(allow_doc, "allow_goals([(id, frame of CONNECT, (address, port, scope, within)), ...])\n\n"
    "What may be dialled from now on, and nothing else; nothing, if that fails.");

static PyObject *pump_allow(PyObject *self, PyObject *goals)
{
    Pump *pump = (Pump *)self;
    Py_ssize_t count = has_dials(pump) ? PyList_Size(goals) : -1;
    if (count < 0)
        return NULL;
    Goal *fresh = calloc((size_t)count + 1, sizeof *fresh);
    bool good = fresh != NULL;
    for (Py_ssize_t number = 0; good && number < count; number++)
        good = read_goal(&fresh[number], PyList_GetItem(goals, number));
    take_lock(pump);
    Goal *before = pump->dials->goals;
    pump->dials->goals = fresh;
    pump->dials->size = good ? (size_t)count : 0; /* what was allowed before is not, whatever this is */
    release(pump);
    free(before);
    if (good)
        Py_RETURN_NONE;
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

static bool add_ticket(Pump *pump, uint32_t owner, const Place *to, const char *ticket, int64_t due)
{
    Dials *dials = pump->dials;
    Dial *dial = calloc(1, sizeof *dial);
    uint32_t number;
    if (dial == NULL)
        return false;
    begin_pair(&dial->pair, &dialled, dials->first, dials->most, dials->calm, dials->pool);
    begin_side(&dial->pair.side[0], -1, 0, 0, dial->pair.first);
    begin_side(&dial->pair.side[1], -1, 0, 0, dial->pair.first);
    memcpy(dial->ticket, ticket, TICKET);
    memcpy(&number, ticket, sizeof number);
    dial->pair.number = ntohl(number);
    dial->pair.made = true;
    dial->owner = owner;
    dial->place = *to;
    dial->due = due;
    ring(&dial->link);
    if (!place(pump, &dial->pair.thing)) {
        free(dial);
        return false;
    }
    enter(dials, dial, WAITING);
    return true;
}

PyDoc_STRVAR(bring_doc, "bring(owner, (address, port, scope, within), tickets, seconds) -> int\n\n"
    "Bring a data socket for each ticket of 16 bytes that is begun within so many seconds; for how many: there is\n"
    "no memory for those behind.");

static PyObject *pump_bring(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    unsigned owner, scope;
    const char *host, *tickets;
    int port, within;
    Py_ssize_t size, count = 0;
    double until;
    Place place;
    if (!PyArg_ParseTuple(args, "I(siIp)y#d:bring", &owner, &host, &port, &scope, &within, &tickets, &size, &until) ||
        !has_dials(pump) || !read_place(&place, host, port, scope, within))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    acquire(pump);
    int64_t due = now() + (int64_t)(until * SECOND);
    while ((count + 1) * TICKET <= size && add_ticket(pump, owner, &place, tickets + count * TICKET, due))
        count++;
    release(pump);
    wake(pump);
    Py_END_ALLOW_THREADS
    return PyLong_FromSsize_t(count);
}

PyDoc_STRVAR(dial_counts_doc, "dial_counts() -> all, used\n\nHow many there are, and those that have been asked for a goal, at least.");

static PyObject *pump_dial_counts(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    size_t all = 0, used = 0;
    if (pump->dials != NULL) {
        take_lock(pump);
        for (int number = 0; number < RINGS; number++)
            all += pump->dials->in[number];
        used = pump->dials->in[DIALLING] + pump->dials->in[OPEN] + pump->dials->in[TOLD];
        release(pump);
    }
    return Py_BuildValue("(nn)", (Py_ssize_t)all, (Py_ssize_t)used);
}

/* One of a ring is Python's again, or nobody's: true. */
static bool take_back(Pump *pump, Dial *dial)
{
    if (dial->ring == OPEN) {
        tell(pump, &dial->pair.thing, OPENED);
    } else if (dial->ring == PARKED || dial->ring == DIALLING) {
        give(pump, dial, dial->ring == PARKED ? IDLE : TAKEN, 0);
    } else {
        in_no_ring(pump->dials, dial);
        detach(pump, &dial->pair.thing);
        free_pair(&dial->pair.thing);
        return true;
    }
    return false;
}

PyDoc_STRVAR(withdraw_doc, "withdraw(owner, number, used) -> int\n\n"
    "Give back what is there of an owner, and of a number (-1: any), those that are used too or not; how many were\n"
    "not connected yet and are nobody's. What is given back is taken as news.");

static PyObject *pump_withdraw(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Py_ssize_t owner, number, vanished = 0;
    int used;
    if (!PyArg_ParseTuple(args, "nnp:withdraw", &owner, &number, &used) || !has_dials(pump))
        return NULL;
    take_lock(pump);
    for (int ring = WAITING; ring <= (used ? OPEN : PARKED); ring++) {
        Link *head = &pump->dials->rings[ring], *behind;
        for (Link *link = head->behind; link != head; link = behind) {
            Dial *dial = DIAL_OF(link);
            behind = link->behind;
            if ((owner < 0 || dial->owner == (uint32_t)owner) && (number < 0 || dial->pair.number == (uint64_t)number))
                vanished += take_back(pump, dial);
        }
    }
    next_tickets(pump);
    release(pump);
    return PyLong_FromSsize_t(vanished);
}

PyDoc_STRVAR(keep_alive_doc, "keep_alive_dials()\n\nHave the kernel ask whether those that wait are alive.");

static PyObject *pump_keep_alive(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    if (!has_dials(pump))
        return NULL;
    take_lock(pump);
    Link *head = &pump->dials->rings[PARKED];
    for (Link *link = head->behind; link != head; link = link->behind) {
        Dial *dial = DIAL_OF(link);
        if (dial->alive)
            continue;
        dial->alive = true;
        set(NEAR(dial), SOL_SOCKET, SO_KEEPALIVE, 1);
        set(NEAR(dial), IPPROTO_TCP, TCP_KEEPIDLE, 25);
        set(NEAR(dial), IPPROTO_TCP, TCP_KEEPINTVL, 5);
        set(NEAR(dial), IPPROTO_TCP, TCP_KEEPCNT, 4);
    }
    release(pump);
    Py_RETURN_NONE;
}

PyMethodDef dial_methods[] = {
    {"dial_limits", pump_dial_limits, METH_VARARGS, dial_limits_doc},
    {"allow_goals", pump_allow, METH_O, allow_doc},
    {"bring", pump_bring, METH_VARARGS, bring_doc},
    {"withdraw", pump_withdraw, METH_VARARGS, withdraw_doc},
    {"dial_counts", pump_dial_counts, METH_NOARGS, dial_counts_doc},
    {"keep_alive_dials", pump_keep_alive, METH_NOARGS, keep_alive_doc},
    {NULL, NULL, 0, NULL},
};

void dials_free(Pump *pump)
{
    if (pump->dials == NULL)
        return;
    free(pump->dials->goals);
    free(pump->dials);
}
