"""What DNS lists under a name: its order, and answers of a real name server over loopback."""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.names import dns

from revtunnel.sockets.ways.service_names import Found, Listed, in_order, look_up, name_servers
from tests.support.epoll import Loop, own_reactor
from tests.support.name_server import Zone, served

NAME = "_revtunnel._tcp.example"
LISTED = st.lists(
    st.builds(Listed, st.integers(0, 3), st.integers(0, 65535), st.just("gate"), st.integers(1, 65535)),
    max_size=9,
)


@given(LISTED, st.floats(0, 1, exclude_max=True))
def test_every_record_has_its_turn_by_priority(listed: list[Listed], chance: float) -> None:
    """Whatever chance says, none is lost and none comes before one of a smaller priority."""
    order = in_order(listed, lambda: chance)
    assert Counter(order) == Counter(listed)
    assert [each.priority for each in order] == sorted(each.priority for each in listed)


def test_weights_are_chances() -> None:
    """Three times the weight is first three times as often; no weight is hardly ever."""
    listed = [Listed(0, 30, "a", 1), Listed(0, 10, "b", 1), Listed(0, 0, "c", 1)]
    random = Random(1).random
    firsts = Counter(in_order(listed, random)[0].host for _ in range(4000))
    assert 2800 < firsts["a"] < 3200
    assert 800 < firsts["b"] < 1200
    assert 0 < firsts["c"] < 200


def test_the_name_servers_of_a_machine(tmp_path: Path) -> None:
    """As its file says, three at most; itself where that says none."""
    file = tmp_path / "resolv.conf"
    assert name_servers(str(file)) == [("127.0.0.1", 53)]
    file.write_text(
        "search example\nnameserver 192.0.2.1\nnameserver\nnameserver fe80::1%eth0\nnameserver gate\n"
    )
    assert name_servers(str(file)) == [("192.0.2.1", 53), ("fe80::1%eth0", 53)]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A reactor of our own."""
    with own_reactor() as found:
        yield found


def ask(loop: Loop, *servers: tuple[str, int]) -> Any:
    """The answer, or the error."""
    told: list[Any] = []
    Deferred.fromCoroutine(look_up(loop.reactor, NAME, servers)).addBoth(told.append)
    loop.until(lambda: told, "an answer")
    return getattr(told[0], "value", told[0])


def test_an_answer_of_a_name_server(loop: Loop) -> None:
    """Records with their TTL, the smallest; what cannot be dialled is passed over."""
    listed = [(0, 5, 2065, "gate-1.example", 300), (1, 0, 2066, "gate-2.example", 60)]
    odd = [(0, 0, 0, "gate-3.example", 60), (0, 0, 1, "192.0.2.1", 60)]
    zone = Zone({NAME: listed + odd})
    with served(loop, zone) as place:
        found = ask(loop, place)
    assert found == Found((Listed(0, 5, "gate-1.example", 2065), Listed(1, 0, "gate-2.example", 2066)), 60.0)


def test_a_long_answer_comes_by_tcp(loop: Loop) -> None:
    """A datagram holds half a kilobyte; of many servers sixteen are taken."""
    many = [(0, 0, 2065, f"gate-{number}.a-long-name-for-a-node.example", 60) for number in range(40)]
    with served(loop, Zone({NAME: many})) as place:
        found = ask(loop, place)
    assert len(found.listed) == 16


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (None, "it has no SRV record"),
        ([], "it has no SRV record"),
        ([(0, 0, 0, "", 60)], "DNS says that this service is not offered"),
        ([(0, 0, 2065, "gate_1 .example", 60)], "no record of it names a server"),
        ([(0, 0, 2065, "\xff.example", 60)], "no record of it names a server"),
    ],
)
def test_a_name_without_a_server_is_refused_in_words(loop: Loop, records: Any, said: str) -> None:
    """Unknown, without a record, closed by the root as its target, or odd."""
    zone = Zone({} if records is None else {NAME: records})
    with served(loop, zone) as place:
        error = ask(loop, place)
    assert isinstance(error, OSError)
    assert not isinstance(error, TimeoutError)
    assert error.strerror == f"{NAME}: {said}"


def test_the_next_name_server_is_asked(loop: Loop) -> None:
    """Where one says that it failed, or refuses, or is not there; and all say why together."""
    zone = Zone({NAME: [(0, 0, 2065, "gate.example", 60)]})
    with served(loop, Zone({}, code=dns.ESERVER)) as failing, served(loop, zone) as place:
        assert ask(loop, failing, place).listed == (Listed(0, 0, "gate.example", 2065),)
        error = ask(loop, failing)
        assert isinstance(error, TimeoutError)
        assert error.strerror == f"{NAME}: name server 127.0.0.1 says that it failed"


def test_a_name_server_that_says_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its time, three times; then that is said."""
    monkeypatch.setattr("revtunnel.sockets.ways.service_names.TRIES", (0.05, 0.05))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        error = ask(loop, silent.getsockname())
    assert isinstance(error, TimeoutError)
    assert error.strerror == f"{NAME}: no name server answered"


def test_noise_and_nobody(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is none, in any way, and a port where nobody is, are said; an answer to another question
    is not heard."""
    monkeypatch.setattr("revtunnel.sockets.ways.service_names.TRIES", (1.0,))
    random = Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
        noisy.bind(("127.0.0.1", 0))
        noisy.setblocking(False)
        place = noisy.getsockname()

        def answer() -> None:
            with contextlib.suppress(BlockingIOError):
                query, peer = noisy.recvfrom(1000)
                noisy.sendto(b"??" + query[2:], peer)
                head = query[:2] + b"\x81\x80\0\1" + random.randbytes(1) + random.randbytes(1) + bytes(4)
                noisy.sendto(
                    head + query[12 : random.randrange(13, 40)] + random.randbytes(random.randrange(60)), peer
                )

        for _ in range(300):
            told: list[Any] = []
            Deferred.fromCoroutine(look_up(loop.reactor, NAME, [place])).addBoth(told.append)
            loop.until(lambda: answer() or told, "an answer")  # noqa: B023
            assert isinstance(told[0].value, OSError)
            assert str(told[0].value.strerror).startswith(f"{NAME}: ")
    error = ask(loop, place)
    assert error.strerror == f"{NAME}: name server 127.0.0.1: refused the connection"
