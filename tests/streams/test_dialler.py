"""What an agent dials, what it refuses to dial, how many at once, and the word of each failure."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.targets import Offer, Target, parse_offer, parse_target, target_of
from revtunnel.sockets.ends import End
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.streams.dialler import Dialler, Header, NotDialled
from tests.support.reactor import HANGS, MemoryReactor
from tests.support.recorder import Recorder

LIMITS = AgentLimits()


class Dials:
    """A dialler in its reactor, and what became of each dial: None, a socket, or a NotDialled."""

    def __init__(
        self,
        *written: str,
        limits: AgentLimits = LIMITS,
        headers: Mapping[Target, Header] | None = None,
        at_once: Mapping[Target, int] | None = None,
    ) -> None:
        self.reactor = MemoryReactor()
        self.dialler = Dialler(
            self.reactor,
            limits,
            [parse_offer(f"t{n}={w}") for n, w in enumerate(written)],
            headers,
            self.reactor.reach,
            at_once,
        )
        self.running: list[Deferred[End]] = []
        self.results: list[object] = []

    def serve(self, host: str, port: int) -> list[Recorder]:
        """A service; returns the connections it will have."""
        made: list[Recorder] = []

        class Services(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Recorder:
                made.append(Recorder())
                return made[-1]

        self.reactor.serve(host, port, Services())
        return made

    def dial(self, target: str | Target) -> "Dials":
        """Dial once more."""
        place = len(self.results)
        self.results.append(None)
        dialled = self.dialler.dial(parse_target(target) if isinstance(target, str) else target)
        self.running.append(dialled)

        def done(result: object) -> None:
            self.results[place] = getattr(result, "value", result)

        dialled.addBoth(done)
        return self

    def word(self, at: int = -1) -> str:
        """How a dial ended."""
        result = self.results[at]
        return result.reason.word if isinstance(result, NotDialled) else type(result).__name__


def test_a_target_that_is_taken_off_the_list_is_not_dialled() -> None:
    """At once, and again once it is back; one that is new is."""
    dials = Dials("10.0.0.5:23", "10.0.0.5:80")
    dials.serve("10.0.0.5", 23)
    dials.serve("10.0.0.6", 23)
    assert dials.dial("10.0.0.6:23").word() == "not-allowed"
    dials.dialler.offer([parse_offer("10.0.0.5:80"), parse_offer("10.0.0.6:23")])
    assert dials.dial("10.0.0.5:23").word() == "not-allowed"
    dials.dial("10.0.0.6:23").reactor.pump()
    assert dials.word() == "PlainEnd"
    dials.dialler.offer([parse_offer("10.0.0.5:23")])
    dials.dial("10.0.0.5:23").reactor.pump()
    assert dials.word() == "PlainEnd"


def test_a_listed_target_is_reached() -> None:
    """A literal address needs no resolver."""
    dials = Dials("10.0.0.5:23", "[2001:db8::5]:23")
    four, six = dials.serve("10.0.0.5", 23), dials.serve("2001:db8::5", 23)
    dials.dial("10.0.0.5:23").dial("[2001:DB8:0::5]:23").reactor.pump()
    assert [dials.word(0), dials.word(1)] == ["PlainEnd", "PlainEnd"]
    assert (len(four), len(six)) == (1, 1)
    assert dials.reactor.names.asked == []


@pytest.mark.parametrize(
    "target", ["10.0.0.5:24", "10.0.0.6:23", "printer.local.evil:9100", "unix:/run/other", "localhost:23"]
)
def test_f16_what_is_not_listed_is_not_dialled(target: str) -> None:
    """No dial, no question to the resolver."""
    dials = Dials("10.0.0.5:23", "printer.local:9100", "unix:/run/one").dial(target)
    assert dials.word() == "not-allowed"
    assert "list" in str(dials.results[0])
    assert dials.reactor.dialled == []
    assert dials.reactor.names.asked == []


@pytest.mark.parametrize(
    ("listed", "host"),
    [
        ("10.0.0.5:23", "::ffff:10.0.0.5"),
        ("[2001:db8::5]:23", "2001:0db8:0000::0005"),
        ("Printer.Local:23", "printer.LOCAL."),
    ],
)
def test_n33_the_list_compares_canonical_forms(listed: str, host: str) -> None:
    """Another spelling of a listed target is that target."""
    dials = Dials(listed)
    dials.reactor.names.answers["printer.local"] = ["10.0.0.5"]
    dials.serve("10.0.0.5", 23)
    dials.serve("2001:db8::5", 23)
    dials.dial(target_of(host, 23)).reactor.pump()
    assert dials.word() == "PlainEnd"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
    ],
)
def test_a_name_does_not_lead_to_guarded_addresses(address: str) -> None:
    """Loopback, link-local, cloud metadata and multicast are not reached by way of a name."""
    dials = Dials("printer.local:23")
    dials.reactor.names.answers["printer.local"] = [address]
    dials.serve(address, 23)
    dials.dial("printer.local:23").reactor.pump()
    assert dials.word() == "unreachable"
    assert "not allowed" in str(dials.results[0])
    assert dials.reactor.dialled == []


def test_a_name_with_good_and_guarded_addresses_leads_to_the_good_one() -> None:
    """Only the guarded ones are left out."""
    dials = Dials("printer.local:23")
    dials.reactor.names.answers["printer.local"] = ["127.0.0.1", "10.0.0.5"]
    made = dials.serve("10.0.0.5", 23)
    dials.dial("printer.local:23").reactor.pump()
    assert dials.word() == "PlainEnd"
    assert len(made) == 1
    assert dials.reactor.dialled == [("10.0.0.5", 23)]


@pytest.mark.parametrize("target", ["127.0.0.1:23", "[::1]:23", "169.254.169.254:23", "localhost:23"])
def test_written_literally_guarded_addresses_are_allowed(target: str) -> None:
    """``--local 127.0.0.1:23`` and ``--local localhost:23`` say what they mean."""
    dials = Dials(target)
    parsed = parse_target(target)
    dials.serve("127.0.0.1" if parsed.host == "localhost" else parsed.host, 23)
    dials.dial(target).reactor.pump()
    assert dials.word() == "PlainEnd"


@pytest.mark.parametrize(
    "name", ["my_printer.local", "_http._tcp.local", "a--b.local", "xn--bcher-kva.local"]
)
def test_odd_names_are_dialled(name: str) -> None:
    """What the grammar of targets lets through is asked of the resolver."""
    dials = Dials(f"{name}:23")
    dials.reactor.names.answers[name] = ["10.0.0.5"]
    dials.serve("10.0.0.5", 23)
    dials.dial(f"{name}:23").reactor.pump()
    assert dials.word() == "PlainEnd"


def test_n32_an_unknown_name() -> None:
    """No address at all is unreachable, at once."""
    dials = Dials("printer.local:23").dial("printer.local:23")
    dials.reactor.pump()
    assert dials.word() == "unreachable"


def test_n32_a_resolver_that_hangs_is_given_up_after_10_s() -> None:
    """The word says that time was the reason; a late answer is dropped and opens nothing."""
    dials = Dials("printer.local:23")
    names = dials.reactor.names
    names.answers["printer.local"] = ["10.0.0.5"]
    names.held.add("printer.local")
    dials.dial("printer.local:23").reactor.advance(10.5)
    assert dials.word() == "timed-out"
    names.release()
    dials.reactor.pump()
    assert dials.reactor.dialled == []
    assert dials.reactor.getDelayedCalls() == []


def test_n32_twenty_addresses_that_hang_are_given_up_after_10_s() -> None:
    """One after the other is tried, 16 at most, and all are given up together."""
    dials = Dials("printer.local:23")
    addresses = [f"10.0.0.{n}" for n in range(20)]
    dials.reactor.names.answers["printer.local"] = addresses
    dials.reactor.faults.update({(address, 23): HANGS for address in addresses})
    dials.dial("printer.local:23").reactor.advance(10.5)
    assert dials.word() == "timed-out"
    assert len(dials.reactor.dialled) == 16
    assert dials.reactor.dialling == 0
    assert dials.reactor.getDelayedCalls() == []


def test_n32_a_dead_address_before_a_good_one() -> None:
    """The second address is tried after 0.3 s, not after the time-out of the first."""
    dials = Dials("printer.local:23")
    dials.reactor.names.answers["printer.local"] = ["2001:db8::5", "10.0.0.5"]
    dials.reactor.faults["2001:db8::5", 23] = HANGS
    dials.serve("10.0.0.5", 23)
    dials.dial("printer.local:23").reactor.advance(0.5)
    assert dials.word() == "PlainEnd"
    assert dials.reactor.dialling == 0


def test_n32_four_lookups_at_once() -> None:
    """The others wait for a place; literal targets do not."""
    written = [f"name{n}.local:23" for n in range(10)]
    dials = Dials(*written, "10.0.0.5:23")
    names = dials.reactor.names
    names.held.update(f"name{n}.local" for n in range(10))
    names.answers.update({f"name{n}.local": ["10.0.0.5"] for n in range(10)})
    made = dials.serve("10.0.0.5", 23)
    for name in written:
        dials.dial(name)
    dials.dial("10.0.0.5:23").reactor.pump()
    assert len(names.asked) == 4
    assert len(made) == 1
    for _ in range(3):
        names.release(4)
        dials.reactor.pump()
    assert names.most_asking == 4
    assert len(made) == 11
    assert {dials.word(at) for at in range(11)} == {"PlainEnd"}


def test_f19_at_most_64_dials_and_256_waiting() -> None:
    """The 321st is refused at once; when a dial ends the next begins."""
    dials = Dials("10.0.0.5:23", "10.0.0.6:23")
    dials.reactor.faults["10.0.0.5", 23] = HANGS
    for _ in range(330):
        dials.dial("10.0.0.5:23")
    assert dials.results.count(None) == 320
    assert {dials.word(at) for at in range(320, 330)} == {"out-of-resources"}
    dials.reactor.pump()
    assert dials.reactor.dialling == 64
    dials.reactor.advance(10.5)
    assert dials.results.count(None) == 256
    assert dials.reactor.most_dialling == 64
    dials.reactor.advance(50)
    assert dials.results.count(None) == 0
    assert dials.reactor.most_dialling == 64


def test_cancelled_dials_free_their_places() -> None:
    """Running and waiting ones: nothing is left of them, and others take the places."""
    dials = Dials("10.0.0.5:23", limits=replace(LIMITS, dials=2, dials_waiting=3))
    dials.reactor.faults["10.0.0.5", 23] = HANGS
    for _ in range(6):
        dials.dial("10.0.0.5:23")
    assert dials.word(5) == "out-of-resources"
    dials.reactor.pump()
    for dialled in dials.running[2:5]:
        dialled.cancel()
    for _ in range(3):
        dials.dial("10.0.0.5:23")
    assert dials.results[6:] == [None] * 3
    dials.running[0].cancel()
    dials.reactor.pump()
    assert dials.reactor.dialling == 2
    assert len(dials.reactor.dialled) == 3


def test_a_dial_that_waited_can_be_cancelled_when_it_runs() -> None:
    """Its callbacks were there before its connect began."""
    dials = Dials("10.0.0.5:23", "10.0.0.6:23", limits=replace(LIMITS, dials=1))
    dials.reactor.faults["10.0.0.5", 23] = HANGS
    dials.dial("10.0.0.6:23").dial("10.0.0.5:23").reactor.pump()
    assert dials.word(0) == "refused"
    assert dials.reactor.dialling == 1
    dials.running[1].cancel()
    dials.reactor.pump()
    assert dials.reactor.dialling == 0
    assert dials.reactor.getDelayedCalls() == []


def test_a_dial_cancelled_while_its_name_is_looked_up() -> None:
    """The late answer dials nothing, and its place is free at once."""
    dials = Dials("printer.local:23", limits=replace(LIMITS, dials=1))
    names = dials.reactor.names
    names.held.add("printer.local")
    names.answers["printer.local"] = ["10.0.0.5"]
    dials.dial("printer.local:23").dial("printer.local:23")
    dials.running[0].cancel()
    names.release()
    dials.reactor.advance(1.0)
    assert dials.word(1) == "refused"
    assert dials.reactor.dialled == [("10.0.0.5", 23)]


def test_unix_targets() -> None:
    """A path is dialled as it is written; one where nobody listens is refused."""
    dials = Dials("unix:/run/one", "unix:/run/two")
    dials.serve("/run/one", 0)
    dials.reactor.faults["/run/two", 0] = OSError(2, "no such file")
    dials.dial("unix:/run/one").dial("unix:/run/two").reactor.pump()
    assert dials.word(0) == "PlainEnd"
    assert dials.word(1) == "refused"


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (OSError(24, "Too many open files"), "out-of-resources"),
        (OSError(23, "Too many open files in system"), "out-of-resources"),
        (OSError(105, "No buffer space"), "out-of-resources"),
        (OSError(111, "refused"), "refused"),
        (OSError(2, "no such file"), "refused"),
        (OSError(110, "timed out"), "timed-out"),
        (OSError(113, "no route"), "unreachable"),
        (OSError(101, "network is down"), "unreachable"),
        (OSError("whatever"), "unreachable"),
        (ValueError("odd"), "unreachable"),
    ],
)
def test_n2_the_word_of_each_failure(problem: BaseException, word: str) -> None:
    """EMFILE is ours, not the target's; the text names the target."""
    dials = Dials("10.0.0.5:23")
    dials.reactor.faults["10.0.0.5", 23] = problem
    dials.dial("10.0.0.5:23").reactor.pump()
    assert dials.word() == word
    assert "10.0.0.5:23" in str(dials.results[0])


def test_limits_can_change() -> None:
    """More dials at once from the next on."""
    dials = Dials("10.0.0.5:23", limits=replace(LIMITS, dials=1))
    dials.reactor.faults["10.0.0.5", 23] = HANGS
    dials.dial("10.0.0.5:23").dial("10.0.0.5:23").reactor.pump()
    assert dials.reactor.dialling == 1
    dials.dialler.set_limits(replace(LIMITS, dials=3))
    dials.dial("10.0.0.5:23").reactor.pump()
    assert dials.reactor.dialling == 3


def test_offers_of_the_same_target_are_one() -> None:
    """Two names for one target."""
    reactor = MemoryReactor()
    target = parse_target("10.0.0.5:23")
    dialler = Dialler(reactor, LIMITS, [Offer("a", target), Offer("b", target)], reach=reactor.reach)
    result: list[object] = []
    dialler.dial(target).addBoth(result.append)
    reactor.pump()
    assert result[0].value.reason.word == "refused"  # type: ignore[attr-defined]


CLIENT = Origin("192.0.2.1", 56324, "198.51.100.9", 443)


@pytest.mark.parametrize("encode", [encode_header_v1, encode_header_v2])
@pytest.mark.parametrize("origin", [CLIENT, None])
def test_a_target_that_wants_it_is_told_its_client_first(encode: Header, origin: Origin | None) -> None:
    """The header is there before the caller can write; a client that nobody knows is said to be unknown."""
    dials = Dials("10.0.0.5:23", "10.0.0.6:23", headers={Target("10.0.0.5", 23): encode})
    told, other = dials.serve("10.0.0.5", 23), dials.serve("10.0.0.6", 23)
    for target in ("10.0.0.5:23", "10.0.0.6:23"):
        dials.dialler.dial(parse_target(target), origin).addCallback(lambda end: end.write(b"hello"))
    dials.reactor.pump()
    assert bytes(told[0].data) == encode(origin) + b"hello"
    assert bytes(other[0].data) == b"hello"


def test_hundreds_of_dials_that_fail_at_once() -> None:
    """Where no socket can be had, each fails inside the call that began it: in a loop, not one in another."""
    dials = Dials("10.0.0.5:23", limits=replace(LIMITS, dials=1, dials_waiting=2000))

    async def reach(reactor: object, host: str, port: int) -> End:
        raise OSError(24, "Too many open files")

    dials.reactor.faults["10.0.0.5", 23] = HANGS
    dials.dial("10.0.0.5:23")
    for _ in range(2000):
        dials.dial("10.0.0.5:23")
    dials.dialler._reach = reach
    dials.running[0].cancel()
    assert {dials.word(at) for at in range(1, 2001)} == {"out-of-resources"}


def test_n32_a_lookup_that_nobody_waits_for_has_its_place_until_it_is_answered() -> None:
    """Its thread runs on: the next question waits."""
    dials = Dials("one.local:23", "two.local:23", limits=replace(LIMITS, lookups=1))
    names = dials.reactor.names
    names.held.add("one.local")
    dials.dial("one.local:23")
    dials.running[0].cancel()
    dials.dial("two.local:23").reactor.pump()
    assert names.asked == ["one.local"]
    names.release()
    dials.reactor.pump()
    assert names.asked == ["one.local", "two.local"]


# -- targets that take so many at once


def test_a_target_that_takes_one_gets_the_next_when_that_is_closed() -> None:
    """In order; others are dialled beside it; closed or reset is the same, once."""
    dials = Dials("10.0.0.5:102", "10.0.0.5:80", at_once={parse_target("10.0.0.5:102"): 1})
    made, others = dials.serve("10.0.0.5", 102), dials.serve("10.0.0.5", 80)
    for _ in range(3):
        dials.dial("10.0.0.5:102").dial("10.0.0.5:80")
    dials.reactor.pump()
    assert (len(made), len(others)) == (1, 3)
    first = dials.results[0]
    assert isinstance(first, End)
    first.abort()
    first.close()
    dials.reactor.pump()
    assert len(made) == 2
    second = dials.results[2]
    assert isinstance(second, End)
    second.close()
    dials.reactor.pump()
    assert len(made) == 3
    assert isinstance(dials.results[4], End)


def test_a_list_that_changes_leaves_the_places_of_a_target() -> None:
    """Who has one still has it; another number counts from then on, and none is any number."""
    target, other = parse_target("10.0.0.5:102"), parse_offer("10.0.0.5:80")
    dials = Dials("10.0.0.5:102", at_once={target: 1})
    made, offer = dials.serve("10.0.0.5", 102), parse_offer("10.0.0.5:102")
    dials.dial(target).reactor.pump()
    for most, count in (({target: 1}, 1), ({target: 2}, 3), ({}, 6)):
        dials.dialler.offer((offer, other), at_once=most)
        for _ in range(3):
            dials.dial(target)
        dials.reactor.pump()
        assert len(made) == count


def test_a_dial_that_failed_or_is_not_wanted_gives_its_place_back() -> None:
    """Whether it had its turn or not."""
    dials = Dials("10.0.0.5:102", at_once={parse_target("10.0.0.5:102"): 1})
    for _ in range(3):
        dials.dial("10.0.0.5:102")
    dials.running[1].cancel()
    dials.reactor.pump()
    assert [dials.word(at) for at in range(3)] == ["refused", "reset-by-peer", "refused"]
    made = dials.serve("10.0.0.5", 102)
    dials.reactor.faults["10.0.0.5", 102] = HANGS
    dials.dial("10.0.0.5:102").dial("10.0.0.5:102")
    dials.reactor.pump()
    del dials.reactor.faults["10.0.0.5", 102]
    dials.running[3].cancel()
    dials.reactor.pump()
    assert len(made) == 1
    assert isinstance(dials.results[4], End)


def test_who_waits_for_a_place_does_so_within_bounds() -> None:
    """Of number and time; a target that was taken off the list meanwhile is not dialled."""
    target = parse_target("10.0.0.5:102")
    dials = Dials("10.0.0.5:102", limits=AgentLimits(line=2, line_wait=5.0), at_once={target: 1})
    dials.serve("10.0.0.5", 102)
    for _ in range(4):
        dials.dial(target)
    dials.reactor.pump()
    assert dials.word(3) == "out-of-resources"
    assert str(dials.results[3]) == "10.0.0.5:102 takes 1 at once, and 2 wait"
    dials.reactor.advance(5.0)
    assert [dials.word(at) for at in (1, 2)] == ["out-of-resources"] * 2
    assert str(dials.results[1]) == "10.0.0.5:102 takes 1 at once, and had no place in 5 s"
    dials.dial(target)
    dials.dialler.offer((), at_once={target: 1})
    first = dials.results[0]
    assert isinstance(first, End)
    first.close()
    dials.reactor.pump()
    assert dials.word(4) == "not-allowed"
    assert dials.reactor.getDelayedCalls() == []


def test_a_dial_that_waits_for_its_turn_and_is_not_wanted_says_so() -> None:
    """In the same words as any that was not made."""
    dials = Dials("10.0.0.5:102", limits=AgentLimits(dials=1))
    dials.serve("10.0.0.5", 102)
    dials.dial("10.0.0.5:102").dial("10.0.0.5:102")
    dials.running[1].cancel()
    assert dials.word(1) == "reset-by-peer"


def test_targets_that_are_dialled_by_a_connect_and_nothing_more() -> None:
    """Addresses without a PROXY header or places of their own, as long as they are on the list."""
    written = [
        "192.0.2.7:80",
        "[2001:db8::1]:80",
        "localhost:22",
        "unix:/run/it",
        "192.0.2.8:80",
        "192.0.2.9:80",
    ]
    offers = [parse_offer(f"t{number}={each}") for number, each in enumerate(written)]
    headers, places = {parse_target(written[4]): encode_header_v1}, {parse_target(written[5]): 1}
    dialler = Dialler(MemoryReactor(), LIMITS, offers, headers, at_once=places)
    changes: list[list[str]] = []
    dialler.on_offer = lambda: changes.append([str(each) for each in dialler.simple()])
    dialler.offer(offers, headers, places)
    dialler.offer(offers[:1])
    dialler.offer([])
    assert changes == [["192.0.2.7:80", "[2001:db8::1]:80"], ["192.0.2.7:80"], []]
    assert Dials(*written).dialler.simple() == []  # it is reached in another way
