"""Tickets are good once, in time, for whom they were made; numbers are those of no link's own channel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.carriers.tickets import FIRST_NUMBER, Numbering, Tickets, number_in
from revtunnel.streams.commands import TICKET_SIZE, number_of


def counting() -> Tickets[str]:
    """Tickets whose random bytes are a count."""
    made = iter(range(1 << 30))
    return Tickets(lambda size: next(made).to_bytes(size, "big"))


def test_a_ticket_has_its_number_and_random_bytes() -> None:
    """Four bytes and twelve, which are asked for in numbers and given once."""
    asked: list[int] = []

    def random_bytes(size: int) -> bytes:
        asked.append(size)
        return b"".join(bytes([0xAB - number]) * 12 for number in range(size // 12))

    tickets = Tickets[str](random_bytes)
    ticket = tickets.issue("link", 0x01020304, 30.0)
    assert ticket == b"\1\2\3\4" + b"\xab" * 12
    more = {tickets.issue("link", 0, 30.0)[4:] for _ in range(63)}
    assert len(more) == 63 and all(len(each) == 12 for each in more)
    assert asked == [64 * 12]
    assert tickets.issue("link", 0, 30.0)[4:] == b"\xab" * 12 and len(asked) == 2
    assert len(ticket) == TICKET_SIZE
    assert number_of(ticket) == 0x01020304


def test_a_ticket_is_good_once() -> None:
    """The second time it is nobody's, and so is one that was never made."""
    tickets = counting()
    ticket = tickets.issue("link", 256, 30.0)
    assert tickets.redeem(ticket, 29.9) == "link"
    assert tickets.redeem(ticket, 29.9) is None
    assert tickets.redeem(bytes(16), 0.0) is None
    assert tickets.redeem(ticket[:-1], 0.0) is None
    assert len(tickets) == 0


def test_a_late_ticket_is_refused_and_forgotten() -> None:
    """On the second at which it ends."""
    tickets = counting()
    ticket = tickets.issue("link", 256, 30.0)
    assert tickets.redeem(ticket, 30.0) is None
    assert tickets.redeem(ticket, 0.0) is None


def test_a_ticket_can_be_withdrawn() -> None:
    """Once; who holds it then gets nothing."""
    tickets = counting()
    ticket = tickets.issue("link", 256, 30.0)
    assert tickets.withdraw(ticket)
    assert not tickets.withdraw(ticket)
    assert tickets.redeem(ticket, 0.0) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=20), st.randoms())
def test_every_ticket_leads_to_its_own_holder(made: list[tuple[str, float]], random: object) -> None:
    """Whatever the order; and never to two."""
    tickets = counting()
    out = [
        (tickets.issue(holder, number, until), holder, until) for number, (holder, until) in enumerate(made)
    ]
    random.shuffle(out)  # type: ignore[attr-defined]
    for ticket, holder, until in out:
        found = tickets.redeem(ticket, 50.0)
        assert found == (holder if until > 50.0 else None)
        assert tickets.redeem(ticket, 0.0) is None
    assert len(tickets) == 0


def test_numbers_begin_behind_those_of_a_link() -> None:
    """256 and up, and again from there when a door could not say more."""
    numbering = Numbering()
    assert [numbering.take() for _ in range(3)] == [256, 257, 258]
    numbering._next = 2**31 - 1
    assert [numbering.take(), numbering.take()] == [2**31 - 1, FIRST_NUMBER]


@pytest.mark.parametrize("share", [0, 1, 2])
def test_several_processes_share_the_numbers(share: int) -> None:
    """Each has every third one, and a ticket tells whose it is, also after the last number."""
    numbering = Numbering(share, 3)
    for _ in range(2):
        numbers = [numbering.take() for _ in range(3)]
        assert numbers[0] in (256, 257, 258) and numbers[1] - numbers[0] == numbers[2] - numbers[1] == 3
        assert {number % 3 for number in numbers} == {share}
        numbering._next = 2**31 - 1 - (2**31 - 1 - share) % 3
        last = numbering.take()
        assert last < 2**31 and last % 3 == share
    ticket = Tickets(lambda size: bytes(size)).issue("plc-7", numbers[1], 1.0)
    assert number_in(ticket) == numbers[1]
