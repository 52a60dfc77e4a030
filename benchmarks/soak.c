/* Both ends of benchmarks/soak.py: streams in which every byte says whose it is and where it stands.
 *
 *   soak service HOST PORT CARRIER SEED LOOSE
 *   soak client  HOST PORT CARRIER SEED LOOSE BYTES COUNT AT_ONCE FIRST
 *
 * A stream is 64-bit words; word N of one direction of connection C is mix((C, direction, N) ^ salt). mix is a
 * bijection, so no two words of a run are equal, and a word in the wrong place tells where it belongs. Each client
 * sends a header (struct header), then its bytes; the service answers with the other direction of the same number.
 * Each end compares every byte it gets, and the way the connection ends: in order at the right length in whichever
 * order the header names, or cut, and then never in order.
 *
 * The client runs connections until BYTES were planned (0: no limit) or COUNT were begun (0: no limit), AT_ONCE
 * at a time; with COUNT they are small. Numbers begin at FIRST. LOOSE 1: the carrier has no half-close and no
 * reset; then the service ends no stream before it has all of its client's, and a cut may look like an end.
 *
 * Faults are lines on standard output, the first LINES of them, and a JSON line comes last. The service works until
 * its standard input ends and its connections have. Status 1: there were faults.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define ENDLESS (8192 * MIB) /* of a stream that is sent until it is cut */

enum {
    BUFFER = 256 * 1024,     /* bytes of one read or write, one of each a turn */
    MAX_CONNECTIONS = 16384, /* descriptors of one process */
    MAX_NUMBER = 1 << 24,    /* connections of one run and carrier */
    LINES = 50,              /* faults that are printed; the rest is counted */
    PATIENCE = 60,           /* seconds without a byte either way after which a connection is a fault */
    SOURCES = 16,            /* source addresses 127.0.0.1... of clients, so that ports last */
};

enum {
    CLIENT_FIRST = 1,    /* the service ends behind the client's end */
    SERVICE_FIRST = 2,   /* the client ends behind the service's end */
    WAITS = 4,           /* whoever ends second says its bytes only behind the other's end, too */
    CUT_BY_CLIENT = 8,   /* reset when cut_at bytes were sent */
    CUT_BY_SERVICE = 16, /* the same */
    CUT_LATE = 32,       /* instead: when its own stream has ended in order, and cut_at bytes came of an endless one */
    PAUSE_CLIENT = 64,   /* does not read for pause_ms once pause_at bytes came */
    PAUSE_SERVICE = 128, /* the same */
};

enum direction { TO_DEVICE, TO_CLIENT };

struct header {
    uint64_t number; /* carrier << 24 | connection */
    uint64_t size[2];
    uint64_t cut_at, pause_at;
    uint32_t flags, pause_ms;
    uint64_t check;
};

struct connection {
    int fd;
    uint32_t events;            /* what epoll was told; 0: not watched */
    int connected, ended, came; /* our end of file is said; the other's came */
    struct header header;
    size_t header_done; /* bytes of it that were sent or received */
    uint64_t sent, received;
    double paused_until, moved; /* moved: when a byte last was */
    int paused;
};

static struct {
    enum direction out; /* client: TO_DEVICE */
    const char *role;
    uint64_t carrier, salt;
    int loose, epoll, open, paused, stopping, probes;
    unsigned long long connections, finished, cuts_made, cuts_seen, headless, empty, faults;
    unsigned long long bytes, sent, begun, sum; /* bytes: compared and right; sum: of finished numbers */
    unsigned long long finished_out, finished_in;
} my;

static struct connection connections[MAX_CONNECTIONS]; /* by descriptor; fd -1: not in use */
static unsigned char seen[MAX_NUMBER / 8];              /* numbers that came to the service */
static unsigned char received[BUFFER], wanted[BUFFER + 16];

static void die(const char *what) {
    fprintf(stderr, "soak: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---- the pattern ------------------------------------------------------------------------------------------- */

/* The finisher of splitmix64, and back. */
static inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t unmix(uint64_t x) {
    x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642b2d24d8ec3u;
    x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96de1b173f119089u;
    return x ^ (x >> 30) ^ (x >> 60);
}

static uint64_t first_word(uint64_t number, enum direction direction) {
    return (number << 1 | direction) << 31;
}

/* Write the bytes from `position` on to `at`, which has room for 16 more; where they begin. */
static const unsigned char *pattern(unsigned char *at, uint64_t base, uint64_t position, size_t size) {
    uint64_t word = base + position / 8, salt = my.salt;
    size_t skip = position % 8, words = (skip + size + 7) / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t value = mix((word + i) ^ salt);
        memcpy(at + i * 8, &value, 8);
    }
    return at + skip;
}

/* ---- faults ------------------------------------------------------------------------------------------------ */

static void fault(struct connection *c, const char *format, ...) {
    va_list arguments;
    if (my.faults++ >= LINES)
        return;
    va_start(arguments, format);
    printf("fault: %s, carrier %llu", my.role, (unsigned long long)my.carrier);
    if (c)
        printf(", connection %llu, flags %u, sizes %llu and %llu, cut at %llu, sent %llu, received %llu",
               (unsigned long long)(c->header.number & (MAX_NUMBER - 1)), c->header.flags,
               (unsigned long long)c->header.size[0], (unsigned long long)c->header.size[1],
               (unsigned long long)c->header.cut_at, (unsigned long long)c->sent, (unsigned long long)c->received);
    printf(": ");
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    va_end(arguments);
}

/* Whose bytes are these? Two words in a row that belong together are no accident. */
static int tell_owner(struct connection *c, uint64_t position, const unsigned char *data, size_t size) {
    for (size_t shift = 0; shift < 8 && shift + 16 <= size; shift++) {
        uint64_t pair[2], one, two;
        memcpy(pair, data + shift, 16);
        one = unmix(pair[0]) ^ my.salt;
        two = unmix(pair[1]) ^ my.salt;
        if (two != one + 1 || one == first_word(c->header.number, !my.out) + (position + shift) / 8)
            continue; /* no word, or one that is where it should be */
        fault(c, "at %llu stands byte %llu of connection %llu of carrier %llu, %s", (unsigned long long)position,
              (unsigned long long)(one % (1ull << 31) * 8 - shift), (unsigned long long)(one >> 32 & (MAX_NUMBER - 1)),
              (unsigned long long)(one >> 56), one >> 31 & 1 ? "to its client" : "to its device");
        return 1;
    }
    return 0;
}

/* Compare what came; 0 or -1. */
static int compare(struct connection *c, size_t size) {
    enum direction in = !my.out;
    uint64_t base = first_word(c->header.number, in);
    const unsigned char *right = pattern(wanted, base, c->received, size);
    if (memcmp(received, right, size) != 0) {
        size_t at = 0;
        while (received[at] == right[at])
            at++;
        if (!tell_owner(c, c->received + at, received + at, size - at))
            fault(c, "wrong byte at %llu: %02x, not %02x, and of no stream", (unsigned long long)(c->received + at),
                  received[at], right[at]);
        return -1;
    }
    c->received += size;
    my.bytes += size;
    if (c->received > c->header.size[in]) {
        fault(c, "bytes behind the end");
        return -1;
    }
    return 0;
}

/* ---- one connection, at either end -------------------------------------------------------------------------- */

static int cuts(struct connection *c) {
    return c->header.flags & (my.out == TO_DEVICE ? CUT_BY_CLIENT : CUT_BY_SERVICE);
}

static int is_cut(struct connection *c) {
    return c->header.flags & (my.out == TO_DEVICE ? CUT_BY_SERVICE : CUT_BY_CLIENT);
}

static int is_second(struct connection *c) {
    return c->header.flags & (my.out == TO_DEVICE ? SERVICE_FIRST : CLIENT_FIRST);
}

static void forget(struct connection *c, int reset) {
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    my.paused -= c->paused;
    my.open--;
    close(c->fd);
    c->fd = -1;
}

static void watch(struct connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = c->fd};
    if (c->events == events)
        return;
    if (epoll_ctl(my.epoll, EPOLL_CTL_MOD, c->fd, &event) != 0)
        die("epoll_ctl");
    c->events = events;
}

/* The connection broke off, as errno says: was that agreed? */
static void broke(struct connection *c) {
    if (c->header_done < sizeof c->header && my.out == TO_CLIENT)
        my.headless++;
    else if (is_cut(c))
        my.cuts_seen++;
    else
        fault(c, "%s instead of an end", strerror(errno));
    forget(c, 1);
}

/* How many bytes of ours may go now. */
static uint64_t sendable(struct connection *c) {
    uint64_t most = c->header.size[my.out];
    if (is_second(c) && c->header.flags & WAITS && !c->came)
        return 0;
    if (cuts(c) && !(c->header.flags & CUT_LATE))
        most = c->header.cut_at;
    return most - c->sent;
}

/* 0, or -1: the connection is gone. */
static int send_some(struct connection *c) {
    uint64_t left;
    size_t size;
    ssize_t n;
    if (my.out == TO_DEVICE && c->header_done < sizeof c->header) {
        n = send(c->fd, (char *)&c->header + c->header_done, sizeof c->header - c->header_done, 0);
        if (n > 0)
            c->header_done += (size_t)n;
        if (c->header_done < sizeof c->header)
            return n < 0 && errno != EAGAIN ? (broke(c), -1) : 0;
    }
    if ((left = sendable(c)) == 0)
        return 0;
    size = 1ull << (c->header.number % 3 ? 17 : 8 + c->header.number % 8); /* some write in small pieces */
    size = left < size ? left : size;
    n = send(c->fd, pattern(wanted, first_word(c->header.number, my.out), c->sent, size), size, 0);
    if (n < 0 && errno != EAGAIN) {
        broke(c);
        return -1;
    }
    if (n > 0) {
        c->sent += (uint64_t)n;
        my.sent += (uint64_t)n;
        c->moved = now();
    }
    return 0;
}

/* Say our end, or cut, if it is time; 0, or -1: the connection is gone. */
static int end_ours(struct connection *c) {
    int late = c->header.flags & CUT_LATE;
    if (cuts(c) && (late ? c->ended && c->received >= c->header.cut_at : c->sent == c->header.cut_at)) {
        my.cuts_made++;
        forget(c, 1);
        return -1;
    }
    if (c->ended || c->sent < c->header.size[my.out] || (cuts(c) && !late) || (is_second(c) && !c->came))
        return 0;
    if (my.loose && my.out == TO_CLIENT && c->received < c->header.size[TO_DEVICE])
        return 0;
    c->ended = 1;
    if (shutdown(c->fd, SHUT_WR) != 0) {
        broke(c);
        return -1;
    }
    return 0;
}

static void finish(struct connection *c) {
    my.finished++;
    my.finished_out += c->sent;
    my.finished_in += c->received;
    my.sum += mix(c->header.number);
    forget(c, 0);
}

/* The other side's end of file; 0, or -1: the connection is gone. */
static int end_came(struct connection *c) {
    enum direction in = !my.out;
    c->came = 1;
    c->moved = now();
    if (c->header_done < sizeof c->header && my.out == TO_CLIENT) {
        if (c->header_done == 0)
            my.empty++;
        else if (my.loose)
            my.headless++;
        else
            fault(c, "an end in order within the header");
    } else if (is_cut(c) && !(c->header.flags & CUT_LATE)) {
        if (my.loose)
            my.cuts_seen++;
        else
            fault(c, "an end in order of a stream that was cut");
    } else if (c->received != c->header.size[in]) {
        fault(c, "an end in order, and bytes are missing");
    } else {
        return 0;
    }
    forget(c, 0);
    return -1;
}

static int take_header(struct connection *c) {
    uint64_t *words = (uint64_t *)&c->header, check = my.salt, number = c->header.number & (MAX_NUMBER - 1);
    for (size_t i = 0; i + 1 < sizeof c->header / 8; i++)
        check = mix(check ^ words[i]);
    if (my.out == TO_DEVICE) {
        c->header.check = check;
        return 0;
    }
    if (check != c->header.check || c->header.number >> 24 != my.carrier) {
        fault(NULL, "a header that no client of this carrier sent");
        forget(c, 1);
        return -1;
    }
    if (seen[number / 8] & 1 << number % 8) {
        fault(c, "this connection came twice");
        forget(c, 1);
        return -1;
    }
    seen[number / 8] |= (unsigned char)(1 << number % 8);
    my.connections++;
    return 0;
}

/* 0, or -1: the connection is gone. */
static int receive_some(struct connection *c) {
    int headed = my.out == TO_DEVICE || c->header_done == sizeof c->header;
    ssize_t n = headed ? recv(c->fd, received, BUFFER, 0)
                       : recv(c->fd, (char *)&c->header + c->header_done, sizeof c->header - c->header_done, 0);
    uint32_t pauses = my.out == TO_DEVICE ? PAUSE_CLIENT : PAUSE_SERVICE;
    if (n < 0) {
        if (errno == EAGAIN)
            return 0;
        broke(c);
        return -1;
    }
    if (n == 0)
        return end_came(c);
    c->moved = now();
    if (!headed) {
        c->header_done += (size_t)n;
        return c->header_done == sizeof c->header ? take_header(c) : 0;
    }
    if (compare(c, (size_t)n) != 0) {
        forget(c, 1);
        return -1;
    }
    if (c->header.flags & pauses && !c->paused_until && c->received >= c->header.pause_at) {
        c->paused_until = now() + c->header.pause_ms / 1e3;
        c->paused = 1;
        my.paused++;
    }
    return 0;
}

/* Do what can be done and watch for the rest. */
static void serve(struct connection *c, uint32_t events) {
    int headed;
    if (!c->connected && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = 0;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
        if (error) {
            errno = error;
            fault(c, "not connected: %s", strerror(error));
            forget(c, 1);
            return;
        }
        c->connected = 1;
    }
    if (!c->came && (events & (EPOLLERR | EPOLLHUP) || (events & EPOLLIN && !c->paused)) && receive_some(c) != 0)
        return;
    if (c->came && events & EPOLLERR && !c->ended) { /* nothing is left to read, so only a write says it */
        int error = 0;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
        errno = error ? error : EPIPE;
        broke(c);
        return;
    }
    headed = c->header_done == sizeof c->header;
    if (c->connected && (my.out == TO_DEVICE || headed) && (send_some(c) != 0 || end_ours(c) != 0))
        return;
    if (c->ended && c->came) {
        finish(c);
        return;
    }
    headed = c->header_done == sizeof c->header;
    watch(c, (c->came || c->paused ? 0u : (uint32_t)EPOLLIN) |
                 (!c->connected || (my.out == TO_DEVICE && !headed) || (headed && sendable(c)) ? (uint32_t)EPOLLOUT : 0u));
}

/* Every so often: pauses that are over, connections where nothing moves. */
static void look_after(double at) {
    static double last;
    if (my.paused == 0 && at - last < 1)
        return;
    for (int fd = 0; fd < MAX_CONNECTIONS; fd++) {
        struct connection *c = &connections[fd];
        if (c->fd < 0)
            continue;
        if (c->paused && at >= c->paused_until) {
            c->paused = 0;
            my.paused--;
            c->moved = at;
            serve(c, EPOLLIN);
        } else if (!c->paused && at - c->moved > PATIENCE) {
            fault(c, "nothing moved for %d s, %s%s", PATIENCE, c->ended ? "ended" : "not ended",
                  c->came ? ", the other's end came" : "");
            forget(c, 1);
        }
    }
    last = at;
}

static struct connection *take(int fd, int connected) {
    struct connection *c = &connections[fd];
    struct epoll_event event = {.events = connected ? EPOLLIN : EPOLLOUT, .data.fd = fd};
    if (fd >= MAX_CONNECTIONS) {
        errno = EMFILE;
        die("connections");
    }
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->connected = connected;
    c->events = event.events;
    c->moved = now();
    my.open++;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (epoll_ctl(my.epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
    return c;
}

/* One turn of the loop; `special` is a descriptor that is the caller's, and its events are returned. */
static uint32_t turn(int special, int patience) {
    struct epoll_event events[256];
    uint32_t said = 0;
    int ready = epoll_wait(my.epoll, events, 256, my.paused && patience > 5 ? 5 : patience);
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd;
        if (fd == special)
            said = events[i].events;
        else if (fd == 0)
            my.stopping = 1;
        else if (connections[fd].fd == fd)
            serve(&connections[fd], events[i].events);
    }
    look_after(now());
    return said;
}

static int report(double started) {
    printf("{\"role\": \"%s\", \"connections\": %llu, \"finished\": %llu, \"cuts_made\": %llu, \"cuts_seen\": %llu, "
           "\"headless\": %llu, \"empty\": %llu, \"faults\": %llu, \"bytes\": %llu, \"sent\": %llu, \"sum\": \"%016llx\", "
           "\"finished_out\": %llu, \"finished_in\": %llu, \"seconds\": %.3f}\n",
           my.role, my.connections, my.finished, my.cuts_made, my.cuts_seen, my.headless, my.empty, my.faults,
           my.bytes, my.sent, my.sum, my.finished_out, my.finished_in, now() - started);
    return my.faults != 0;
}

/* ---- service ------------------------------------------------------------------------------------------------ */

static struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "soak: %s is no IPv4 address\n", host);
        exit(64);
    }
    return address;
}

static int run_service(const char *host, int port) {
    struct sockaddr_in address = address_of(host, port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fd;
    struct epoll_event listens = {.events = EPOLLIN, .data.fd = listener}, talks = {.events = EPOLLIN};
    double started = now(), last = 0;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
        die("listen");
    epoll_ctl(my.epoll, EPOLL_CTL_ADD, listener, &listens);
    if (epoll_ctl(my.epoll, EPOLL_CTL_ADD, 0, &talks) != 0)
        die("standard input");
    while (!my.stopping || (my.open && now() - last < 15)) {
        if (turn(listener, 100))
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                take(fd, 1);
        if (my.stopping && !last) {
            last = now();
            epoll_ctl(my.epoll, EPOLL_CTL_DEL, 0, NULL);
        }
    }
    for (fd = 0; fd < MAX_CONNECTIONS; fd++)
        if (connections[fd].fd >= 0)
            fault(&connections[fd], "still open when all clients have gone");
    return report(started);
}

/* ---- client ------------------------------------------------------------------------------------------------- */

static uint64_t dice; /* the state of the generator; begun anew for each connection */

static uint64_t roll(uint64_t sides) {
    return mix(dice += 0x9e3779b97f4a7c15u) % sides;
}

static uint64_t pick_size(int small, uint64_t largest) {
    static const uint64_t edges[] = {0, 1, 44, 45, 1023, 1024, 1025, 4095, 4097, 16383, 16384, 16385, 65535, 65536, 65537};
    uint64_t kind = roll(100), size;
    if (small || kind < 65)
        size = edges[roll(sizeof edges / sizeof *edges)];
    else if (kind < 91)
        size = KIB << roll(12), size += roll(size);
    else if (kind < 99)
        size = MIB + roll(63 * MIB);
    else
        size = 256 * MIB;
    return size < largest ? size : largest;
}

/* What connection `number` is to be; the bytes that it is worth. */
static uint64_t plan(struct header *h, uint64_t number, uint64_t seed, int small, uint64_t largest) {
    uint64_t kind, direction;
    memset(h, 0, sizeof *h);
    dice = mix(seed) ^ (h->number = my.carrier << 24 | number) << 20;
    h->size[0] = pick_size(small, largest);
    h->size[1] = pick_size(small, largest);
    if (my.loose && !h->size[TO_CLIENT])
        h->size[TO_CLIENT] = 1; /* a service that ends at once without a word looks like one that was not reached */
    if ((h->flags = roll(my.loose ? 2 : 3)) && roll(2))
        h->flags |= WAITS;
    kind = roll(100);
    direction = roll(2);
    if (kind < 9) {
        h->size[direction] += 1;
        h->cut_at = roll(h->size[direction]);
        h->flags = direction == TO_DEVICE ? CUT_BY_CLIENT : CUT_BY_SERVICE;
    } else if (kind < 12 && !my.loose) {
        h->size[!direction] = ENDLESS;
        h->cut_at = roll(small ? 65536 : 4 * MIB);
        h->flags = (direction == TO_DEVICE ? CUT_BY_CLIENT : CUT_BY_SERVICE) | CUT_LATE;
    }
    h->pause_ms = (uint32_t)(small ? 1 + roll(50) : 50 + roll(1000));
    if (roll(small ? 50 : 8) == 0) {
        direction = roll(2);
        h->pause_at = roll((h->size[direction] == ENDLESS ? h->cut_at : h->size[direction]) + 1);
        h->flags |= direction == TO_DEVICE ? PAUSE_SERVICE : PAUSE_CLIENT;
    }
    if (h->flags & CUT_LATE)
        return h->size[h->flags & CUT_BY_CLIENT ? TO_DEVICE : TO_CLIENT] + h->cut_at;
    return h->flags & (CUT_BY_CLIENT | CUT_BY_SERVICE) ? h->cut_at : h->size[0] + h->size[1];
}

static void begin(const struct sockaddr_in *address, const struct header *h) {
    struct sockaddr_in from = address_of("127.0.0.1", 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct connection *c;
    if (fd < 0)
        die("socket");
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(h->number % SOURCES));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int));
    bind(fd, (struct sockaddr *)&from, sizeof from);
    my.connections++;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno != EINPROGRESS) {
        fault(NULL, "connect: %s", strerror(errno));
        close(fd);
        return;
    }
    c = take(fd, 0);
    c->header = *h;
    take_header(c);
}

static int run_client(const char *host, int port, uint64_t seed, uint64_t budget, uint64_t count, int at_once,
                      uint64_t first) {
    struct sockaddr_in address = address_of(host, port);
    uint64_t planned = 0, largest = budget ? budget / 16 : 256 * MIB;
    double started = now();
    for (;;) {
        while (my.open < at_once && (!count || my.begun < count) && (!budget || planned < budget)) {
            struct header header;
            planned += plan(&header, first + my.begun++, seed, count != 0, largest);
            begin(&address, &header);
        }
        if (!my.open)
            break;
        turn(-1, 100);
    }
    return report(started);
}

int main(int argc, char **argv) {
    struct rlimit files;
    uint64_t numbers[10] = {0};
    if ((argc != 7 || strcmp(argv[1], "service")) && (argc != 11 || strcmp(argv[1], "client"))) {
        fprintf(stderr, "soak: see the head of soak.c\n");
        return 64;
    }
    for (int i = 3; i < argc; i++)
        numbers[i - 3] = strtoull(argv[i], NULL, 10);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    my.role = argv[1];
    my.out = argc == 7 ? TO_CLIENT : TO_DEVICE;
    my.carrier = numbers[1];
    my.salt = mix(numbers[2] + 1);
    my.loose = numbers[3] != 0;
    my.epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int fd = 0; fd < MAX_CONNECTIONS; fd++)
        connections[fd].fd = -1;
    if (argc == 7)
        return run_service(argv[2], (int)numbers[0]);
    return run_client(argv[2], (int)numbers[0], numbers[2], numbers[4], numbers[5], (int)numbers[6], numbers[7]);
}
