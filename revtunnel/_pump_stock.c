/* Stocks: the data sockets of one agent that wait for clients, whom the doors of its device bring (_pump_doors.c).

The oldest goes first. One that waits says nothing: whatever it says, and its death, is Python's (GIVEN). What was
taken is told from time to time, and how full it was then is remembered, so that Python has it filled again.

Source: carriers/stock.py, carriers/warm_pool.py; ours. */

#include "_pump.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

static const Kind spare;

/* A spare one that has died, or said something. */
static void spare_told(Pump *pump, Thing *thing, Told *told)
{
    Pair *pair = (Pair *)thing;
    forget(pump, pair);
    told->news |= GIVEN;
    told->made = pair;
    told->gone = thing;
    pair->made = false;
}

/* The oldest data socket that waits. */
Pair *draw(Pump *pump, Stock *stock)
{
    if (in_none(&stock->spare))
        return NULL;
    Pair *pair = PAIR_OF(stock->spare.behind, kin);
    leave(&pair->kin);
    stock->count--;
    return pair;
}

static void spare_happened(Pump *pump, Thing *thing, int side, uint32_t events)
{
    Pair *pair = (Pair *)thing;
    happened_to(&pair->side[1], events);
    if (!(pair->side[1].readable || pair->side[1].over))
        return;
    Thing *stock = find(pump, pair->maker);
    leave(&pair->kin);
    if (stock != NULL && stock->kind == &stock_kind)
        ((Stock *)stock)->count--;
    give_up(pump, pair, 1, 0);
}

static void nothing(Pump *pump, Thing *thing, int side, uint32_t events) {}

static void no_turn(Pump *pump, Thing *thing) {}

static void stock_told(Pump *pump, Thing *thing, Told *told)
{
    Stock *stock = (Stock *)thing;
    told->side = (int)stock->used;
    stock->used = 0;
    stock->full = stock->count;
}

static void free_stock(Thing *thing) { free(thing); }

static const Kind spare = {spare_happened, no_turn, spare_told, free_pair, NULL};
const Kind stock_kind = {nothing, no_turn, stock_told, free_stock, NULL};

/* -- Python's */

PyDoc_STRVAR(stock_doc, "stock(first, turn, calm, pool) -> handle\n\nWhat the data sockets of one agent wait in; as for join.\n"
    "Its news have for ``side`` how many were taken since the last.");

static PyObject *pump_stock(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    Py_ssize_t first, most, calm, pool;
    if (!PyArg_ParseTuple(args, "nnnn:stock", &first, &most, &calm, &pool))
        return NULL;
    Stock *stock = calloc(1, sizeof *stock);
    if (stock == NULL)
        return raised(ENOMEM);
    begin_thing(&stock->thing, &stock_kind);
    ring(&stock->spare);
    stock->first = (size_t)first, stock->most = (size_t)most;
    stock->calm = (size_t)calm, stock->pool = (size_t)pool;
    take_lock(pump);
    bool placed = place(pump, &stock->thing);
    release(pump);
    if (placed)
        return PyLong_FromUnsignedLongLong(stock->thing.handle);
    free(stock);
    return raised(ENOMEM);
}

PyDoc_STRVAR(put_doc, "put(stock, [(fd, number), ...]) -> int\n\nHave data sockets wait there; how many do: their\n"
    "descriptors are the stock's. Those behind are the caller's still, for want of memory or of the kernel's.");

/* One more, under the lock, in a fresh pair; false: it is not, and the pair is the caller's. */
static bool put_one(Pump *pump, Stock *stock, Pair *pair, int fd, uint64_t number, int64_t time)
{
    begin_pair(pair, &spare, stock->first, stock->most, stock->calm, stock->pool);
    begin_side(&pair->side[1], fd, 0, 0, pair->first);
    if (!place(pump, &pair->thing) || watch(pump, &pair->thing, 1, fd, CHANGES) < 0) {
        detach(pump, &pair->thing);
        pair->thing.handle = 0;
        return false;
    }
    pair->maker = stock->thing.handle;
    pair->number = number;
    pair->came = time;
    pair->made = true;
    append(&stock->spare, &pair->kin);
    stock->count++;
    stock->full = stock->full < stock->count ? stock->count : stock->full;
    stock->filled = time;
    return true;
}

/* The same for a stock by its handle; ``was_dry``: nothing waited there. */
bool stock_takes(Pump *pump, uint64_t stock, Pair *pair, int fd, uint64_t number, int64_t time, bool *was_dry)
{
    Thing *thing = find(pump, stock);
    if (thing == NULL || thing->kind != &stock_kind)
        return false;
    *was_dry = ((Stock *)thing)->count == 0;
    return put_one(pump, (Stock *)thing, pair, fd, number, time);
}

static PyObject *pump_put(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    unsigned long long handle, numbers[BATCH];
    int fds[BATCH];
    PyObject *list;
    if (!PyArg_ParseTuple(args, "KO:put", &handle, &list))
        return NULL;
    Stock *stock = (Stock *)thing_of(pump, handle, &stock_kind, "no such stock");
    Py_ssize_t count = PySequence_Size(list), done = 0;
    if (stock == NULL || count < 0)
        return NULL;
    count = count < BATCH ? count : BATCH;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *each = PySequence_GetItem(list, i);
        bool good = each != NULL && PyArg_ParseTuple(each, "iK", &fds[i], &numbers[i]);
        Py_XDECREF(each);
        if (!good)
            return NULL;
    }
    take_lock(pump);
    int64_t time = now();
    for (; done < count; done++) {
        Pair *pair = new_pair(&spare, 0, 0, 0, 0);
        if (pair == NULL)
            break;
        if (!put_one(pump, stock, pair, fds[done], numbers[done], time)) {
            free_pair(&pair->thing);
            break;
        }
    }
    release(pump);
    return PyLong_FromSsize_t(done);
}

PyDoc_STRVAR(draw_doc, "draw(stock) -> (fd, number) or None\n\nTake back the oldest data socket that waits there.");

static PyObject *pump_draw(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Stock *stock = (Stock *)thing_given(pump, handle, &stock_kind, "no such stock");
    if (stock == NULL)
        return NULL;
    take_lock(pump);
    Pair *pair = draw(pump, stock);
    if (pair != NULL)
        forget(pump, pair);
    release(pump);
    if (pair == NULL)
        Py_RETURN_NONE;
    PyObject *found = Py_BuildValue("(iK)", pair->side[1].fd, (unsigned long long)pair->number);
    pair->made = found == NULL; /* else it is the caller's */
    free_pair(&pair->thing);
    return found;
}

PyDoc_STRVAR(stocked_doc, "stocked(stock) -> int\n\nData sockets that wait there.");

static PyObject *pump_stocked(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Stock *stock = (Stock *)thing_given(pump, handle, &stock_kind, "no such stock");
    if (stock == NULL)
        return NULL;
    take_lock(pump);
    uint32_t count = stock->count;
    release(pump);
    return PyLong_FromUnsignedLong(count);
}

PyDoc_STRVAR(keep_alive_doc, "keep_alive(stock, from, to, idle, interval, count)\n\n"
    "Set that (tcp(7)) of those that have waited there for so many seconds.");

static PyObject *pump_keep_alive(PyObject *self, PyObject *args)
{
    Pump *pump = (Pump *)self;
    unsigned long long handle;
    double from, to;
    int values[4] = {1};
    static const int levels[4] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_TCP, IPPROTO_TCP};
    static const int names[4] = {SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT};
    if (!PyArg_ParseTuple(args, "Kddiii:keep_alive", &handle, &from, &to, &values[1], &values[2], &values[3]))
        return NULL;
    Stock *stock = (Stock *)thing_of(pump, handle, &stock_kind, "no such stock");
    if (stock == NULL)
        return NULL;
    take_lock(pump);
    int64_t time = now();
    for (Link *link = stock->spare.behind; link != &stock->spare; link = link->behind) {
        Pair *pair = PAIR_OF(link, kin);
        double age = (double)(time - pair->came) / 1e9;
        for (int i = 0; age >= from && age < to && i < 4; i++)
            setsockopt(pair->side[1].fd, levels[i], names[i], &values[i], sizeof values[i]);
    }
    release(pump);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_stock_doc, "close_stock(stock)\n\nIt is empty, and no door has it.");

static PyObject *pump_close_stock(PyObject *self, PyObject *handle)
{
    Pump *pump = (Pump *)self;
    Thing *thing = thing_given(pump, handle, &stock_kind, "no such stock");
    if (thing == NULL)
        return NULL;
    take_lock(pump);
    bool empty = in_none(&((Stock *)thing)->spare) && ((Stock *)thing)->doors == 0;
    if (empty)
        detach(pump, thing);
    release(pump);
    if (!empty)
        return raised(EBUSY);
    free_stock(thing);
    Py_RETURN_NONE;
}

PyMethodDef stock_methods[] = {
    {"stock", pump_stock, METH_VARARGS, stock_doc},
    {"put", pump_put, METH_VARARGS, put_doc},
    {"draw", pump_draw, METH_O, draw_doc},
    {"stocked", pump_stocked, METH_O, stocked_doc},
    {"keep_alive", pump_keep_alive, METH_VARARGS, keep_alive_doc},
    {"close_stock", pump_close_stock, METH_O, close_stock_doc},
    {NULL, NULL, 0, NULL},
};
