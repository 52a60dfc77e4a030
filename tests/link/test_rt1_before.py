"""AFTER: which streams are to be closed before a CONNECT is dialled for."""

import pytest

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.commands import After, Command, decode_after, encode_after, encode_connect
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.window import CreditPool
from tests.link.test_rt1 import TARGET, Joined

SAID = After((3, 70_000), 0.1)
AFTER = encode_frame(Command.AFTER, 1, encode_after(SAID))
WITHIN = encode_frame(Command.WITHIN, 1, bytes(16))


def joined(after: bool = True) -> Joined:
    """Two ends whose HELLOs had the bit, or had it not."""
    pool = CreditPool(1 << 30)
    made = Joined(Rt1Mux(LinkLimits(), True, 0.0, pool), Rt1Mux(LinkLimits(), False, 0.0, pool))
    for end in (made.server, made.agent):
        end.mux.after = end.mux.sessions = after
    return made


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize(("known", "heard"), [(True, SAID), (False, None)])
def test_it_comes_to_an_agent_that_asked_for_it(cut: int, known: bool, heard: After | None) -> None:
    """Others get CONNECT alone."""
    ends = joined(known)
    ends.server.connect(after=SAID)
    ends.server.connect()
    ends.settle(cut)
    assert [stream.channel.after for stream in ends.agent.streams] == [heard, None]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (AFTER + AFTER, "AFTER for channel 1 instead of CONNECT"),
        (AFTER + WITHIN, "WITHIN for channel 1 instead of CONNECT"),
        (AFTER + encode_frame(Command.CONNECT, 2, encode_connect(TARGET)), "behind AFTER for 1"),
        (encode_frame(Command.AFTER, 1, bytes(2)), "AFTER of 2 bytes"),
        (encode_frame(Command.AFTER, 1, bytes(9)), "AFTER of 9 bytes"),
        (encode_frame(Command.AFTER, 1, bytes(38)), "AFTER of 38 bytes, limit 34"),
    ],
)
def test_it_belongs_to_the_connect_behind_it(wrong: bytes, why: str) -> None:
    """Anything else ends the link, and so does one that was not agreed to, or of an agent's."""
    with pytest.raises(RemoteError, match=why):
        joined().agent.read(wrong)
    with pytest.raises(RemoteError, match="on a link that is up"):
        joined(False).agent.read(AFTER)
    with pytest.raises(RemoteError, match="on a link that is up"):
        joined().server.read(AFTER)


def test_what_is_said_is_what_is_heard() -> None:
    """One to eight numbers, and milliseconds."""
    for after in (After((1,), 0.0), After(tuple(range(8)), 10.0), After((2**32 - 1,), 65.535)):
        assert decode_after(encode_after(after)) == after
    assert decode_after(encode_after(After((1,), 1e6))).seconds == 65.535
    for numbers in ((), tuple(range(9))):
        with pytest.raises(LocalError):
            encode_after(After(numbers, 0.1))
