"""The legacy wire: our server with a model of a device, our agent with a server's frames, ours with ours."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from revtunnel.core.channel import State
from revtunnel.core.legacy import LegacyAgentMux, LegacyServerMux
from revtunnel.core.mux import Stalled
from revtunnel.core.policy import LinkLimits
from revtunnel.wire.commands import Command, encode_connect
from revtunnel.wire.errors import RemoteError
from revtunnel.wire.frames import Frame, encode_frame
from revtunnel.wire.reasons import Ended
from revtunnel.wire.targets import Target
from tests.core.device import REFUSED, Device, Service
from tests.core.joined import TARGET, End, Joined, Stream, glitches, joined_legacy
from tests.core.owners import PICKS, SMALL, OwnersMachine, one_of, size_of

LIMITS = LinkLimits()
CONNECT_9 = encode_frame(Command.CONNECT, 9, encode_connect(TARGET))
frame = encode_frame


def ticks_until(mux: LegacyServerMux | LegacyAgentMux, now: float, until: float) -> int:
    """Drive a mux by its own timer; how often it looked."""
    count = 0
    while now < until:
        mux.tick(now)
        mux.take(1 << 16, now)
        now += mux.due(now)
        count += 1
    return count


# -- ours with ours


class LegacyMachine(OwnersMachine):
    """Our server's end and our agent's end of the legacy wire, in any order of their owners' moves."""

    def join(self) -> Joined:
        return joined_legacy(SMALL)

    def teardown(self) -> None:
        """Let everything end: what a service said in order came whole, and nothing is left anywhere."""
        self.joined.finish()
        self.bounds_hold()
        at_rest(self.joined)
        for client in self.joined.server.streams:
            assert client.over is not None
            spoiled = id(client) in self.spoiled or id(client.other) in self.spoiled
            assert spoiled or client.whole
            if client.over.reason is Ended.REFUSED:
                assert not client.received
            elif not spoiled:
                assert client.over.reason is Ended.CLOSED


TestLegacyMachine = LegacyMachine.TestCase
TestLegacyMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def at_rest(joined: Joined) -> None:
    """Both ends have nothing left: no channel, no byte owed, no number in use, nothing odd."""
    assert glitches(joined) == []
    for end in joined.ends:
        assert end.mux.channels == {}
        assert end.mux._owed == 0  # type: ignore[attr-defined]
        assert not end.mux.holds_back
        assert not end.mux._turns.waiting
        assert all(stream.over is not None for stream in end.streams)
    assert all(stream.channel.state is State.CLOSED for stream in joined.server.streams)
    assert joined.server.mux.free_numbers == joined.server.mux.limits.channels


def test_f8_f9_bytes_that_were_under_way_at_our_close_never_reach_the_number_s_next_client() -> None:
    """The service ended; what its client had said meanwhile is late, not early DATA of the next one."""
    joined = joined_legacy(LinkLimits(channels=1))
    old, service = joined.channel()
    old.send(100)
    joined.server.take()
    service.finish()
    joined.agent.take()
    joined.deliver(joined.server)
    old.flush()
    joined.deliver(joined.agent)  # late DATA meets a number that nobody holds
    joined.settle()
    new, _ = joined.channel()
    assert new.channel.number == old.channel.number
    assert joined.agent.streams[-1].received == b""
    joined.finish()
    at_rest(joined)


def test_f18_data_before_its_connect_is_early_again_once_the_server_has_said_close() -> None:
    """The real server echoes our CLOSE; what comes after that belongs to the number's next client."""
    agent = End(LegacyAgentMux(LIMITS, 0.0))
    agent.read(CONNECT_9)
    agent.streams[0].open()
    agent.streams[0].finish()
    agent.take()
    agent.read(frame(Command.DATA, 9, b"late"))
    agent.read(frame(Command.CLOSE, 9))
    agent.read(frame(Command.DATA, 9, b"early"))
    agent.read(CONNECT_9)
    assert agent.streams[1].received == b"early"


# -- our server with a device


MOVES = (
    *(
        "connect",
        "connect",
        "refuse",
        "client_sends",
        "client_sends_late",
        "client_finishes",
        "client_resets",
    ),
    *("client_takes", "client_takes", "service_sends", "service_ends", "service_ends_first", "echo"),
    *("write", "write_little", "device_reads", "server_reads", "settle", "settle", "time"),
)


class DeviceMachine(RuleBasedStateMachine):
    """A device that answers late and often: no word of it for an old client ever ends a new one."""

    asks = True

    @initialize(numbers=st.integers(1, 2))
    def begin(self, numbers: int) -> None:
        """So few numbers that every one is wanted again at once."""
        self.device = Device(replace(SMALL, channels=numbers), self.asks)
        self.numbers = numbers
        self.spoiled: list[Stream] = []

    @rule(move=st.sampled_from(MOVES), pick=PICKS)
    def act(self, move: str, pick: int) -> None:
        """One move at one end."""
        client = one_of(self.device.server.live, pick)
        service = one_of(list(self.device.services.values()), pick)
        needs = client if move.startswith("client") else service if move.startswith("service") else self
        if needs is not None:
            getattr(self, move)(needs, pick)

    @invariant()
    def nobody_is_harmed(self) -> None:
        """Ends and bytes belong to the client that gets them."""
        self.device.check()

    def connect(self, me: object, pick: int, target: Target = TARGET) -> None:
        """A client comes."""
        free = self.device.server.mux.free_numbers
        assert (self.device.connect(target) is not None) == (free > 0)

    def refuse(self, me: object, pick: int) -> None:
        """A client comes for a target that refuses."""
        self.connect(me, pick, REFUSED)

    def client_sends(self, client: Stream, pick: int) -> None:
        """Before the target answered, too."""
        if client.may_send and not client.ended:
            client.send(size_of(pick))

    def client_sends_late(self, client: Stream, pick: int) -> None:
        """Its bytes are under way while its service, or its next one, ends."""
        self.client_sends(client, pick)
        self.device.server.take()

    def client_finishes(self, client: Stream, pick: int) -> None:
        """Its end of file."""
        if not client.ended:
            client.finish()

    def client_resets(self, client: Stream, pick: int) -> None:
        """It is lost."""
        self.spoiled.append(client)
        client.reset()

    def client_takes(self, client: Stream, pick: int) -> None:
        """Its bytes, and its end of file when that came."""
        if client.end_came:
            client.flush()
        else:
            client.consume(size_of(pick))

    def service_sends(self, service: Service, pick: int) -> None:
        """Bytes for its client."""
        self.device.send(service, size_of(pick))

    def service_ends(self, service: Service, pick: int) -> None:
        """By itself."""
        self.device.end(service)

    def service_ends_first(self, service: Service, pick: int) -> None:
        """Its client knows it, and is gone, while its bytes are still under way to the device."""
        self.device.end(service)
        self.device.answer()
        if service.client.over is None:
            service.client.flush()

    def echo(self, me: object, pick: int) -> None:
        """An echo comes at last, and not in turn."""
        self.device.echo(pick)

    def write(self, me: object, pick: int) -> None:
        """A transport wants bytes."""
        self.device.server.take()

    def write_little(self, me: object, pick: int) -> None:
        """A slow transport wants bytes."""
        self.device.server.take(size_of(pick))

    def device_reads(self, me: object, pick: int) -> None:
        """Cut anywhere."""
        self.device.read(size_of(pick))

    def server_reads(self, me: object, pick: int) -> None:
        """Cut anywhere."""
        self.device.answer(size_of(pick))

    def settle(self, me: object, pick: int) -> None:
        """Everything goes through, echoes stay away."""
        self.device.settle(echo=False)

    def time(self, me: object, pick: int) -> None:
        """Time passes, timers fire; the whole story is shorter than any limit."""
        self.device.pass_time(pick % 50 / 1000)

    def rest(self) -> None:
        """Let numbers rest."""
        self.device.settle()

    def teardown(self) -> None:
        """Everything ends: what a service sent came whole, and all numbers are free."""
        self.device.settle()
        for service in list(self.device.services.values()):
            self.device.end(service)
        self.device.settle()
        for client in self.device.server.live:
            client.flush()
        self.rest()
        mux = self.device.server.mux
        assert (mux.channels, mux.free_numbers, mux.holds_back) == ({}, self.numbers, False)
        for client in self.device.server.streams:
            assert client.over is not None
            assert client.channel.state is State.CLOSED
            if client not in self.spoiled:
                assert client.received == client.other.sent


class UnaskedDeviceMachine(DeviceMachine):
    """The same without questions: numbers rest by time, and echoes are never so late."""

    asks = False

    def time(self, me: object, pick: int) -> None:
        """Half of the time that a number rests, now and then."""
        if pick % 4 == 0:
            self.device.settle()
            self.device.pass_time(16.0)

    def rest(self) -> None:
        self.device.settle()
        self.device.pass_time(31.0)


TestDeviceMachine = DeviceMachine.TestCase
TestDeviceMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestUnaskedDeviceMachine = UnaskedDeviceMachine.TestCase
TestUnaskedDeviceMachine.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)


# -- signs of life


def test_n8_a_device_that_falls_silent_with_a_question_open_is_given_up() -> None:
    """Data came after the question and before its answer: that was the last of the link."""
    device = Device()
    device.connect()
    device.server.take()
    device.read()
    (service,) = device.services.values()
    device.wire.clear()  # the answer to the question is lost with the link
    device.send(service, 10)
    device.answer()
    with pytest.raises(RemoteError, match="silent"):
        ticks_until(device.server.mux, 0.0, 60.0)


def test_a_question_on_top_of_an_open_one_is_not_timed_by_the_older_answer() -> None:
    """Both are answered in order; only the last answer tells the round trip."""
    device = Device()
    device.pass_time(0.0)
    device.server.take()  # the first question is on the wire, for the round trip
    device.server.read(encode_frame(Command.DATA, 7, b"x"))  # any sign of life
    device.pass_time(26.0)
    device.server.take()
    device.read()
    assert device.wire == encode_frame(Command.CLOSE, 0) * 2
    device.answer(4)
    assert device.server.mux.liveness.round_trip is None
    device.server.now += 0.25
    device.answer()
    assert device.server.mux.liveness.round_trip == 0.25


def test_a_device_that_must_not_be_asked_is_never_given_up_and_the_timer_does_not_spin() -> None:
    """asks=False: silence means nothing, and is looked at every few seconds."""
    mux = LegacyServerMux(LIMITS, 0.0, asks=False)
    assert ticks_until(mux, 0.0, 300.0) < 100


def test_an_agent_without_a_number_to_ask_on_does_not_give_up_and_does_not_spin() -> None:
    """All 256 numbers are in use: DATA on any of them would be a client's."""
    mux = LegacyAgentMux(LIMITS, 0.0)
    for number in range(256):
        mux.receive(Frame(Command.CONNECT, number, b"\0\x0a10.41.51.1\0\x17"), 0.0)
    assert len(mux.channels) == 256
    assert ticks_until(mux, 0.0, 300.0) < 100


def test_n6_a_link_that_is_held_back_is_not_taken_for_silent() -> None:
    """One client takes nothing: its link is not read, and lives until that client is given up at 30 s."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    for _ in range(70):
        device.send(device.services[1], 65535)
        device.answer()
    assert device.server.mux.holds_back
    client.send(100)  # data in flight: without reading, nothing answers it
    device.server.take()
    device.pass_time(1.0)
    assert [type(happening) for happening in device.server.story if isinstance(happening, Stalled)] == [
        Stalled
    ]
    for _ in range(31):
        device.pass_time(1.0)
    assert client.over is not None
    assert client.over.reason.word == "stalled"
    assert not device.server.mux.holds_back


def test_the_target_is_what_the_model_dials() -> None:
    """The model decodes CONNECT as the device does."""
    device = Device()
    device.connect(TARGET)
    device.settle()
    assert list(device.services) == [1]
