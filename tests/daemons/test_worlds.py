"""Whole worlds under hypothesis: whatever clients, services, links and time do, the laws below hold.

1. What a program gets is a prefix of what its partner said, byte for byte, and nobody else's.
2. rt1: a clean end is a whole stream; a cut stream ends with a reset.
3. When all have gone nothing is left: no socket, channel, number, timer or byte of a pool.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from revtunnel.ground.limits import LinkLimits
from tests.support.depth import deep
from tests.support.memory import CAPACITY
from tests.support.reactor import HANGS
from tests.support.world import KIB, Party, World

SERIALS = ("plc-1", "plc-2")
NAMES = ("console", "web")
TARGETS = {"console": ("10.0.0.5", 23), "web": ("10.0.0.5", 80)}
SMALL = LinkLimits(
    first_window=2 * KIB,
    open_window=4 * KIB,
    largest_window=16 * KIB,
    link_pool=64 * KIB,
    queue=2 * KIB,
    channels=6,
    legacy_queue_hard=8 * KIB,
    legacy_link_queue=32 * KIB,
    early_data=4 * KIB,
)
index = st.integers(0, 99)
sizes = st.one_of(st.integers(1, 50), st.integers(1, 20 * KIB))
parties = st.booleans()


class WorldMachine(RuleBasedStateMachine):
    """Two devices with two targets each, and what may happen to them."""

    wire = "rt1"

    @initialize(
        cuts=st.sampled_from((None, 7, "random")),
        capacity=st.sampled_from((500, 4 * KIB, CAPACITY)),
        refuses=st.booleans(),
    )
    def begin(self, cuts: int | str | None, capacity: int, refuses: bool) -> None:
        """A world with both devices online."""
        self.world = World(
            self.wire, cuts=cuts, capacity=capacity, link=SMALL, serials=SERIALS, refuses=refuses
        )

    # -- programs

    def party(self, clients: bool, number: int) -> Party | None:
        """Some client or service that is still here and may still speak."""
        here = [each for each in (self.world.clients if clients else self.services()) if each.here]
        return here[number % len(here)] if here else None

    def services(self) -> list[Party]:
        """All services' connections."""
        return [each for made in self.world.services.values() for each in made]

    @rule(serial=st.sampled_from(SERIALS), name=st.sampled_from(NAMES), size=st.integers(0, 5 * KIB))
    def a_client_comes(self, serial: str, name: str, size: int) -> None:
        """And may say something at once: at the head is a mark by which its service is known."""
        port = next((p.lease.port for p in self.world.ports.of(serial) if p.lease.target == name), None)
        if port is None or sum(each.here for each in self.world.clients) > 12:
            return
        client = self.world.client(serial, name, port)
        client.say(f"<{client.key} to {serial} {name}>".encode())
        if size:
            client.say_more(size)

    @rule(clients=parties, number=index, size=sizes)
    def somebody_speaks(self, clients: bool, number: int, size: int) -> None:
        """More of its own bytes."""
        party = self.party(clients, number)
        if party is not None and not party.ended and not party.full:
            party.say_more(size)

    @rule(clients=parties, number=index)
    def somebody_ends(self, clients: bool, number: int) -> None:
        """End of file; the other direction goes on."""
        party = self.party(clients, number)
        if party is not None and not party.ended:
            party.finish()

    @rule(clients=parties, number=index)
    def somebody_resets(self, clients: bool, number: int) -> None:
        """RST."""
        party = self.party(clients, number)
        if party is not None:
            party.aborted = True  # type: ignore[attr-defined]
            party.abort()

    @rule(clients=parties, number=index, stops=st.booleans())
    def somebody_stops_reading_or_reads_on(self, clients: bool, number: int, stops: bool) -> None:
        """A slow program."""
        party = self.party(clients, number)
        if party is not None and not party.end_came:
            party.stop_reading() if stops else party.read_on()

    # -- targets, links, time

    @rule(name=st.sampled_from(NAMES), how=st.sampled_from(("hangs", "refuses", "answers")))
    def a_target_changes(self, name: str, how: str) -> None:
        """It hangs, refuses or answers from now on."""
        faults = self.world.reactor.faults
        faults.pop(TARGETS[name], None)
        if how != "answers":
            faults[TARGETS[name]] = HANGS if how == "hangs" else ConnectionRefusedError()

    @precondition(lambda self: self.world.link_pairs())
    @rule(number=index, how=st.sampled_from(("reset", "sever", "restore", "kick")))
    def something_happens_to_a_link(self, number: int, how: str) -> None:
        """Cut, silent, heard again; or an operator ends it."""
        pairs = self.world.link_pairs()
        pair = pairs[number % len(pairs)]
        if how == "kick":
            self.world.switchboard.kick(SERIALS[number % 2], "the machine", 1)
        else:
            getattr(pair, how)()

    @rule(number=index)
    def an_operator_closes_a_channel(self, number: int) -> None:
        """One that runs, if any."""
        self.world.switchboard.close_channel(SERIALS[number % 2], 1 + number % SMALL.channels, "the machine")

    @rule(turns=st.integers(1, 6))
    def a_few_turns(self, turns: int) -> None:
        """The reactor moves a little."""
        for _ in range(turns):
            self.world.reactor.turn()

    @rule()
    def all_moves(self) -> None:
        """Until nothing moves."""
        self.world.pump()

    @rule(seconds=st.sampled_from((0.3, 2.0, 6.0, 12.0, 50.0)))
    def time_passes(self, seconds: float) -> None:
        """Timers run."""
        self.world.advance(seconds)

    # -- the laws

    def partner(self, service: Party) -> Party | None:
        """The client whose mark a service has read."""
        mark = bytes(service.data).partition(b">")[0].removeprefix(b"<").partition(b" to ")[0].decode()
        return next((each for each in self.world.clients if each.key == mark), None)

    @invariant()
    def every_byte_is_where_it_belongs(self) -> None:
        """A prefix of what the partner said; and a client has one service."""
        for service in self.services():
            if b">" not in service.data:
                continue
            client = self.partner(service)
            assert client is not None
            assert client.sent.startswith(service.data)
            assert service.sent.startswith(client.data)
            seen = self.served.setdefault(client.key, service.key)
            assert seen == service.key
            if self.wire == "rt1":
                self.a_clean_end_is_whole(client, service)

    def a_clean_end_is_whole(self, client: Party, service: Party) -> None:
        """rt1: who saw the end of file has everything."""
        for one, other in ((client, service), (service, client)):
            if one.end_came:
                assert other.ended
                assert one.data == other.sent

    @property
    def served(self) -> dict[str, str]:
        """Which service had which client."""
        return self.__dict__.setdefault("_served", {})

    def teardown(self) -> None:
        """All leave, links come back, and nothing is left."""
        if not hasattr(self, "world"):
            return
        for pair in self.world.link_pairs():
            pair.restore()
        self.every_byte_is_where_it_belongs()
        self.world.end_parties()
        self.world.advance(80.0)  # dials, lingering services, silent links
        self.world.finish()


class LegacyMachine(WorldMachine):
    """The same over the legacy wire."""

    wire = "legacy"


TestRt1World = WorldMachine.TestCase
TestRt1World.settings = settings(max_examples=deep(40), stateful_step_count=40, deadline=None)
TestLegacyWorld = LegacyMachine.TestCase
TestLegacyWorld.settings = settings(max_examples=deep(40), stateful_step_count=40, deadline=None)
