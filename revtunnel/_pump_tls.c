/* Sides of pairs that speak TLS: records are read and written by OpenSSL, the very one that pyOpenSSL has.

The rules are those of TlsEnd in sockets/ends.py, which is the specification: an end in order is a close_notify,
a FIN without one is a cut, and the directions end independently. Handshakes are Python's; its SSL object works
on the socket itself, belongs to the pair while that is here, and is nobody else's meanwhile. Nothing is linked:
Python says where the functions are (sockets/tls_records.py), once.

A reading takes whole records while there is room for one, so that nothing decrypted stays in the engine, and
RECORDS at most; what it finds behind good bytes is kept for the next. What a write was refused is repeated with
the same bytes first. The thread has its own queue of errors, emptied before each call that may read from it.

What went wrong is an errno, HUNG_UP, or OpenSSL's own number, which is greater than any errno.

Source: sockets/ends.py, sockets/tls_records.py; OpenSSL's SSL_read(3), SSL_write(3), SSL_get_error(3). */

#include "_pump.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

enum { SSL_FAULT = 1, WANTS_READ = 2, WANTS_WRITE = 3, SYSTEM_FAULT = 5, ENDED = 6 }; /* of SSL_get_error(3) */
enum { SENT_SHUTDOWN = 1 };
#define RECORDS (LARGEST / RECORD) /* of one reading: small ones take time without filling it */
#define HUNG_UP (-1) /* a FIN without close_notify, as in tls_records.py */
#define SYSTEM_FLAG (1ul << 31) /* of an error number: the rest is an errno */
#define REASON 0x7FFFFFul       /* the bits of its reason */

static struct {
    int (*read)(void *ssl, void *data, int size);
    int (*write)(void *ssl, const void *data, int size);
    int (*shutdown)(void *ssl);
    int (*get_shutdown)(const void *ssl);
    int (*get_error)(const void *ssl, int result);
    unsigned long (*next_error)(void);
    void (*clear_errors)(void);
    unsigned long hung_up; /* the reason that is a FIN without close_notify */
} engine;

/* Why the engine did nothing; what is a fault has a number in ``fault``. It is said once, also behind a reading. */
static int stopped(Side *side, int result, int system, int *fault)
{
    int why = engine.get_error(side->ssl, result), known = side->fault;
    *fault = 0;
    if (why == WANTS_READ || why == WANTS_WRITE || why == ENDED)
        return why;
    unsigned long number = engine.next_error();
    if (number & SYSTEM_FLAG)
        *fault = (int)(number & ~SYSTEM_FLAG);
    else if (number == 0 || (number & REASON) == engine.hung_up)
        *fault = why == SYSTEM_FAULT && system ? system : known ? known : HUNG_UP;
    else
        *fault = (int)number;
    engine.clear_errors(); /* what it adds to that */
    return SSL_FAULT;
}

ssize_t tls_read(Side *side, char *data, size_t room)
{
    size_t got = 0;
    int records = RECORDS;
    if (side->fault) {
        errno = side->fault;
        return -1;
    }
    engine.clear_errors();
    do {
        errno = 0;
        size_t most = room - got < RECORD ? room - got : RECORD;
        int size = engine.read(side->ssl, data + got, (int)most);
        if (size > 0) {
            got += (size_t)size;
            continue;
        }
        switch (stopped(side, size, errno, &side->fault)) {
        case WANTS_WRITE:
            side->reads_when_writable = true; /* fall through */
        case WANTS_READ:
            side->readable = side->urgent = false;
            errno = EAGAIN;
            return got ? (ssize_t)got : -1;
        case ENDED:
            return (ssize_t)got; /* said again by the next reading */
        default:
            errno = side->fault;
            return got ? (ssize_t)got : -1;
        }
    } while (room - got >= RECORD && --records);
    return (ssize_t)got;
}

static void cork(Side *side, int on) { setsockopt(side->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on); }

ssize_t tls_send(Side *side, const char *data, size_t size)
{
    size_t sent = 0;
    int fault = 0;
    bool many = size > RECORD;
    engine.clear_errors();
    if (many)
        cork(side, 1);
    while (sent < size) {
        errno = 0;
        int taken = engine.write(side->ssl, data + sent, (int)(size - sent));
        if (taken > 0) {
            sent += (size_t)taken;
            continue;
        }
        int why = stopped(side, taken, errno, &fault);
        if (fault == 0)
            side->writable = false;
        side->writes_when_readable = why == WANTS_READ;
        break;
    }
    if (many)
        cork(side, 0);
    atomic_fetch_add_explicit(&side->taken, (uint64_t)sent, memory_order_relaxed);
    errno = fault ? fault : EAGAIN;
    return fault && sent == 0 ? -1 : (ssize_t)sent; /* else the next write meets it again */
}

int tls_end(Side *side)
{
    int fault = 0;
    if (!side->parting && engine.get_shutdown(side->ssl) & SENT_SHUTDOWN)
        return 1;
    side->parting = true; /* a call too many would read, and drop what it reads */
    engine.clear_errors();
    errno = 0;
    int result = engine.shutdown(side->ssl);
    int why = result < 0 ? stopped(side, result, errno, &fault) : 0;
    if (fault) {
        errno = fault;
        return -1;
    }
    if (why == WANTS_WRITE) {
        side->writable = false;
        return 0;
    }
    side->parting = false;
    return 1;
}

void tls_happened(Side *side, uint32_t events)
{
    if (side->reads_when_writable && events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        side->reads_when_writable = false;
        side->readable = true;
    }
    if (side->writes_when_readable && side->readable) {
        side->writes_when_readable = false;
        side->writable = true;
    }
}

PyDoc_STRVAR(tls_doc, "use_tls(functions, reason)\n\n"
    "Where OpenSSL's SSL_read, SSL_write, SSL_shutdown, SSL_get_shutdown, SSL_get_error, ERR_get_error and\n"
    "ERR_clear_error are, and its reason SSL_R_UNEXPECTED_EOF_WHILE_READING.");

static PyObject *pump_use_tls(PyObject *self, PyObject *args)
{
    unsigned long long at[7];
    unsigned long reason;
    if (!PyArg_ParseTuple(args, "(KKKKKKK)k:use_tls", &at[0], &at[1], &at[2], &at[3], &at[4], &at[5], &at[6],
                          &reason))
        return NULL;
    if (engine.read != NULL) /* of this process: another pump's thread may be at work by it */
        Py_RETURN_NONE;
    *(void **)&engine.read = (void *)(uintptr_t)at[0];
    *(void **)&engine.write = (void *)(uintptr_t)at[1];
    *(void **)&engine.shutdown = (void *)(uintptr_t)at[2];
    *(void **)&engine.get_shutdown = (void *)(uintptr_t)at[3];
    *(void **)&engine.get_error = (void *)(uintptr_t)at[4];
    *(void **)&engine.next_error = (void *)(uintptr_t)at[5];
    *(void **)&engine.clear_errors = (void *)(uintptr_t)at[6];
    engine.hung_up = reason;
    Py_RETURN_NONE;
}

PyMethodDef tls_methods[] = {
    {"use_tls", pump_use_tls, METH_VARARGS, tls_doc},
    {NULL, NULL, 0, NULL},
};
