/* The table of things, the thread's loop, and what Python is told: the data plane's middle.

One lock guards all things. The thread holds it for one turn of one of them; a second lock makes a queue of it,
so that a thread under load hands it over (``acquire``). An event names a thing by its slot and the slot's
generation, so that one of a thing taken back meanwhile is known as such. Slots are given and freed by Python's
thread only. Whoever became ready has a turn before those that go on with bulk, and epoll is asked between
their turns.

News for Python stand in one ring, a thing at most once. What Python has to do something for is told at once
(``tell``); what it only has to know, such as the end of a pair that was made and closed here, with the next
tick, so that under load it is woken once for many. A pair made here that has lived for YOUNG is told too.

Source: epoll(7); ours. */

#include "_pump.h"

#include <time.h>

void ring(Link *link) { link->before = link->behind = link; }

void leave(Link *link)
{
    link->before->behind = link->behind;
    link->behind->before = link->before;
    ring(link);
}

void append(Link *to, Link *link)
{
    leave(link);
    link->before = to->before;
    link->behind = to;
    to->before->behind = link;
    to->before = link;
}

bool in_none(const Link *link) { return link->behind == link; }

void acquire(Pump *pump)
{
    pthread_mutex_lock(&pump->queue);
    pthread_mutex_lock(&pump->lock);
    pthread_mutex_unlock(&pump->queue);
}

void release(Pump *pump) { pthread_mutex_unlock(&pump->lock); }

/* Monotonic nanoseconds. */
int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* -- slots */

void begin_thing(Thing *thing, const Kind *kind)
{
    thing->kind = kind;
    ring(&thing->turn);
    ring(&thing->told);
}

Thing *find(Pump *pump, uint64_t handle)
{
    uint32_t number = (uint32_t)handle;
    if (number >= pump->size || pump->slots[number].generation != (uint32_t)(handle >> 32))
        return NULL;
    return pump->slots[number].thing;
}

/* A slot for a thing; false: no memory. */
bool place(Pump *pump, Thing *thing)
{
    if (pump->free == pump->size) {
        uint32_t size = pump->size ? pump->size * 2 : 64;
        Slot *slots = size > 1u << 30 ? NULL : realloc(pump->slots, size * sizeof *slots);
        if (slots == NULL)
            return false;
        for (uint32_t number = pump->size; number < size; number++)
            slots[number] = (Slot){NULL, 1, number + 1};
        pump->slots = slots;
        pump->size = size;
    }
    uint32_t number = pump->free;
    thing->handle = (uint64_t)pump->slots[number].generation << 32 | number;
    pump->free = pump->slots[number].next;
    pump->slots[number].thing = thing;
    return true;
}

/* Nobody finds it any more, and no turn of it will come. What epoll has of it is the caller's. */
void detach(Pump *pump, Thing *thing)
{
    leave(&thing->turn);
    leave(&thing->told);
    if (thing->handle == 0)
        return;
    Slot *slot = &pump->slots[(uint32_t)thing->handle];
    slot->thing = NULL;
    slot->generation += slot->generation == UINT32_MAX ? 2 : 1; /* never 0 */
    slot->next = pump->free;
    pump->free = (uint32_t)thing->handle;
}

int watch(Pump *pump, Thing *thing, int side, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    event.data.u64 = thing->handle | (side ? 1ull << 31 : 0);
    return epoll_ctl(pump->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* -- news */

void tell(Pump *pump, Thing *thing, unsigned news)
{
    tell_later(pump, thing, news);
    pump->tell = true;
}

void tell_later(Pump *pump, Thing *thing, unsigned news)
{
    thing->news |= news;
    thing->over = thing->over || news & (DONE | CUT | GIVEN);
    if (in_none(&thing->told))
        append(&pump->told, &thing->told);
    pump->tell_later = true;
}

/* Those made here that have lived long enough for Python to know of them, or all. */
void tell_young(Pump *pump, bool all)
{
    int64_t old = now() - YOUNG;
    while (!in_none(&pump->young)) {
        Pair *pair = PAIR_OF(pump->young.behind, young);
        if (!all && pair->came > old)
            break;
        leave(&pair->young);
        tell_later(pump, &pair->thing, 0);
    }
}

/* What may wait is told, if it is time; true: there is something that waits. */
static bool tick(Pump *pump)
{
    bool waits = dials_tick(pump);
    waits = doors_wait(pump) || waits;
    if (!pump->tell_later && in_none(&pump->young) && !waits)
        return false;
    int64_t time = now();
    if (time - pump->ticked >= TICK) {
        pump->ticked = time;
        tell_young(pump, false);
        pump->tell = pump->tell || pump->tell_later;
    }
    return pump->tell_later || !in_none(&pump->young) || waits;
}

/* Keep bytes behind those that are kept already; false: no memory. */
bool keep(char **kept, size_t *size, const char *data, size_t more)
{
    char *place = more ? realloc(*kept, *size + more) : *kept;
    if (more && place == NULL)
        return false;
    if (more)
        memcpy(place + *size, data, more);
    *kept = place;
    *size += more;
    return true;
}

/* -- the loop */

static Thing *next_of(Link *ring)
{
    return in_none(ring) ? NULL : THING_OF(ring->behind, turn);
}

static void happened(Pump *pump, const struct epoll_event *event)
{
    uint64_t key = event->data.u64;
    Thing *thing = find(pump, key & ~(1ull << 31));
    if (thing != NULL && !thing->over)
        thing->kind->happened(pump, thing, key >> 31 & 1, event->events);
}

static void have_turn(Pump *pump, Thing *thing)
{
    leave(&thing->turn);
    if (!thing->over)
        thing->kind->take_turn(pump, thing);
}

/* Have the thread look at what is due. */
void wake(Pump *pump)
{
    uint64_t one = 1;
    if (write(pump->wake_fd, &one, sizeof one) < 0)
        ; /* it is awake */
}

/* One batch of events, a turn of each thing they are for, and one of bulk; true: there is more of that. */
bool run(Pump *pump, int timeout)
{
    struct epoll_event events[BATCH];
    uint64_t one = 1;
    Thing *thing;
    int count = epoll_wait(pump->epoll, events, BATCH, timeout);
    acquire(pump);
    for (int i = 0; i < count; i++)
        if (events[i].data.u64 != WAKE)
            happened(pump, &events[i]);
        else if (read(pump->wake_fd, &one, sizeof one) < 0)
            ; /* another has read it */
    bool waits = next_of(&pump->bulk) != NULL; /* who has just had a turn waits for the next round */
    while ((thing = next_of(&pump->fresh)) != NULL) {
        have_turn(pump, thing);
        release(pump);
        acquire(pump);
    }
    if (waits && (thing = next_of(&pump->bulk)) != NULL)
        have_turn(pump, thing);
    look_at_doors(pump);
    bool more = next_of(&pump->bulk) != NULL || next_of(&pump->fresh) != NULL;
    pump->ticks = tick(pump);
    bool tell = pump->tell;
    if (tell)
        pump->tell = pump->tell_later = false;
    release(pump);
    one = 1;
    if (tell && write(pump->told_fd, &one, sizeof one) < 0)
        ; /* EAGAIN alone is possible: it is told already */
    return more;
}

void *work(void *argument)
{
    Pump *pump = argument;
    bool more = false;
    pthread_setname_np(pthread_self(), "revtunnel-pump");
    while (!atomic_load(&pump->stopping))
        more = run(pump, more ? 0 : pump->ticks ? TICK / 1000000 : -1);
    return NULL;
}
