"""The legacy wire: our server with a model of a device, our agent with a server's frames, ours with ours."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.legacy import LegacyAgentMux, LegacyServerMux
from revtunnel.link.mux import Glitch, Stalled
from revtunnel.streams.channel import ChannelState
from revtunnel.streams.commands import Command, encode_connect
from revtunnel.streams.frames import Frame, encode_frame
from tests.support.depth import deep
from tests.support.device import REFUSED, Device, Service
from tests.support.joined import TARGET, End, Joined, Stream, glitches, joined_legacy
from tests.support.owners import PICKS, SMALL, OwnersMachine, one_of, size_of
from tests.support.real_server import Client, RealServer

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
TestLegacyMachine.settings = settings(max_examples=deep(60), stateful_step_count=40, deadline=None)


def at_rest(joined: Joined) -> None:
    """Both ends have nothing left: no channel, no byte owed, no number in use, nothing odd."""
    assert glitches(joined) == []
    for end in joined.ends:
        assert end.mux.channels == {}
        assert end.mux._owed == 0  # type: ignore[attr-defined]
        assert not end.mux.holds_back
        assert not end.mux._turns.waiting
        assert all(stream.over is not None for stream in end.streams)
    assert all(stream.channel.state is ChannelState.CLOSED for stream in joined.server.streams)
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
            assert client.channel.state is ChannelState.CLOSED
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
TestDeviceMachine.settings = settings(max_examples=deep(50), stateful_step_count=40, deadline=None)
TestUnaskedDeviceMachine = UnaskedDeviceMachine.TestCase
TestUnaskedDeviceMachine.settings = settings(max_examples=deep(20), stateful_step_count=40, deadline=None)


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
    device.server.mux.liveness.unacknowledged = 60.0  # so does its kernel
    with pytest.raises(RemoteError, match="silent"):
        ticks_until(device.server.mux, 0.0, 60.0)


def test_a_device_that_dials_for_minutes_keeps_its_link() -> None:
    """It answers nothing until its connect gives up, 127 s later; all clients go on then."""
    device = Device()
    first = device.connect()
    device.server.take()
    ticks_until(device.server.mux, 0.0, 127.0)  # its kernel acknowledges: that is no silence
    device.server.now = 127.0
    second = device.connect()
    device.settle()
    assert first is not None
    assert second is not None
    assert first.opened
    assert second.opened


def test_a_device_that_hangs_for_ever_is_given_up_when_its_patience_ends() -> None:
    """150 s of one question, whatever its kernel says."""
    device = Device()
    device.connect()
    device.server.take()
    assert ticks_until(device.server.mux, 0.0, 149.0) < 100
    with pytest.raises(RemoteError, match="silent"):
        ticks_until(device.server.mux, 149.0, 160.0)


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
        device.send(client.other, 65535)
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


def test_both_of_ours_ask_in_a_way_that_the_other_answers() -> None:
    """The server by a byte on number 0, the agent by empty DATA; each hears of the other, nothing is odd."""
    joined = joined_legacy()
    for _ in range(3):
        joined.pass_time(26.0)
        joined.settle()
    said = [(f.command, f.channel, f.payload) for f in joined.server.wrote + joined.agent.wrote]
    assert set(said) == {(Command.DATA, 0, b"\0"), (Command.DATA, 0, b""), (Command.CLOSE, 0, b"")}
    assert glitches(joined) == []
    for end in joined.ends:
        assert end.mux.liveness.round_trip is not None
        assert not end.mux.liveness.dead(end.now + 60.0)


def test_the_agent_asks_on_a_number_that_nobody_holds() -> None:
    """The real server uses number 0, and holds back what comes for a number without its CONNECT."""
    agent = End(LegacyAgentMux(LIMITS, 0.0))
    agent.read(frame(Command.CONNECT, 0, encode_connect(TARGET)) + frame(Command.DATA, 255, b"early"))
    agent.tick()
    agent.take()
    assert agent.wrote == [Frame(Command.DATA, 254, b"")]
    agent.now = 0.2
    agent.read(frame(Command.CLOSE, 254))
    assert agent.mux.liveness.round_trip == 0.2


def test_n13_a_server_that_does_not_answer_is_given_up() -> None:
    """The agent's end: asked at once, given up after 20 s."""
    mux = LegacyAgentMux(LIMITS, 0.0)
    with pytest.raises(RemoteError, match="silent"):
        ticks_until(mux, 0.0, 21.0)


# -- a client's life at a device


def test_a_refused_connect_is_told_as_refused_and_its_number_comes_back() -> None:
    """The device says CLOSE before it has answered twice; each early byte is answered by another CLOSE."""
    device = Device(LinkLimits(channels=1))
    client = device.connect(REFUSED)
    assert client is not None
    client.send(10)
    device.server.take()
    client.send(10)
    device.settle()
    assert client.over is not None
    assert (client.over.reason, client.opened) == (Ended.REFUSED, False)
    again = device.connect()
    device.settle()
    assert again is not None
    assert again.opened
    assert again.over is None


@pytest.mark.parametrize(("patience", "reason"), [(0.1, Ended.REFUSED), (0.0, Ended.CLOSED)])
def test_n30_a_close_right_behind_the_second_answer_and_before_any_byte_is_a_refusal(
    patience: float, reason: Ended
) -> None:
    """The real device answers before the refusal of its dial comes, about 40 ms later."""
    device = Device(LinkLimits(channels=1, legacy_refusal=patience))
    client = device.connect()
    assert client is not None
    client.send(10)
    device.settle()
    assert client.opened
    device.pass_time(0.04)
    device.end(client.other)
    device.settle()
    if client.over is None:
        client.flush()
    assert client.over is not None
    assert client.over.reason is reason
    assert device.connect() is not None


def test_a_service_that_closes_a_while_after_accepting_is_a_clean_end() -> None:
    """Two questions were answered, and more than a refusal takes has passed: the connect had worked."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    assert client.opened
    device.pass_time(0.11)
    device.end(client.other)
    device.settle()
    client.flush()
    assert client.over is not None
    assert client.over.reason is Ended.CLOSED


def test_a_client_that_left_first_is_not_refused_by_the_echo() -> None:
    """Its device's CLOSE answers ours."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    client.finish()
    device.settle()
    client.flush()
    assert client.over is not None
    assert client.over.reason is Ended.CLOSED


def test_a_service_that_says_something_and_closes_at_once_is_a_clean_end() -> None:
    """Its bytes prove that the connect had worked; they come whole."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.server.take()
    device.read()
    device.send(client.other, 1000)
    device.end(client.other)
    device.settle()
    assert client.opened
    assert client.end_came
    client.flush()
    assert client.over is not None
    assert client.over.reason is Ended.CLOSED
    assert client.received == client.other.sent


def test_what_a_client_says_after_its_service_ended_is_dropped() -> None:
    """Nobody can have it; the client is read on, so that its own end is seen."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    while client.may_send:
        client.send(40_000)
    device.end(client.other)
    device.answer()
    assert client.send(40_000)
    client.finish()
    assert client.channel.queued == 0
    device.settle()
    assert [f.command for f in device.server.wrote].count(Command.CLOSE) == 0


def test_n24_a_number_waits_for_its_echo_however_late() -> None:
    """One number: the next client has none until the device has said its CLOSE and answered once more."""
    device = Device(LinkLimits(channels=1))
    client = device.connect()
    assert client is not None
    device.settle()
    client.reset()
    device.settle(echo=False)
    device.pass_time(1.0)
    assert device.connect() is None
    device.settle()
    assert device.connect() is not None


def test_n24_a_number_whose_device_said_close_rests_until_it_answers_what_was_asked_after_that() -> None:
    """A second CLOSE, the echo of ours, may still be under way: it must meet nobody."""
    end = End(LegacyServerMux(replace(LIMITS, channels=1), 0.0))
    client = end.connect()
    assert client is not None
    end.read(frame(Command.DATA, 1, b"!"))
    end.take()
    client.reset()
    end.take()
    end.read(frame(Command.CLOSE, 1))  # its own, which crossed ours
    assert end.mux.free_numbers == 0 and end.connect() is None
    end.take()
    end.read(frame(Command.CLOSE, 1))  # its answer to ours
    following, answers = None, 0
    while following is None:
        end.read(frame(Command.CLOSE, 0))
        end.take()
        following, answers = end.connect(), answers + 1
    assert following.channel.number == 1 and 1 <= answers <= 3
    end.read(frame(Command.DATA, 1, b"!"))
    assert following.received == b"!" and following.over is None


def test_n24_1000_clients_in_a_row_over_few_numbers() -> None:
    """Each is served and unharmed, whoever of the two ends it, with a byte under way that meets nobody."""
    device = Device(LinkLimits(channels=2))
    for turn in range(deep(1000)):
        client = device.connect()
        assert client is not None, turn
        device.settle(echo=False)
        assert client.opened
        client.send(5)
        if turn % 3 == 0:
            device.server.take()
            device.end(client.other)
        elif turn % 3 == 1:
            client.finish()
        else:
            client.reset()
        device.settle()
        if client.over is None:
            assert client.end_came
            client.flush()
        del device.server.streams[:], device.server.story[:], device.server.wrote[:]
        device.settle()
    assert device.server.mux.free_numbers == 2


@pytest.mark.parametrize("asks", [True, False])
def test_the_timer_looks_when_an_echo_or_a_rest_is_over(asks: bool) -> None:
    """Not only every few seconds: short times that an operator set are kept."""
    device = Device(LinkLimits(channels=1, echo_wait=2.0), asks)
    client = device.connect()
    assert client is not None
    device.settle()
    client.finish()
    device.settle(echo=False)
    assert device.server.mux.due(device.server.now) == 2.0
    device.pass_time(2.0)  # the echo counts as seen
    if not asks:
        assert device.server.mux.due(device.server.now) == 1.0
        device.pass_time(1.0)  # and the number has rested
    client.flush()
    device.settle(echo=False)
    assert device.server.mux.free_numbers == 1


def test_an_echo_that_never_comes_is_given_up_after_a_minute() -> None:
    """A client that finished gets its end of file then; a number is not lost for ever."""
    device = Device(LinkLimits(channels=1))
    client = device.connect()
    assert client is not None
    device.settle()
    client.finish()
    device.settle(echo=False)
    for _ in range(11):
        device.pass_time(6.0)
        device.settle(echo=False)
    assert client.end_came
    client.flush()
    device.echoes.clear()
    assert device.connect() is not None


def test_data_after_our_close_shows_that_the_echo_is_not_due_yet() -> None:
    """A device on a slow link is still sending what it had: a minute of silence is what counts."""
    server = End(LegacyServerMux(LinkLimits(channels=1), 0.0, asks=False))
    client = server.connect()
    assert client is not None
    client.reset()
    for _ in range(5):
        server.now += 50.0
        server.tick()
        server.read(frame(Command.DATA, 1, b"late"))
        assert server.mux.channels
    assert client.received == b""
    server.now += 60.1
    server.tick()  # as if its CLOSE came now: the number rests half a minute
    assert server.connect() is None
    server.now += 30.0
    server.tick()
    assert server.connect() is not None


def test_n30_without_questions_a_refusal_cannot_be_told_from_an_end() -> None:
    """asks=False: the client sees its end of file."""
    device = Device(asks=False)
    client = device.connect(REFUSED)
    assert client is not None
    device.settle()
    assert client.end_came
    client.flush()
    assert client.over is not None
    assert client.over.reason is Ended.CLOSED


def test_n6_bytes_of_all_clients_together_hold_the_link_back_too() -> None:
    """Five clients, none above its own limit: 16 MiB of the link are."""
    device = Device()
    clients = [device.connect() for _ in range(5)]
    device.settle()
    mux = device.server.mux
    for service in list(device.services.values()):
        for _ in range(62):
            mux.receive(Frame(Command.DATA, service.number, bytes(65535)), 0.0)
    assert not any(channel.owed > LIMITS.legacy_queue_hard for channel in mux.channels.values())
    assert mux.holds_back
    assert mux.due(0.0) <= 1.0
    client = clients[0]
    assert client is not None
    mux.consumed(client.channel, 4_000_000, 0.0)
    assert not mux.holds_back


def test_n6_a_link_that_is_released_in_time_keeps_all_its_clients() -> None:
    """The stall is told once; when the client takes its bytes nothing more happens."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    for _ in range(70):
        device.send(client.other, 65535)
        device.answer()
    for _ in range(20):
        device.pass_time(1.0)
    client.consume()
    for _ in range(20):
        device.pass_time(1.0)
        device.settle()
    assert len(device.server.of(Stalled)) == 1
    assert client.over is None


def test_more_consumed_than_owed_is_our_own_fault() -> None:
    """After its end a channel owes nothing, and what its socket still tells is ignored."""
    device = Device()
    client = device.connect()
    assert client is not None
    device.settle()
    device.send(client.other, 10)
    device.answer()
    mux = device.server.mux
    with pytest.raises(LocalError, match="11 bytes consumed, 10 owed"):
        mux.consumed(client.channel, 11, 0.0)
    client.reset()
    mux.consumed(client.channel, 10, 0.0)
    assert not mux.holds_back


# -- frames that do not fit


def odd(end: End) -> list[str]:
    """What an end found odd."""
    return [happening.detail for happening in end.story if isinstance(happening, Glitch)]


def server() -> tuple[End, Stream]:
    """A server's end with an open channel 1, everything written."""
    end = End(LegacyServerMux(LIMITS, 0.0))
    client = end.connect()
    assert client is not None
    end.read(frame(Command.DATA, 1, b"!"))
    end.take()
    end.wrote.clear()
    return end, client


def test_f3_empty_data_is_ignored_and_counted() -> None:
    """It opens no channel and is no end."""
    end = End(LegacyServerMux(LIMITS, 0.0))
    end.connect()
    end.read(frame(Command.DATA, 1))
    assert odd(end) == ["empty DATA on channel 1"]


def test_f4_the_largest_frame_is_delivered_whole() -> None:
    """65535 bytes."""
    end, client = server()
    end.read(frame(Command.DATA, 1, bytes(65535)))
    assert len(client.received) == 65536


def test_f6_unknown_commands_are_skipped_and_the_third_ends_the_link() -> None:
    """A peer whose stream may be out of step is not believed for long; long payloads are not waited for."""
    end, client = server()
    end.read(frame(0x42, 1, b"payload") + frame(0x10, 1) + frame(Command.DATA, 1, b"x"))
    assert client.received == b"!x"
    assert odd(end) == ["command 0x42 of 7 bytes skipped", "HELLO of 0 bytes skipped"]
    with pytest.raises(RemoteError, match="3 unknown frames in 60 s"):
        end.read(frame(0x42, 1))
    with pytest.raises(RemoteError, match="command 0x42 of 4097 bytes on a legacy link"):
        server()[0].read(frame(0x42, 1, bytes(4097))[:4])


def test_f7_data_for_an_unknown_number_is_answered_by_one_close_a_second() -> None:
    """For each number by itself; the payload reaches nobody."""
    end, client = server()
    for now in (0.0, 0.5, 0.9, 1.0, 1.5):
        end.now = now
        end.read(frame(Command.DATA, 7, b"x"))
    end.read(frame(Command.DATA, 8, b"x"))
    end.take()
    closes = [f.channel for f in end.wrote if f.command == Command.CLOSE]
    assert closes == [7, 7, 8]
    assert len(odd(end)) == 6
    assert client.received == b"!"


def test_f10_close_for_an_unknown_number_or_with_a_payload_is_ignored() -> None:
    """And a second one for a number that rests; nothing is ever said to a CLOSE."""
    end, client = server()
    end.read(frame(Command.CLOSE, 7) + frame(Command.CLOSE, 0) * 3 + frame(Command.CLOSE, 1, b"payload"))
    end.read(frame(Command.CLOSE, 1) + frame(Command.DATA, 1, b"late"))
    end.take()
    assert client.received == b"!"
    assert client.end_came
    assert [f.command for f in end.wrote if f.channel] == []
    assert odd(end) == []


def test_f11_f12_connect_at_the_server_and_listen_on_a_link_that_is_up() -> None:
    """The second LISTEN is odd, the third too many; at the agent any is."""
    end, _ = server()
    end.read(frame(Command.LISTEN, 0))
    assert odd(end) == ["a second LISTEN"]
    with pytest.raises(RemoteError, match="LISTEN for the third time"):
        end.read(frame(Command.LISTEN, 0))
    with pytest.raises(RemoteError, match="CONNECT at the server"):
        server()[0].read(CONNECT_9)
    with pytest.raises(RemoteError, match="LISTEN at the agent"):
        End(LegacyAgentMux(LIMITS, 0.0)).read(frame(Command.LISTEN, 0))


def test_f15_f16_a_connect_that_names_nothing_is_answered_by_close() -> None:
    """Unlike the real device, which says nothing; one too long is not waited for."""
    agent = End(LegacyAgentMux(LIMITS, 0.0))
    agent.read(frame(Command.CONNECT, 5, b"\0\x05ab\0\x17"))
    agent.take()
    assert [(f.command, f.channel) for f in agent.wrote] == [(Command.CLOSE, 5)]
    assert len(odd(agent)) == 1
    assert agent.mux.channels == {}
    with pytest.raises(RemoteError, match="CONNECT of 260 bytes, limit 259"):
        agent.read(frame(Command.CONNECT, 5, bytes(260))[:4])


FUZZED = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            encode_frame,
            st.sampled_from((1, 2, 2, 3, 3, 3, 4, 0x10, 0x42)),
            st.integers(0, 3),
            st.one_of(st.just(b""), st.binary(max_size=9), st.just(encode_connect(TARGET))),
        ),
    ),
    max_size=40,
)


@given(FUZZED, st.booleans())
@settings(max_examples=deep(60), deadline=None)
def test_f24_whatever_comes_in_is_the_other_side_s_fault(pieces: list[bytes], opens: bool) -> None:
    """Random bytes and random frames: a RemoteError or nothing."""
    end = End(LegacyServerMux(SMALL, 0.0) if opens else LegacyAgentMux(SMALL, 0.0))
    for _ in range(3 * opens):
        end.connect()
    for piece in pieces:
        try:
            end.read(piece)
        except RemoteError:
            return
        end.take()
        end.check()
        end.now += 0.1
        end.tick()


# -- our agent with the frames of a real server


class RealServerMachine(RuleBasedStateMachine):
    """Clients of a real server and services of our agent, in any order: nobody gets another's bytes."""

    MOVES = (
        *("connect", "connect_early", "client_sends", "client_sends", "client_leaves", "answers", "answers"),
        *("service_sends", "service_takes", "service_ends", "service_resets"),
        *("write", "server_reads", "agent_reads", "server_reads_all", "agent_reads_all", "time"),
    )

    @initialize(numbers=st.integers(1, 3))
    def begin(self, numbers: int) -> None:
        """So few numbers that every one is wanted again at once."""
        self.server = RealServer(numbers, SMALL)
        self.spoiled: list[Stream] = []

    @rule(move=st.sampled_from(MOVES), pick=PICKS)
    def act(self, move: str, pick: int) -> None:
        """One move at one end."""
        needs: object = self
        if move.startswith("client"):
            needs = one_of([client for client in self.server.at.values() if not client.left], pick)
        elif move.startswith("service"):
            needs = one_of([service for service in self.server.agent.live if service.opened], pick)
        elif move == "answers":
            needs = one_of([service for service in self.server.agent.live if not service.opened], pick)
        if needs is not None:
            getattr(self, move)(needs, pick)

    @invariant()
    def nobody_is_harmed(self) -> None:
        """Bytes belong to the one who gets them."""
        self.server.check()

    def connect(self, me: object, pick: int) -> None:
        """A client comes."""
        self.server.connect()

    def connect_early(self, me: object, pick: int) -> None:
        """A client's bytes overtake its CONNECT."""
        self.server.connect(2 + size_of(pick))

    def client_sends(self, client: Client, pick: int) -> None:
        """Bytes, also when its service has just ended."""
        self.server.send(client, size_of(pick))

    def client_leaves(self, client: Client, pick: int) -> None:
        """Its end of file."""
        self.server.leave(client)

    def answers(self, service: Stream, pick: int) -> None:
        """The target answers, or refuses."""
        if pick % 4:
            service.open()
        else:
            self.service_resets(service, pick)

    def service_sends(self, service: Stream, pick: int) -> None:
        """Bytes for its client."""
        if service.may_send and not service.ended:
            service.send(size_of(pick))

    def service_takes(self, service: Stream, pick: int) -> None:
        """Its bytes, and its end of file when that came."""
        if service.end_came and not service.flushed:
            service.flush()
        else:
            service.consume(size_of(pick))

    def service_ends(self, service: Stream, pick: int) -> None:
        """By itself."""
        if not service.ended:
            service.finish()

    def service_resets(self, service: Stream, pick: int) -> None:
        """It is lost."""
        self.spoiled.append(service)
        service.reset()

    def write(self, me: object, pick: int) -> None:
        """A transport wants bytes."""
        self.server.agent.take(size_of(pick))

    def server_reads(self, me: object, pick: int) -> None:
        """Cut anywhere."""
        self.server.read(size_of(pick))

    def agent_reads(self, me: object, pick: int) -> None:
        """Cut anywhere."""
        self.server.answer(size_of(pick))

    def server_reads_all(self, me: object, pick: int) -> None:
        """All that was written."""
        self.server.agent.take()
        self.server.read()

    def agent_reads_all(self, me: object, pick: int) -> None:
        """All that was written."""
        self.server.answer()

    def time(self, me: object, pick: int) -> None:
        """Less than early DATA is held, in all."""
        self.server.agent.now += pick % 10 / 1000
        self.server.agent.tick()

    def teardown(self) -> None:
        """Everything ends: what a service said came whole, and the agent holds nothing."""
        self.server.settle()
        for service in self.server.agent.live:
            service.open()
            if not service.ended:
                service.finish()
        self.server.settle()
        mux = self.server.agent.mux
        assert mux.channels == {}
        assert not mux.holds_back
        for client in self.server.clients:
            assert client.ended
            assert client.service is not None
            assert client.service.over is not None
            if client.service not in self.spoiled:
                assert client.received == client.service.sent


TestRealServerMachine = RealServerMachine.TestCase
TestRealServerMachine.settings = settings(max_examples=deep(50), stateful_step_count=40, deadline=None)


def agent_with(*frames: bytes) -> End:
    """An agent's end that has read some frames."""
    end = End(LegacyAgentMux(LIMITS, 0.0))
    end.read(b"".join(frames))
    return end


def closes(end: End) -> list[int]:
    """The numbers that an end has said CLOSE for."""
    end.take()
    return [f.channel for f in end.wrote if f.command == Command.CLOSE]


def test_f18_early_data_is_handed_to_its_connect() -> None:
    """The real server may send a client's bytes before its CONNECT."""
    end = agent_with(frame(Command.DATA, 9, b"ear"), frame(Command.DATA, 9, b"ly"), CONNECT_9)
    assert end.streams[0].received == b"early"
    assert closes(end) == []
    assert end.mux.due(0.0) == 5.0


def test_f18_early_data_without_a_connect_is_answered_by_close_after_a_second() -> None:
    """Looked at in time, and the number is as good as before."""
    end = agent_with(frame(Command.DATA, 9, b"early"))
    assert end.mux.due(0.0) == 0.5
    for end.now in (0.0, 0.9, 1.0):
        end.tick()
    assert closes(end) == [9]
    end.read(CONNECT_9)
    assert end.streams[0].received == b""


def test_f18_more_early_data_than_64_kib_is_not_held() -> None:
    """What was held for that number is dropped, and it is answered by one CLOSE."""
    end = agent_with(frame(Command.DATA, 9, bytes(60_000)))
    end.read(frame(Command.DATA, 9, bytes(6000)) * 2)
    assert closes(end) == [9]
    assert odd(end) == ["DATA for number 9, not in use"]
    end.read(CONNECT_9)
    assert len(end.streams[0].received) == 6000


def test_a_close_takes_early_data_away() -> None:
    """The client left before its CONNECT was sent, and had nothing to wait for."""
    end = agent_with(frame(Command.DATA, 9, b"early"), frame(Command.CLOSE, 9), frame(Command.CLOSE, 9))
    assert odd(end) == ["CLOSE 9 took early DATA away"]
    end.read(CONNECT_9)
    assert end.streams[0].received == b""


def test_f17_a_number_given_to_another_client_without_notice() -> None:
    """The real server does so after 256 clients: the old service is reset, and no CLOSE meets the new one."""
    end = agent_with(CONNECT_9, frame(Command.DATA, 9, b"old"), CONNECT_9, frame(Command.DATA, 9, b"new"))
    old, new = end.streams
    assert old.over is not None
    assert old.over.reason is Ended.RESET_BY_PEER
    assert (old.received, new.received) == (b"old", b"new")
    old.reset()
    assert closes(end) == []
    assert new.over is None
    assert odd(end) == ["CONNECT for number 9, which was in use"]


def test_a_refused_dial_is_answered_by_close_once() -> None:
    """The server's echo, and what its client had said, meet nobody and nothing is said to them."""
    end = agent_with(CONNECT_9)
    (service,) = end.streams
    service.reset(Ended.REFUSED)
    end.read(frame(Command.DATA, 9, b"late") + frame(Command.CLOSE, 9))
    service.open()
    end.mux.end(service.channel)
    assert closes(end) == [9]
    assert service.over is not None
    assert service.over.reason is Ended.REFUSED


def test_a_service_that_ends_sends_all_its_bytes_before_close() -> None:
    """Over is told when CLOSE is written, once; the echo is swallowed."""
    end = agent_with(CONNECT_9)
    (service,) = end.streams
    service.open()
    service.send(100_000)
    service.finish()
    assert service.over is None
    while end.take():
        pass
    assert sum(len(f.payload) for f in end.wrote) == 100_000
    assert end.wrote[-1] == Frame(Command.CLOSE, 9, b"")
    assert service.over is not None
    assert service.over.reason is Ended.CLOSED
    end.read(frame(Command.CLOSE, 9))
    assert closes(end) == [9]


def test_n26_a_client_that_left_still_gets_what_its_service_says() -> None:
    """The server's CLOSE is an end of file for the service; the agent's CLOSE comes when that has ended."""
    end = agent_with(CONNECT_9, frame(Command.CLOSE, 9))
    (service,) = end.streams
    assert service.end_came
    service.open()  # dialled only now
    end.read(frame(Command.CLOSE, 9))  # said twice: the second is ignored
    service.flush()
    service.send(50)
    end.take()
    assert end.wrote[-1] == Frame(Command.DATA, 9, end.wrote[-1].payload)
    service.finish()
    assert closes(end) == [9]
    end.read(frame(Command.DATA, 9, b"early"))  # both have said CLOSE: this is for the next client
    end.read(CONNECT_9)
    assert end.streams[1].received == b"early"


@pytest.mark.parametrize(
    ("flushed", "patience"), [(True, LIMITS.legacy_linger), (False, LIMITS.legacy_stall)]
)
def test_a_service_that_stays_after_its_client_is_given_up(flushed: bool, patience: float) -> None:
    """5 s after it has everything, 30 s when it does not take it; the link looks in time."""
    end = agent_with(CONNECT_9, frame(Command.DATA, 9, b"x"), frame(Command.CLOSE, 9))
    (service,) = end.streams
    service.open()
    if flushed:
        service.flush()
    assert end.mux.due(0.0) == 0.5
    end.now = patience
    end.mux.liveness.heard(end.now)
    end.tick()
    assert service.over is None
    end.now += 0.5
    end.tick()
    assert service.over is not None
    assert service.over.reason is Ended.CLOSED
    assert closes(end) == [9]


def test_n26_a_long_reply_is_not_cut_while_its_service_goes_on() -> None:
    """The patience counts from the last byte, and not while the link does not take what was said."""
    end = agent_with(CONNECT_9, frame(Command.CLOSE, 9))
    (service,) = end.streams
    service.open()
    service.flush()
    for _ in range(6):
        end.now += LIMITS.legacy_linger - 1
        end.mux.liveness.heard(end.now)
        service.send(50)
        end.take()
        end.tick()
    service.send(50)  # the link is full: nothing is written
    for _ in range(6):
        end.now += LIMITS.legacy_linger - 1
        end.mux.liveness.heard(end.now)
        end.tick()
    assert service.over is None
    end.take()
    end.tick()
    end.now += LIMITS.legacy_linger + 0.5
    end.mux.liveness.heard(end.now)
    end.tick()
    assert service.over is not None
    assert closes(end) == [9]


def test_n26_a_reply_that_nobody_hears_is_cut() -> None:
    """CLOSE in answer to DATA behind CLOSE: the client is gone, and its service must not go on for ever."""
    end = agent_with(CONNECT_9)
    (service,) = end.streams
    service.open()
    service.send(50)
    end.take()
    end.read(frame(Command.CLOSE, 9))
    end.read(frame(Command.CLOSE, 9))  # answers nothing that was said since
    assert service.over is None
    service.send(50)
    end.take()
    end.read(frame(Command.CLOSE, 9))
    assert service.over is not None
    assert service.over.reason is Ended.RESET_BY_PEER
    assert closes(end) == [9]


def test_n26_both_of_ours_end_a_stream_whose_client_is_gone() -> None:
    """The first CLOSE may be an end of file; when DATA still comes a second later, it is said again."""
    joined = joined_legacy(LIMITS)
    client, service = joined.channel()
    client.reset()
    joined.settle()
    assert service.end_came
    before = len(closes(joined.server))
    for now in (0.5, 0.9):
        joined.server.now = joined.agent.now = now
        service.send(50)
        joined.settle()
        assert service.over is None
    assert len(closes(joined.server)) == before
    joined.server.now = joined.agent.now = 1.1
    service.send(50)
    joined.settle()
    assert service.over is not None
    assert service.over.reason is Ended.RESET_BY_PEER
    joined.finish()
    at_rest(joined)


def test_only_a_server_connects() -> None:
    """An agent that would is our own fault; a wire without GOAWAY says nothing."""
    mux = LegacyAgentMux(LIMITS, 0.0)
    with pytest.raises(LocalError, match="an agent opens no channels"):
        mux.connect(TARGET, 0.0)
    mux.goaway(GoAway.STOPPING, 1, "restart")
    assert mux.take(1 << 16, 0.0) == ([], [], [])


# ---- frames that change nothing


@pytest.mark.parametrize(
    "data",
    [
        frame(Command.CLOSE, 0),
        frame(Command.CLOSE, 7),
        frame(Command.DATA, 0),
        frame(Command.CLOSE, 1) + frame(Command.DATA, 1),
    ],
    ids=["answers to no question", "ends of nothing", "questions", "nothing for a number that rests"],
)
def test_a_flood_of_frames_that_change_nothing_ends_the_link(data: bytes) -> None:
    """Each is normal on this wire, 10,000 in a minute are not."""
    end, _ = server()
    end.read(data * 4000)
    assert odd(end) == []
    with pytest.raises(RemoteError, match="10000 frames that change nothing in 60 s"):
        end.read(data * 6010)


@pytest.mark.parametrize("data", [frame(Command.CLOSE, 9), frame(Command.DATA, 9)])
def test_a_flood_of_them_ends_the_agents_link(data: bytes) -> None:
    """The same from a server."""
    agent = End(LegacyAgentMux(LIMITS, 0.0))
    with pytest.raises(RemoteError, match="10000 frames that change nothing in 60 s"):
        agent.read(data * 10_000)
