"""The legacy wire: our server with a model of a device, our agent with a server's frames, ours with ours."""

import pytest

from revtunnel.core.legacy import LegacyAgentMux, LegacyServerMux
from revtunnel.core.mux import Stalled
from revtunnel.core.policy import LinkLimits
from revtunnel.wire.commands import Command
from revtunnel.wire.errors import RemoteError
from revtunnel.wire.frames import Frame, encode_frame
from tests.core.device import Device
from tests.core.joined import TARGET

LIMITS = LinkLimits()


def ticks_until(mux: LegacyServerMux | LegacyAgentMux, now: float, until: float) -> int:
    """Drive a mux by its own timer; how often it looked."""
    count = 0
    while now < until:
        mux.tick(now)
        mux.take(1 << 16, now)
        now += mux.due(now)
        count += 1
    return count


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
