"""The outbox of a peer: whole messages or none, within its limits, in their order."""

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.limits import CameoLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_outbox import PORTION, Outbox

LIMITS = CameoLimits(queue_messages=3, queue=100)


def an_outbox(limits: CameoLimits = LIMITS, pool: int = 1000) -> tuple[Outbox, CreditPool, list[int]]:
    """An outbox, its pool, and a list that has an entry for every report."""
    told: list[int] = []
    shared = CreditPool(pool)
    return Outbox(limits, shared, lambda: told.append(1)), shared, told


def test_a_peer_that_takes_has_no_limit_within_a_turn() -> None:
    """What one read brings goes out together, however many messages it is."""
    outbox, pool, told = an_outbox()
    assert all(outbox.add(b"a", b"b") for _ in range(1000))
    assert b"".join(outbox.turn()) == b"ab" * 1000
    assert (outbox.messages_sent, outbox.dropped, told, pool.used, outbox.turn()) == (1000, 0, [], 0, [])


def test_z5_beyond_its_limits_whole_messages_are_dropped_counted_and_told_once() -> None:
    """By number and by bytes; the next burst is told again, once the queue was empty between."""
    outbox, pool, told = an_outbox()
    outbox.full = True
    assert [outbox.add(b"x", b"1234") for _ in range(5)] == [True, True, True, False, False]
    assert (outbox.waiting, outbox.waiting_bytes, outbox.dropped, told) == (3, 15, 2, [1])
    assert outbox.portion() == b"x1234" * 3
    assert (outbox.portion(), pool.used) == (b"", 0)
    assert outbox.add(b"y" * 60) and not outbox.add(b"z" * 60)
    assert (outbox.dropped, told) == (3, [1, 1])


def test_one_message_may_wait_however_large() -> None:
    """Else a message above the queue's bytes could never be had."""
    outbox, pool, _ = an_outbox()
    outbox.full = True
    assert outbox.add(b"x" * 500)
    assert not outbox.add(b"y")
    assert pool.used == 500


def test_the_pool_is_shared_and_given_back() -> None:
    """All peers together have a limit; a peer that leaves gives back what waited for it."""
    first, pool, _ = an_outbox(pool=150)
    second = Outbox(LIMITS, pool, lambda: None)
    first.full = second.full = True
    assert first.add(b"x" * 100)
    assert not second.add(b"y" * 60)
    first.clear()
    assert (pool.used, first.waiting) == (0, 0)
    assert second.add(b"y" * 60)


def test_portions_are_of_whole_messages_and_not_much_larger_than_wanted() -> None:
    """The transport gets enough to be busy, the rest waits on."""
    outbox, _, _ = an_outbox(CameoLimits(), 1 << 30)
    outbox.full = True
    for number in range(10):
        outbox.add(bytes((number,)) * (PORTION // 3))
    sizes = []
    while portion := outbox.portion():
        sizes.append(len(portion) / (PORTION // 3))
    assert sizes == [4.0, 4.0, 2.0]


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from(["full", "free", "turn"]))))
def test_order_is_kept_and_nothing_is_cut(steps: list[bytes | str]) -> None:
    """Whatever happens, what is written is the accepted messages in their order."""
    outbox, pool, _ = an_outbox()
    accepted, wire = [], []
    for step in steps:
        if isinstance(step, bytes):
            accepted += [step] if outbox.add(step) else []
        elif step == "free":
            outbox.full = False
            while portion := outbox.portion():
                wire.append(portion)
        else:
            wire += outbox.turn()
            outbox.full = outbox.full or step == "full"
    outbox.full = False
    wire += [*outbox.turn(), outbox.portion()]
    assert b"".join(wire) == b"".join(accepted)
    assert pool.used == 0 and outbox.messages_sent == len(accepted)
    assert outbox.bytes_sent == len(b"".join(accepted))
