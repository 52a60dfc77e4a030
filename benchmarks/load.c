/* The service and the load generator of benchmarks/relay.py, in C so that neither is the slowest part.
 *
 *   load serve        HOST PORT COUNTER                        one target for every row, see below
 *   load bulk-up      HOST PORT STREAMS SECONDS COUNTER        bytes/s that arrive at the service
 *   load bulk-down    HOST PORT STREAMS SECONDS                bytes/s that arrive here
 *   load stalled      HOST PORT STREAMS SECONDS                bulk-down whose first stream is never read again
 *   load ping         HOST PORT SECONDS BESIDE                 64 bytes there and back, beside BESIDE bulk streams down
 *   load connect-rate HOST PORT AT_ONCE SECONDS                connect, one byte each way, close
 *   load idle-hold    HOST PORT[,PORT...] COUNT                COUNT open connections, spread over the ports
 *
 * The first byte of a connection tells the service what it is:
 *   'S' sink: read and count     'G' source: write until the other side closes
 *   'E' echo                     'O' one byte: answer one byte, wait for the close
 *   'P' echo, on the last core until another kind comes
 *
 * COUNTER is a file that service and generator map: the bytes the sink has read.  A generator prints "begin" when
 * its measured window opens, then one line of JSON, and keeps its connections until its standard input ends.
 *
 * Senders copy from one static buffer as any program does; receivers discard in the kernel (MSG_TRUNC).
 * Bounds: no memory grows with time, the address space is limited, and an alarm ends a generator that hangs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

enum {
    CHUNK = 256 * 1024,         /* bytes of one send */
    DISCARD = 1024 * 1024,      /* bytes of one discarding read */
    PING = 64,                  /* bytes of one ping */
    MAX_SAMPLES = 1 << 20,      /* pings kept; a longer run keeps the first ones */
    MAX_CONNECTIONS = 65536,    /* descriptors of one process */
    MAX_STREAMS = 1024,
    MAX_THREADS = 64,
    STALL_AFTER = 64 * 1024,    /* bytes the stalled stream reads before it stops */
    PATIENCE = 10,              /* seconds a blocking call may take */
    GRACE = 60,                 /* seconds beyond its own duration until the alarm ends a generator */
    SOURCES = 16,               /* source addresses 127.0.0.1... of short connections, so that ports last */
};

static char chunk[CHUNK];
static char discarded[DISCARD]; /* never written: MSG_TRUNC */

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_for(double seconds) {
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - t.tv_sec) * 1e9);
    while (nanosleep(&t, &t) == -1 && errno == EINTR)
        ;
}

static atomic_ullong *map_counter(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0)
        die(path);
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        die("mmap");
    close(fd);
    return at;
}

static void set_limits(void) {
    struct rlimit files, memory = {512u << 20, 512u << 20};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_AS, &memory);
    signal(SIGPIPE, SIG_IGN);
}

static void start_thread(void *(*body)(void *), void *argument, pthread_t *thread) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    errno = pthread_create(thread, &small, body, argument);
    if (errno)
        die("pthread_create");
}

static struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "load: %s is no IPv4 address\n", host);
        exit(2);
    }
    return address;
}

static void no_delay(int fd) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static void not_blocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

enum core { ANY, FIRST, LAST };

/* Keep this thread on one core, or no longer.  A ping on an idle machine is several times faster while both ends
 * happen to share a core; so without a bulk stream beside it, they never do. */
static void stay_on(enum core where) {
    static cpu_set_t allowed;
    static enum core at = ANY;
    cpu_set_t one;
    if (where == at || (!CPU_COUNT(&allowed) && sched_getaffinity(0, sizeof allowed, &allowed) != 0))
        return;
    at = where;
    one = allowed;
    for (int core = 0, left = CPU_COUNT(&allowed); where != ANY && core < CPU_SETSIZE; core++) {
        int is_first = left == CPU_COUNT(&allowed);
        if (!CPU_ISSET(core, &allowed))
            continue;
        left--;
        if (where == FIRST ? !is_first : left > 0)
            CPU_CLR(core, &one);
    }
    sched_setaffinity(0, sizeof one, &one);
}

/* Register fd with epoll; 0 or -1. */
static int watch(int epoll, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Write one chunk or discard one read. Bytes moved; 0: not now; -1: the connection is over. */
static ssize_t move_bytes(int fd, int sending) {
    ssize_t n = sending ? send(fd, chunk, CHUNK, MSG_DONTWAIT)
                        : recv(fd, discarded, DISCARD, MSG_TRUNC | MSG_DONTWAIT);
    if (n > 0)
        return n;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* ---- service ---------------------------------------------------------------------------------------------- */

static char kinds[MAX_CONNECTIONS]; /* by descriptor: 0 not known yet, else the first byte */
static atomic_ullong *sunk;
static int bulk_epoll;

/* Sinks and sources have a thread of their own, so that an echo does not wait behind them here. */
static void *serve_bulk(void *unused) {
    struct epoll_event events[64];
    (void)unused;
    for (;;) {
        int ready = epoll_wait(bulk_epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, sending = kinds[fd] == 'G';
            ssize_t n = sending && events[i].events & (EPOLLHUP | EPOLLRDHUP) ? -1 : move_bytes(fd, sending);
            if (n < 0)
                close(fd);
            else if (!sending)
                atomic_fetch_add_explicit(sunk, (unsigned long long)n, memory_order_relaxed);
        }
    }
    return NULL;
}

static void accept_all(int listener, int epoll) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (fd >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        kinds[fd] = 0;
        no_delay(fd);
        if (watch(epoll, fd, EPOLLIN) != 0)
            close(fd);
    }
}

/* The first byte: what is this connection? -1: close it. */
static int begin_connection(int fd, int epoll) {
    char kind;
    if (recv(fd, &kind, 1, 0) != 1)
        return -1;
    kinds[fd] = kind;
    stay_on(kind == 'P' ? LAST : ANY);
    switch (kind) {
    case 'O':
        return send(fd, &kind, 1, 0) == 1 ? 0 : -1;
    case 'E':
    case 'P':
        return 0;
    case 'S':
    case 'G':
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
        return watch(bulk_epoll, fd, kind == 'S' ? EPOLLIN : EPOLLOUT | EPOLLRDHUP);
    }
    return -1;
}

static int echo(int fd) {
    char small[4096];
    ssize_t n = recv(fd, small, sizeof small, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    return n > 0 && send(fd, small, (size_t)n, 0) == n ? 0 : -1;
}

static _Noreturn void serve(const char *host, int port, const char *counter) {
    struct sockaddr_in address = address_of(host, port);
    struct epoll_event events[256];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), epoll = epoll_create1(0);
    pthread_t thread;
    sunk = map_counter(counter);
    bulk_epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
        die("listen");
    watch(epoll, listener, EPOLLIN);
    start_thread(serve_bulk, NULL, &thread);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener, epoll);
            else if ((kinds[fd] ? echo(fd) : begin_connection(fd, epoll)) != 0)
                close(fd);
        }
    }
}

/* ---- generator -------------------------------------------------------------------------------------------- */

static const char *front_host;

/* A blocking connection that has sent its first byte; every call on it ends within PATIENCE. -1: refused. */
static int open_connection(int port, char kind, unsigned source) {
    struct sockaddr_in address = address_of(front_host, port);
    struct timeval patience = {.tv_sec = PATIENCE};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    no_delay(fd);
    if (source) {
        struct sockaddr_in from = address_of("127.0.0.1", 0);
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source % SOURCES);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int));
        bind(fd, (struct sockaddr *)&from, sizeof from);
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && send(fd, &kind, 1, 0) == 1)
        return fd;
    close(fd);
    return -1;
}

/* Connect, one byte each way; the open descriptor or -1. */
static int one_byte(int port, char kind, unsigned source) {
    char byte = kind;
    int fd = open_connection(port, kind, source);
    if (fd < 0)
        return -1;
    if ((kind == 'E' && send(fd, &byte, 1, 0) != 1) || recv(fd, &byte, 1, 0) != 1) {
        close(fd);
        return -1;
    }
    return fd;
}

static void wait_for_end(void) {
    char byte;
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
}

static void begin(void) {
    puts("begin");
    fflush(stdout);
}

static struct {
    int sending, stalled_fd, count, epoll;
    int fds[MAX_STREAMS];
    atomic_ullong moved[MAX_STREAMS]; /* bytes of each stream, down only */
    atomic_int broken;                /* streams that ended early */
} bulk = {.stalled_fd = -1};

static void *run_bulk(void *unused) {
    struct epoll_event events[64];
    (void)unused;
    for (;;) {
        int ready = epoll_wait(bulk.epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int stream = events[i].data.fd, fd = bulk.fds[stream];
            ssize_t n = move_bytes(fd, bulk.sending);
            if (n < 0)
                atomic_fetch_add(&bulk.broken, 1);
            else
                n = (ssize_t)atomic_fetch_add_explicit(&bulk.moved[stream], (unsigned long long)n,
                                                       memory_order_relaxed) + n;
            if (n < 0 || (fd == bulk.stalled_fd && n >= STALL_AFTER))
                epoll_ctl(bulk.epoll, EPOLL_CTL_DEL, fd, NULL);
        }
    }
    return NULL;
}

/* Open the streams and start their thread; `stalled`: the first of them stops reading. */
static void start_bulk(int port, int streams, int sending, int stalled) {
    pthread_t thread;
    bulk.sending = sending;
    bulk.count = streams;
    bulk.epoll = epoll_create1(0);
    for (int i = 0; i < streams; i++) {
        struct epoll_event event = {.events = sending ? EPOLLOUT : EPOLLIN, .data.fd = i};
        int fd = bulk.fds[i] = open_connection(port, sending ? 'S' : 'G', 0);
        if (fd < 0)
            die("stream");
        not_blocking(fd);
        if (i == 0 && stalled)
            bulk.stalled_fd = fd;
        epoll_ctl(bulk.epoll, EPOLL_CTL_ADD, fd, &event);
    }
    start_thread(run_bulk, NULL, &thread);
}

static double warm_up(double seconds) {
    double part = seconds / 4;
    return part > 0.5 ? 0.5 : part;
}

/* Bytes per second of all streams but the stalled one; upwards counted by the service. */
static int measure_bulk(double seconds, atomic_ullong *counter) {
    static unsigned long long before[MAX_STREAMS], total, slowest = UINT64_MAX;
    int first = bulk.stalled_fd < 0 ? 0 : 1;
    sleep_for(warm_up(seconds));
    begin();
    unsigned long long sunk_before = counter ? atomic_load(counter) : 0;
    for (int i = first; i < bulk.count; i++)
        before[i] = atomic_load(&bulk.moved[i]);
    double started = now();
    sleep_for(seconds);
    double took = now() - started;
    for (int i = first; i < bulk.count; i++) {
        unsigned long long moved = atomic_load(&bulk.moved[i]) - before[i];
        total += moved;
        slowest = moved < slowest ? moved : slowest;
    }
    if (counter)
        total = atomic_load(counter) - sunk_before;
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"slowest_bytes\": %llu, \"broken\": %d}\n", total, took, slowest,
           atomic_load(&bulk.broken));
    wait_for_end();
    return 0;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int ping_once(int fd) {
    char there[PING], back[PING];
    memset(there, 'x', PING); /* EMO holds NULs at the end of a message for a moment */
    return send(fd, there, PING, 0) == PING && recv(fd, back, PING, MSG_WAITALL) == PING ? 0 : -1;
}

static unsigned long long all_moved(void) {
    unsigned long long sum = 0;
    for (int i = 0; i < bulk.count; i++)
        sum += atomic_load(&bulk.moved[i]);
    return sum;
}

static int ping(int port, double seconds, int beside) {
    static uint32_t samples[MAX_SAMPLES], behind[MAX_SAMPLES]; /* tenths of a microsecond; bytes of bulk meanwhile */
    int count = 0, fd = open_connection(port, beside ? 'E' : 'P', 0);
    if (fd < 0)
        die("ping");
    if (beside)
        start_bulk(port, beside, 0, 0);
    else
        stay_on(FIRST);
    double until = now() + warm_up(seconds);
    while (now() < until)
        if (ping_once(fd) != 0)
            die("ping");
    begin();
    unsigned long long moved_before = all_moved(), moved_last = moved_before;
    double before = now(), started = before;
    until = before + seconds;
    while (before < until && count < MAX_SAMPLES) {
        if (ping_once(fd) != 0)
            die("ping");
        double after = now();
        unsigned long long moved_now = all_moved();
        behind[count] = (uint32_t)(moved_now - moved_last);
        samples[count++] = (uint32_t)((after - before) * 1e7);
        before = after;
        moved_last = moved_now;
    }
    unsigned long long moved = all_moved() - moved_before;
    qsort(samples, (size_t)count, sizeof *samples, compare);
    qsort(behind, (size_t)count, sizeof *behind, compare);
    printf("{\"behind_p50\": %u, \"behind_p99\": %u, \"count\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"bytes\": %llu, \"seconds\": %.6f, "
           "\"broken\": %d}\n",
           behind[count / 2], behind[(int)(count * 0.99)], count, samples[count / 2] / 10.0, samples[(int)(count * 0.99)] / 10.0, samples[count - 1] / 10.0, moved,
           before - started, atomic_load(&bulk.broken));
    wait_for_end();
    return 0;
}

static struct {
    int port;
    atomic_int stop;
    atomic_uint made, failed, source;
} rate;

static void *connect_loop(void *unused) {
    (void)unused;
    while (!atomic_load_explicit(&rate.stop, memory_order_relaxed)) {
        int fd = one_byte(rate.port, 'O', 1 + atomic_fetch_add(&rate.source, 1) % SOURCES);
        atomic_fetch_add(fd < 0 ? &rate.failed : &rate.made, 1);
        if (fd < 0)
            sleep_for(0.001);
        else
            close(fd);
    }
    return NULL;
}

static int connect_rate(int port, int at_once, double seconds) {
    pthread_t threads[MAX_THREADS];
    rate.port = port;
    for (int i = 0; i < at_once; i++)
        start_thread(connect_loop, NULL, &threads[i]);
    sleep_for(warm_up(seconds));
    begin();
    unsigned made = atomic_load(&rate.made), failed = atomic_load(&rate.failed);
    double started = now();
    sleep_for(seconds);
    made = atomic_load(&rate.made) - made;
    failed = atomic_load(&rate.failed) - failed;
    double took = now() - started;
    atomic_store(&rate.stop, 1);
    printf("{\"connections\": %u, \"failed\": %u, \"seconds\": %.6f}\n", made, failed, took);
    wait_for_end();
    return 0;
}

static struct {
    int ports[MAX_THREADS], port_count, wanted;
    atomic_int next, open;
} held;

static void *hold_loop(void *unused) {
    int i;
    (void)unused;
    while ((i = atomic_fetch_add(&held.next, 1)) < held.wanted)
        if (one_byte(held.ports[i % held.port_count], 'E', 0) >= 0)
            atomic_fetch_add(&held.open, 1);
    return NULL;
}

static int idle_hold(char *ports, int count) {
    enum { AT_ONCE = 8 };
    pthread_t threads[AT_ONCE];
    held.wanted = count;
    for (char *one = strtok(ports, ","); one && held.port_count < MAX_THREADS; one = strtok(NULL, ","))
        held.ports[held.port_count++] = atoi(one);
    begin();
    for (int i = 0; i < AT_ONCE; i++)
        start_thread(hold_loop, NULL, &threads[i]);
    for (int i = 0; i < AT_ONCE; i++)
        pthread_join(threads[i], NULL);
    printf("{\"open\": %d, \"wanted\": %d}\n", atomic_load(&held.open), count);
    wait_for_end();
    return 0;
}

/* ---- command line ----------------------------------------------------------------------------------------- */

static int usage(void) {
    fputs("load: see the head of benchmarks/load.c for its modes\n", stderr);
    return 2;
}

static int bounded(const char *text, int most) {
    int value = atoi(text);
    if (value < 0 || value > most) {
        fprintf(stderr, "load: %s is not within 0..%d\n", text, most);
        exit(2);
    }
    return value;
}

static int generate(const char *mode, int argc, char **argv) {
    int port = bounded(argv[3], 65535);
    double seconds = strcmp(mode, "ping") == 0 ? atof(argv[4]) : argc > 5 ? atof(argv[5]) : 0;
    front_host = argv[2];
    alarm((unsigned)seconds + GRACE);
    if (strcmp(mode, "idle-hold") == 0)
        return idle_hold(argv[3], bounded(argv[4], MAX_CONNECTIONS));
    if (argc < 6 || seconds <= 0 || seconds > 3600)
        return usage();
    if (strcmp(mode, "ping") == 0)
        return ping(port, seconds, bounded(argv[5], MAX_STREAMS));
    if (strcmp(mode, "connect-rate") == 0)
        return connect_rate(port, bounded(argv[4], MAX_THREADS), seconds);
    int up = strcmp(mode, "bulk-up") == 0, stalled = strcmp(mode, "stalled") == 0;
    if ((!up && !stalled && strcmp(mode, "bulk-down") != 0) || (up && argc != 7))
        return usage();
    atomic_ullong *counter = up ? map_counter(argv[6]) : NULL;
    start_bulk(port, bounded(argv[4], MAX_STREAMS), up, stalled);
    return measure_bulk(seconds, counter);
}

int main(int argc, char **argv) {
    if (argc < 5)
        return usage();
    set_limits();
    memset(chunk, 'x', sizeof chunk);
    if (strcmp(argv[1], "serve") == 0)
        serve(argv[2], bounded(argv[3], 65535), argv[4]);
    return generate(argv[1], argc, argv);
}
