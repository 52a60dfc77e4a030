/* The data plane: joined sockets whose bytes a thread moves without Python. This file: Python's methods.

Pairs that Python joined are watched, moved (_pump_pairs.c), and told of when they have ended or were cut; Python
takes them back and closes. So no number ever belongs to another connection while a pair has it. What is made
here has its own descriptors until Python is told of it, and the same holds.

Counters are atomic and read without the lock. What the thread does, and the lock, is _pump_table.c's.

Source: sockets/data_plane.py; ours. */

#include "_pump.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/eventfd.h>

void take_lock(Pump *pump)
{
    Py_BEGIN_ALLOW_THREADS
    acquire(pump);
    Py_END_ALLOW_THREADS
}

/* What is in a slot, if it is of a kind; NULL: it is not, and KeyError says so in these words. */
Thing *thing_of(Pump *pump, uint64_t handle, const Kind *kind, const char *missing)
{
    Thing *thing = find(pump, handle);
    if (thing != NULL && thing->kind == kind)
        return thing;
    PyErr_SetString(PyExc_KeyError, missing);
    return NULL;
}

/* The same for a handle that is Python's. */
Thing *thing_given(Pump *pump, PyObject *handle, const Kind *kind, const char *missing)
{
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    return PyErr_Occurred() ? NULL : thing_of(pump, number, kind, missing);
}

PyObject *raised(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static void stop_thread(Pump *pump)
{
    uint64_t one;
    if (pump->runs_in != getpid())
        return; /* behind a fork there is none */
    atomic_store(&pump->stopping, true);
    wake(pump);
    Py_BEGIN_ALLOW_THREADS
    pthread_join(pump->thread, NULL);
    Py_END_ALLOW_THREADS
    if (read(pump->wake_fd, &one, sizeof one) < 0)
        ; /* the thread has read it */
    pump->runs_in = 0;
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
    ring(&pump->young);
    ring(&pump->held_back);
    ring(&pump->dry);
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

static void pump_dealloc(PyObject *self)
{
    Pump *pump = (Pump *)self;
    PyTypeObject *type = Py_TYPE(self);
    stop_thread(pump);
    while (!in_none(&pump->told)) { /* those without a slot */
        Thing *thing = THING_OF(pump->told.behind, told);
        leave(&thing->told);
        if (thing->handle == 0)
            thing->kind->destroy(thing);
    }
    for (uint32_t number = 0; number < pump->size; number++)
        if (pump->slots[number].thing != NULL)
            pump->slots[number].thing->kind->destroy(pump->slots[number].thing);
    dials_free(pump);
    tickets_free(pump);
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

PyDoc_STRVAR(join_doc, "join(near, far, limits) -> handle\n\n"
    "Move bytes between two sockets from now on, each (fd, state, taken, held bytes for it, its SSL object's\n"
    "address or 0).\n"
    "limits: first, turn, calm, pool as of RelayLimits.");

typedef struct {
    int fd;
    unsigned state;
    unsigned long long taken;
    Py_buffer held;
    unsigned long long ssl;
} Given;

static int add(Pump *pump, Pair *pair, const Given given[2])
{
    if (!place(pump, &pair->thing))
        return ENOMEM;
    for (int which = 0; which < 2; which++) /* both, before one can fail: they are forgotten by their descriptors */
        begin_side(&pair->side[which], given[which].fd, given[which].state, given[which].taken, pair->first);
    for (int which = 0; which < 2; which++) {
        Side *side = &pair->side[which];
        side->ssl = (void *)(uintptr_t)given[which].ssl;
        side->readable = side->ssl != NULL; /* no event tells what the engine has found already */
    }
    for (int which = 0; which < 2; which++) {
        const Given *of = &given[which];
        if (of->held.len && !hold(pump, &pair->side[which], of->held.buf, (size_t)of->held.len))
            return ENOMEM;
    }
    for (int which = 0; which < 2; which++)
        if (watch(pump, &pair->thing, which, pair->side[which].fd, CHANGES) < 0)
            return errno;
    return 0;
}

static PyObject *pump_join(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Given near, far;
    Py_ssize_t first, most, calm, pool;
    if (!PyArg_ParseTuple(args, "(iIKy*K)(iIKy*K)(nnnn):join", &near.fd, &near.state, &near.taken, &near.held,
                          &near.ssl, &far.fd, &far.state, &far.taken, &far.held, &far.ssl, &first, &most, &calm, &pool))
        return NULL;
    Pair *pair = new_pair(&joined, (size_t)first, (size_t)most, (size_t)calm, (size_t)pool);
    uint64_t handle = 0;
    int error = ENOMEM;
    if (pair != NULL) {
        take_lock(pump);
        error = add(pump, pair, (Given[]){near, far});
        handle = pair->thing.handle;
        if (error)
            forget(pump, pair);
        release(pump);
        if (error)
            free_pair(&pair->thing);
    }
    PyBuffer_Release(&near.held);
    PyBuffer_Release(&far.held);
    if (!error)
        return PyLong_FromUnsignedLongLong(handle);
    return raised(error);
}

static Pair *found(Pump *pump, PyObject *handle)
{
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred())
        return NULL;
    Thing *thing = find(pump, number);
    if (thing == NULL || thing->kind != &joined || ((Pair *)thing)->made) {
        PyErr_SetString(PyExc_KeyError, "no such pair");
        return NULL;
    }
    return (Pair *)thing;
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
    forget(pump, pair);
    release(pump);
    for (int which = 0; which < 2; which++) {
        Side *side = &pair->side[which];
        note(side);
        sides[which] = Py_BuildValue("(KKIy#)", (unsigned long long)atomic_load(&side->taken),
                                     (unsigned long long)side->lost, atomic_load(&side->state),
                                     side->held == NULL ? "" : side->held + side->held_at,
                                     (Py_ssize_t)(side->held_end - side->held_at));
    }
    free_pair(&pair->thing);
    if (sides[0] == NULL || sides[1] == NULL) {
        Py_XDECREF(sides[0]);
        Py_XDECREF(sides[1]);
        return NULL;
    }
    return Py_BuildValue("(NN)", sides[0], sides[1]);
}

static PyObject *name_of(const struct sockaddr_storage *name)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (name->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)name;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        return Py_BuildValue("(si)", host, ntohs(four->sin_port));
    }
    if (name->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)name;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        return Py_BuildValue("(siII)", host, ntohs(six->sin6_port), ntohl(six->sin6_flowinfo), six->sin6_scope_id);
    }
    Py_RETURN_NONE;
}

static double seconds(int64_t from, int64_t to) { return from && to ? (double)(to - from) / 1e9 : -1.0; }

/* A row for Python; of a pair that was made here with all that was kept of it. */
static PyObject *row_of(const Told *told, int64_t time)
{
    const Pair *pair = told->made;
    if (told->row != NULL)
        return told->row(told, time);
    if (pair == NULL)
        return Py_BuildValue("(KIii)", (unsigned long long)told->handle, told->news, told->side, told->error);
    const Side *near = &pair->side[0], *far = &pair->side[1];
    return Py_BuildValue("(KIiiKK(ii)(KK)(ddd)Ny#y#n)", (unsigned long long)told->handle, told->news, told->side,
                         told->error, (unsigned long long)pair->maker, (unsigned long long)pair->number,
                         near->fd, far->fd, (unsigned long long)atomic_load(&near->taken),
                         (unsigned long long)atomic_load(&far->taken), seconds(pair->came, time),
                         seconds(pair->came, pair->opened), seconds(pair->came, pair->ended),
                         name_of(&pair->name), pair->said == NULL ? "" : pair->said, (Py_ssize_t)pair->said_size,
                         pair->heard == NULL ? "" : pair->heard, (Py_ssize_t)pair->heard_size,
                         (Py_ssize_t)atomic_load(&far->waiting));
}

/* Python has no memory for a row, and never knows of it: what it was told of is cut. */
static void lose(Pump *pump, Told *told)
{
    PyErr_WriteUnraisable(NULL);
    if (told->made == NULL)
        return;
    told->made->made = true;
    if (told->gone == NULL) {
        take_lock(pump);
        forget(pump, told->made);
        release(pump);
        told->gone = &told->made->thing;
    }
}

PyDoc_STRVAR(take_doc, "take(all) -> [(handle, news, side, errno), ...]\n\n"
    "What happened since the last time, when the descriptor is readable. CUT has a side (0 near, 1 far). The first\n"
    "row of a pair that was made here goes on: what made it, the number of its data socket, its descriptors (-1:\n"
    "closed), bytes taken by either, seconds since it came, from there until it opened and ended (-1.0: not), who\n"
    "connected, what was said if it has not opened, what was heard, bytes that are held for far. With OPENED, and\n"
    "without an end, it is as if Python had joined it, from now on; with GIVEN it is not here any more.\n"
    "all: those that are young too.");

static PyObject *pump_take(PyObject *self, PyObject *all)
{
    Pump *pump = (Pump *)self;
    Told rows[BATCH];
    int count = 0, young = PyObject_IsTrue(all);
    uint64_t told;
    PyObject *list = young < 0 ? NULL : PyList_New(0); /* before what is told is told no more */
    if (list == NULL)
        return NULL;
    if (read(pump->told_fd, &told, sizeof told) < 0)
        ; /* nothing was told: the ring is the truth */
    take_lock(pump);
    if (young)
        tell_young(pump, true);
    while (count < BATCH && !in_none(&pump->told)) {
        Thing *thing = THING_OF(pump->told.behind, told);
        leave(&thing->told);
        rows[count] = (Told){.handle = thing->handle, .news = thing->news};
        thing->kind->told(pump, thing, &rows[count++]);
    }
    bool more = !in_none(&pump->told);
    release(pump);
    told = 1;
    if (more && write(pump->told_fd, &told, sizeof told) < 0)
        ; /* it is told already */
    int64_t time = now();
    for (int i = 0; i < count; i++) {
        PyObject *row = row_of(&rows[i], time);
        if (row == NULL || PyList_Append(list, row) < 0)
            lose(pump, &rows[i]);
        Py_XDECREF(row);
        if (rows[i].gone != NULL)
            rows[i].gone->kind->destroy(rows[i].gone);
    }
    return list;
}

PyDoc_STRVAR(turn_doc, "turn() -> bool\n\nWithout the thread: what is to be done now; True: there is more.");

static PyObject *pump_turn(PyObject *self, PyObject *nothing)
{
    Pump *pump = (Pump *)self;
    if (pump->runs_in) {
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
    if (pump->runs_in)
        Py_RETURN_NONE;
    atomic_store(&pump->stopping, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pump->thread, NULL, work, pump);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return raised(error);
    pump->runs_in = getpid();
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
    {"take", pump_take, METH_O, take_doc},
    {"turn", pump_turn, METH_NOARGS, turn_doc},
    {"start", pump_start, METH_NOARGS, start_doc},
    {"stop", pump_stop, METH_NOARGS, stop_doc},
    {"fileno", pump_fileno, METH_NOARGS, "fileno() -> int\n\nReadable when there is news."},
    {NULL, NULL, 0, NULL},
};

/* These and those of TLS, stocks, doors, gates and dials, one behind the other. */
static PyMethodDef *all_methods(void)
{
    static PyMethodDef all[48];
    const PyMethodDef *tables[] = {methods, tls_methods, stock_methods, door_methods, gate_methods, dial_methods};
    size_t count = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const PyMethodDef *each = tables[i]; each->ml_name != NULL; each++)
            all[count++] = *each;
    return all;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Pairs of sockets. Its methods are for one thread of Python's."},
    {Py_tp_new, pump_new},
    {Py_tp_dealloc, pump_dealloc},
    {Py_tp_methods, NULL},
    {0, NULL},
};

static PyType_Spec spec = {"revtunnel._pump.Pump", sizeof(Pump), 0, Py_TPFLAGS_DEFAULT, slots};

static int fill(PyObject *module)
{
    slots[3].pfunc = all_methods();
    PyObject *type = PyType_FromSpec(&spec);
    if (type == NULL || PyModule_AddObject(module, "Pump", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot parts[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "revtunnel._pump", "The data plane: pairs of sockets, moved without Python.", 0,
    NULL, parts, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__pump(void) { return PyModuleDef_Init(&definition); }
