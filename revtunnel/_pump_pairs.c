/* Pairs of sockets whose bytes are moved: what happens in a pair's turn.

The rules are those of sockets/relay.py, which is the specification and runs where this is not there: what one
side does not take is held, at most one reading of it, and the other side is not read until that is gone. An
end of file is passed on behind its bytes, each direction by itself. A cut of one side is told at once where
nobody reads it, else behind its bytes. A reading is bounded, starts small and doubles while all of it is
taken; a small message of anybody keeps the readings of bulk small for a while.

Descriptors of a pair that Python joined are Python's: it is told that the pair has ended or was cut, takes it
back, and closes. A pair that was made here has its own, until Python was told of it: an end in order closes
both so, a cut resets the other side (a close does that to a socket that ``ends_with_reset``, as all of them do),
and Python is told afterwards.

Source: sockets/relay.py; ours. */

#include "_pump.h"

static const struct linger IN_ORDER = {0, 0}, RESET = {1, 0};

/* Close it, in order or with a reset. */
void close_side(Side *side, bool in_order)
{
    if (side->fd < 0)
        return;
    setsockopt(side->fd, SOL_SOCKET, SO_LINGER, in_order ? &IN_ORDER : &RESET, sizeof IN_ORDER);
    close(side->fd);
    side->fd = -1;
}

/* It is over: what nobody else has to close is closed here, and Python is told so, now or later. */
static void is_over(Pump *pump, Pair *pair, unsigned news)
{
    if (!pair->made) {
        tell(pump, &pair->thing, news);
        return;
    }
    pair->ended = now();
    leave(&pair->young);
    leave(&pair->kin);
    for (int which = 0; which < 2; which++) {
        drop(pump, &pair->side[which]);
        close_side(&pair->side[which], news == DONE);
    }
    tell_later(pump, &pair->thing, news);
}

void cut(Pump *pump, Pair *pair, int side, int error)
{
    if (pair->thing.over)
        return;
    pair->cut_side = side;
    pair->cut_error = error;
    is_over(pump, pair, CUT);
}

static void check(Pump *pump, Pair *pair)
{
    Side *near = &pair->side[0], *far = &pair->side[1];
    if (pair->thing.over || !(near->ending && far->ending))
        return;
    if (near->write_ended && far->write_ended) {
        is_over(pump, pair, DONE);
    } else if (!(pair->thing.news & ENDING)) {
        leave(&pair->young);
        tell(pump, &pair->thing, ENDING);
    }
}

ssize_t send_some(Side *side, const char *data, size_t size)
{
    ssize_t sent;
    if (side->ssl != NULL)
        return tls_send(side, data, size);
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

void drop(Pump *pump, Side *side)
{
    free(side->held);
    pump->held -= side->held_size;
    side->held = NULL;
    side->held_at = side->held_end = side->held_size = 0;
    atomic_store_explicit(&side->waiting, 0, memory_order_relaxed);
}

bool hold(Pump *pump, Side *side, const char *data, size_t size)
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

/* Its end of file; 0: once more when it can be written. */
static int end_writing(Side *side)
{
    if (side->ssl != NULL)
        return tls_end(side);
    return shutdown(side->fd, SHUT_WR) < 0 ? -1 : 1;
}

/* Write what is held, then the end of file if that is next. */
static void flush(Pump *pump, Pair *pair, int which)
{
    Side *side = &pair->side[which], *other = &pair->side[!which];
    if (pair->thing.over)
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
        bool last = side->read_ended && other->write_ended && side->ssl == NULL; /* the close says it */
        int ended = last ? 1 : end_writing(side);
        if (ended < 0) {
            cut(pump, pair, which, errno);
            return;
        }
        side->write_ended = ended;
    }
    check(pump, pair);
}

/* Write what the other side sent, and hold what is not taken. Nothing is held before. */
void push(Pump *pump, Pair *pair, int which, const char *data, size_t size)
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
        if (pair->thing.over || side->read_ended || other->held != NULL)
            break;
        size_t room = room_of(pump, pair, side);
        ssize_t size = side->ssl != NULL ? tls_read(side, pump->buffer, room)
                                         : recv(side->fd, pump->buffer, room, MSG_DONTWAIT);
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
            if ((size_t)size < room && !side->over && !side->urgent && side->ssl == NULL)
                side->readable = false; /* that was all: what comes later is told */
        }
        if (size <= 0 || (size_t)size >= room - (side->ssl != NULL ? RECORD - 1 : 0))
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
        if ((side->held != NULL || side->parting) && side->writable)
            return true;
    }
    return false;
}

void note(Side *side)
{
    unsigned state = (side->read_ended ? READ_ENDED : 0) | (side->write_ended ? WRITE_ENDED : 0) |
                     (side->ending ? IS_ENDING : 0);
    atomic_store_explicit(&side->state, state, memory_order_relaxed);
}

void take_turn(Pump *pump, Pair *pair)
{
    for (int which = 0; which < 2; which++)
        flush(pump, pair, which);
    for (int which = 0; which < 2; which++)
        pull(pump, pair, which);
    for (int which = 0; which < 2; which++)
        note(&pair->side[which]);
    if (!pair->thing.over && wants_more(pair))
        append(&pump->bulk, &pair->thing.turn);
}

/* -- a pair as a thing */

void happened_to(Side *side, uint32_t events)
{
    const uint32_t over = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    side->over = side->over || events & over;
    side->failed = side->failed || events & EPOLLERR;
    side->urgent = side->urgent || events & EPOLLPRI;
    side->readable = side->readable || events & (EPOLLIN | EPOLLPRI | over);
    side->writable = side->writable || events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
}

void pair_happened(Pump *pump, Thing *thing, int side, uint32_t events)
{
    Side *of = &((Pair *)thing)->side[side];
    happened_to(of, events);
    if (of->ssl != NULL)
        tls_happened(of, events);
    append(&pump->fresh, &thing->turn);
}

void pair_turn(Pump *pump, Thing *thing) { take_turn(pump, (Pair *)thing); }

/* It is not here any more: no event, no turn, nothing told. */
void forget(Pump *pump, Pair *pair)
{
    for (int which = 0; which < 2; which++) {
        if (pair->side[which].fd >= 0)
            epoll_ctl(pump->epoll, EPOLL_CTL_DEL, pair->side[which].fd, NULL);
        pump->held -= pair->side[which].held_size;
    }
    leave(&pair->kin);
    leave(&pair->young);
    leave(&pair->held);
    detach(pump, &pair->thing);
}

/* Python has it from now on, or it was over and is freed behind that. */
void was_fetched(Pump *pump, Pair *pair, Told *told)
{
    Thing *maker = find(pump, pair->maker);
    told->made = pair;
    told->side = pair->cut_side;
    told->error = pair->cut_error;
    pair->made = false;
    pump->made--;
    leave(&pair->young);
    if (!(pair->thing.news & (DONE | CUT)) && pump->most) /* Python's own are not counted here */
        pump->most--;
    if (maker != NULL && maker->kind->fetched != NULL)
        maker->kind->fetched(pump, maker, pair);
    if (pair->thing.over) {
        forget(pump, pair);
        told->gone = &pair->thing;
    }
}

/* One that was made here: if it is over it is freed, else it is Python's from now on, as if it had joined it. */
static void pair_told(Pump *pump, Thing *thing, Told *told)
{
    Pair *pair = (Pair *)thing;
    told->side = pair->cut_side;
    told->error = pair->cut_error;
    if (!pair->made)
        return;
    told->news |= OPENED;
    was_fetched(pump, pair, told);
}

void begin_side(Side *side, int fd, unsigned state, uint64_t taken, size_t first)
{
    side->fd = fd;
    side->room = first;
    side->read_ended = state & READ_ENDED;
    side->write_ended = state & WRITE_ENDED;
    side->ending = state & (READ_ENDED | IS_ENDING);
    atomic_init(&side->taken, taken);
    atomic_init(&side->state, state);
}

/* One without sides yet, in no slot; all else of it is zero. */
void begin_pair(Pair *pair, const Kind *kind, size_t first, size_t most, size_t calm, size_t pool)
{
    begin_thing(&pair->thing, kind);
    ring(&pair->kin);
    ring(&pair->young);
    ring(&pair->held);
    pair->side[0].fd = pair->side[1].fd = -1;
    pair->first = first < LARGEST ? first : LARGEST;
    pair->most = most < LARGEST ? most : LARGEST;
    pair->calm = calm;
    pair->pool = pool;
}

/* The same; NULL: no memory. */
Pair *new_pair(const Kind *kind, size_t first, size_t most, size_t calm, size_t pool)
{
    Pair *pair = calloc(1, sizeof *pair);
    if (pair != NULL)
        begin_pair(pair, kind, first, most, calm, pool);
    return pair;
}

/* One that was made here is Python's from now on, as it is. */
void give_up(Pump *pump, Pair *pair, int side, int error)
{
    pair->cut_side = side;
    pair->cut_error = error;
    pair->ended = now();
    tell(pump, &pair->thing, GIVEN);
}

/* Its memory; a pair that nobody was told of any more has its descriptors closed. */
void free_pair(Thing *thing)
{
    Pair *pair = (Pair *)thing;
    for (int which = 0; which < 2; which++) {
        if (pair->made)
            close_side(&pair->side[which], false);
        free(pair->side[which].held);
    }
    free(pair->said);
    free(pair->heard);
    free(pair);
}

const Kind joined = {pair_happened, pair_turn, pair_told, free_pair, NULL};
