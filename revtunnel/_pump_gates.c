/* Gates: listening sockets for agents that Python has lent, where data sockets come with their tickets.

The rules are those of daemons/link_admission.py: a connection that has said ATTACH with a good ticket, and no
byte more, waits from now on among the data sockets that the ticket is for (_pump_doors.c, a stock). Whoever says
anything else, or nothing yet, is Python's: the connection is given up to it (GIVEN) with nothing read. A ticket
is good once, before its time, at the listeners that it was made for (its scope), from the address that the
agent has, and while there is memory; any other is Python's to judge.

Tickets are looked up by their random bytes, and compared in a time that says nothing of how much is right.
Python is told which were used, in batches, and forgets them then; who withdraws some hears which those are.

Source: wire/link-extension.md "Data sockets"; daemons/link_admission.py; ours. */

#include "_pump.h"

#include <netinet/in.h>

#define TICKET 16
#define SECRET 4          /* where its random bytes begin: before them is its number */
#define ATTACH "\0\x10\x1b\0"
#define HEAD (4 + TICKET)
#define AT_ONCE 16        /* connections in one turn */

typedef struct {
    uint8_t ticket[TICKET];
    uint8_t source[16]; /* an IPv6 address, or an IPv4 one as one */
    uint64_t stock;     /* 0: nothing is here */
    uint32_t scope;
    int64_t until;
} Entry;

struct Tickets {
    Entry *entries;
    uint32_t size, count; /* size: a power of two, at least twice as many */
    uint8_t (*came)[TICKET];
    uint32_t came_count, came_size;
};

typedef struct {
    Acceptor at;
    uint32_t scope;
} Gate;

static const Kind gate_kind, stranger;

/* -- the table */

static uint32_t place_of(const Tickets *tickets, const uint8_t *ticket)
{
    uint32_t hash;
    memcpy(&hash, ticket + SECRET, sizeof hash);
    return hash & (tickets->size - 1);
}

static bool same(const uint8_t *one, const uint8_t *other)
{
    uint8_t differs = 0;
    for (int i = 0; i < TICKET; i++)
        differs |= one[i] ^ other[i];
    return differs == 0;
}

static Entry *entry_of(Tickets *tickets, const uint8_t *ticket)
{
    if (tickets->count == 0)
        return NULL;
    for (uint32_t at = place_of(tickets, ticket);; at = (at + 1) & (tickets->size - 1)) {
        Entry *entry = &tickets->entries[at];
        if (entry->stock == 0 || same(entry->ticket, ticket))
            return entry->stock ? entry : NULL;
    }
}

static void insert(Tickets *tickets, const Entry *entry)
{
    uint32_t at = place_of(tickets, entry->ticket);
    while (tickets->entries[at].stock)
        at = (at + 1) & (tickets->size - 1);
    tickets->entries[at] = *entry;
    tickets->count++;
}

static bool add_entry(Tickets *tickets, const Entry *entry)
{
    if (tickets->count * 2 >= tickets->size) {
        Tickets larger = {.size = tickets->size ? tickets->size * 2 : 64};
        larger.entries = calloc(larger.size, sizeof *larger.entries);
        if (larger.entries == NULL)
            return false;
        for (uint32_t at = 0; at < tickets->size; at++)
            if (tickets->entries[at].stock)
                insert(&larger, &tickets->entries[at]);
        free(tickets->entries);
        tickets->entries = larger.entries;
        tickets->size = larger.size;
    }
    insert(tickets, entry);
    return true;
}

/* Take one out; those behind it that it was in the way of move up. */
static void take_out(Tickets *tickets, Entry *entry)
{
    uint32_t mask = tickets->size - 1, hole = (uint32_t)(entry - tickets->entries), at = hole;
    for (;;) {
        at = (at + 1) & mask;
        Entry *next = &tickets->entries[at];
        if (next->stock == 0)
            break;
        if (((at - place_of(tickets, next->ticket)) & mask) >= ((at - hole) & mask)) {
            tickets->entries[hole] = *next;
            hole = at;
        }
    }
    tickets->entries[hole].stock = 0;
    tickets->count--;
}

/* Room for one more that came; false: no memory. */
static bool room_for_one(Tickets *tickets)
{
    if (tickets->came_count < tickets->came_size)
        return true;
    uint32_t size = tickets->came_size ? tickets->came_size * 2 : 64;
    void *came = realloc(tickets->came, size * sizeof *tickets->came);
    if (came == NULL)
        return false;
    tickets->came = came;
    tickets->came_size = size;
    return true;
}

void tickets_free(Pump *pump)
{
    if (pump->tickets == NULL)
        return;
    free(pump->tickets->entries);
    free(pump->tickets->came);
    free(pump->tickets);
}

/* -- connections come */

static bool is_from(const struct sockaddr_storage *name, const uint8_t source[16])
{
    struct in6_addr six = {0};
    if (name->ss_family == AF_INET) {
        six.s6_addr[10] = six.s6_addr[11] = 0xff;
        memcpy(&six.s6_addr[12], &((const struct sockaddr_in *)name)->sin_addr, 4);
    } else if (name->ss_family == AF_INET6) {
        six = ((const struct sockaddr_in6 *)name)->sin6_addr;
    }
    return memcmp(&six, source, sizeof six) == 0;
}

/* The ticket that a connection has shown, if it is good here; nothing of it is read. */
static Entry *shown(Pump *pump, Gate *gate, int fd, const struct sockaddr_storage *name, int64_t time)
{
    uint8_t head[HEAD + 1];
    ssize_t size = recv(fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
    if (size != HEAD || memcmp(head, ATTACH, 4) != 0)
        return NULL;
    Entry *entry = entry_of(pump->tickets, head + 4);
    bool good = entry != NULL && entry->scope == gate->scope && time < entry->until && is_from(name, entry->source);
    return good ? entry : NULL;
}

/* It waits for a client from now on; false: it does not, and nothing has changed. */
static bool let_in(Pump *pump, Gate *gate, Entry *entry, Pair *pair, int fd, int64_t time)
{
    Tickets *tickets = pump->tickets;
    uint8_t head[HEAD];
    uint32_t number;
    memcpy(&number, entry->ticket, sizeof number);
    bool was_dry = false;
    if (!room_for_one(tickets) || !stock_takes(pump, entry->stock, pair, fd, ntohl(number), time, &was_dry))
        return false;
    if (recv(fd, head, HEAD, MSG_DONTWAIT) != HEAD)
        ; /* it was there a moment ago: what is left of it is told of as of any data socket that speaks */
    memcpy(tickets->came[tickets->came_count++], entry->ticket, TICKET);
    take_out(tickets, entry);
    tell_later(pump, &gate->at.thing, 0);
    pump->tell = pump->tell || was_dry;
    return true;
}

static void judge(Pump *pump, Acceptor *at, int fd, const struct sockaddr_storage *name, Pair *pair)
{
    Gate *gate = (Gate *)at;
    int64_t time = now();
    Entry *entry = shown(pump, gate, fd, name, time);
    if (entry != NULL && let_in(pump, gate, entry, pair, fd, time))
        return;
    begin_pair(pair, &stranger, 0, 0, 0, 0);
    begin_side(&pair->side[0], fd, 0, 0, RECORD);
    pair->came = pair->ended = time;
    pair->name = *name;
    pair->made = true;
    pair->maker = at->thing.handle;
    at->unfetched++;
    tell(pump, &pair->thing, GIVEN);
}

static void gate_turn(Pump *pump, Thing *thing)
{
    accept_some(pump, (Acceptor *)thing, &stranger, AT_ONCE, NULL, judge);
}

static void free_gate(Thing *thing) { free(thing); }

static void nothing(Pump *pump, Thing *thing, int side, uint32_t events) {}

static void no_turn(Pump *pump, Thing *thing) {}

static void stranger_told(Pump *pump, Thing *thing, Told *told)
{
    Pair *pair = (Pair *)thing;
    Gate *gate = (Gate *)find(pump, pair->maker);
    told->news |= GIVEN;
    told->made = pair;
    told->gone = thing;
    pair->made = false;
    if (gate != NULL && gate->at.thing.kind == &gate_kind && was_unfetched(&gate->at))
        stand(pump, &gate->at, false);
}

static const Kind gate_kind = {acceptor_happened, gate_turn, acceptor_told, free_gate, NULL};
static const Kind stranger = {nothing, no_turn, stranger_told, free_pair, NULL};

/* -- Python's */

PyDoc_STRVAR(gate_doc, "gate(fd, scope) -> handle\n\n"
    "Accept data sockets with tickets of that scope at a listening socket, which stays the caller's; all others are\n"
    "given up. Its news are that tickets were used, which ``came`` says; with UNABLE: it accepts nobody any more.");

static PyObject *pump_gate(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    int fd, error = ENOMEM;
    unsigned scope;
    if (!PyArg_ParseTuple(args, "iI:gate", &fd, &scope))
        return NULL;
    if (pump->tickets == NULL)
        pump->tickets = calloc(1, sizeof *pump->tickets);
    Gate *gate = pump->tickets == NULL ? NULL : calloc(1, sizeof *gate);
    if (gate != NULL) {
        begin_acceptor(&gate->at, &gate_kind, fd);
        gate->scope = scope;
        take_lock(pump);
        error = lend_acceptor(pump, &gate->at);
        uint64_t handle = gate->at.thing.handle;
        release(pump);
        if (!error)
            return PyLong_FromUnsignedLongLong(handle);
        free_gate(&gate->at.thing);
    }
    return raised(error);
}

PyDoc_STRVAR(close_gate_doc, "close_gate(gate)\n\nAccept nobody there any more.");

static PyObject *pump_close_gate(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Thing *thing = thing_given(pump, handle, &gate_kind, "no such gate");
    if (thing == NULL)
        return NULL;
    take_lock(pump);
    take_acceptor(pump, (Acceptor *)thing);
    release(pump);
    free_gate(thing);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(expect_doc, "expect(scope, stock, source, seconds, tickets) -> int\n\n"
    "Let data sockets with these tickets (16 bytes each) in for so long, from that address (16 bytes, of IPv6).\n"
    "How many will be: those behind are not known here, for want of memory.");

static PyObject *pump_expect(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Py_buffer source, tickets;
    unsigned long long stock;
    unsigned scope;
    double seconds;
    if (!PyArg_ParseTuple(args, "IKy*dy*:expect", &scope, &stock, &source, &seconds, &tickets))
        return NULL;
    Entry entry = {.stock = stock, .scope = scope, .until = now() + (int64_t)(seconds * 1e9)};
    Py_ssize_t count = pump->tickets == NULL || source.len != sizeof entry.source ? 0 : tickets.len / TICKET, done = 0;
    if (count)
        memcpy(entry.source, source.buf, sizeof entry.source);
    take_lock(pump);
    for (; done < count; done++) {
        memcpy(entry.ticket, (const char *)tickets.buf + done * TICKET, TICKET);
        if (!add_entry(pump->tickets, &entry))
            break;
    }
    release(pump);
    PyBuffer_Release(&source);
    PyBuffer_Release(&tickets);
    return PyLong_FromSsize_t(done);
}

PyDoc_STRVAR(unexpect_doc, "unexpect(tickets) -> bytes\n\n"
    "These, BATCH at most, are not good here any more. Those of them that were used, of which ``came`` has not told.");

static PyObject *pump_unexpect(PyObject *self, PyObject *argument)
{
    Pump *pump = (Pump *)self;
    char *tickets;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(argument, &tickets, &size) < 0)
        return NULL;
    char used[BATCH * TICKET];
    Py_ssize_t count = 0;
    size = size < (Py_ssize_t)sizeof used ? size : (Py_ssize_t)sizeof used;
    take_lock(pump);
    for (Py_ssize_t at = 0; pump->tickets != NULL && at + TICKET <= size; at += TICKET) {
        const uint8_t *ticket = (const uint8_t *)tickets + at;
        Entry *entry = entry_of(pump->tickets, ticket);
        bool came = false;
        if (entry != NULL)
            take_out(pump->tickets, entry);
        else
            for (uint32_t i = 0; i < pump->tickets->came_count && !came; i++)
                came = same(pump->tickets->came[i], ticket);
        if (came) {
            memcpy(used + count, ticket, TICKET);
            count += TICKET;
        }
    }
    release(pump);
    return PyBytes_FromStringAndSize(used, count);
}

PyDoc_STRVAR(came_doc, "came() -> bytes\n\nThe tickets that were used since the last time, in that order.");

static PyObject *pump_came(PyObject *self, PyObject *unused)
{
    Pump *pump = (Pump *)self;
    uint8_t(*came)[TICKET] = NULL;
    uint32_t count = 0;
    take_lock(pump);
    if (pump->tickets != NULL) {
        came = pump->tickets->came;
        count = pump->tickets->came_count;
        pump->tickets->came = NULL;
        pump->tickets->came_count = pump->tickets->came_size = 0;
    }
    release(pump);
    PyObject *found = PyBytes_FromStringAndSize((const char *)came, (Py_ssize_t)count * TICKET);
    free(came);
    return found;
}

PyMethodDef gate_methods[] = {
    {"gate", pump_gate, METH_VARARGS, gate_doc},
    {"close_gate", pump_close_gate, METH_O, close_gate_doc},
    {"expect", pump_expect, METH_VARARGS, expect_doc},
    {"unexpect", pump_unexpect, METH_O, unexpect_doc},
    {"came", pump_came, METH_NOARGS, came_doc},
    {NULL, NULL, 0, NULL},
};
