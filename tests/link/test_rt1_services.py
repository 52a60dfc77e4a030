"""What an agent has found of its services, on a link."""

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.link.mux import Glitch, ServiceSaid
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.rt1_services import CHANGES
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.service_state import ServiceState, encode_service
from revtunnel.streams.window import CreditPool
from tests.link.test_rt1 import Joined

UP, DOWN = ServiceState("http", True, "answers 200"), ServiceState("http", False, "it does not")


def joined(services: bool = True) -> Joined:
    """Two ends whose HELLOs had the bit, or had it not; the agent offers http."""
    pool = CreditPool(1 << 30)
    made = Joined(Rt1Mux(LinkLimits(), True, 0.0, pool), Rt1Mux(LinkLimits(), False, 0.0, pool))
    for end in (made.server, made.agent):
        end.mux.services = services
    made.server.mux.offered = frozenset(("http",))
    return made


def service(state: ServiceState) -> bytes:
    """It as a frame."""
    return encode_frame(Command.SERVICE, 0, encode_service(state))


@pytest.mark.parametrize("cut", [1, 1000])
def test_the_server_knows_what_was_found_last(cut: int) -> None:
    """And hears each change once."""
    ends = joined()
    for state in (UP, DOWN, UP):
        ends.agent.mux.say_service(state)
    ends.settle(cut)
    assert ends.server.story == [ServiceSaid(UP), ServiceSaid(DOWN), ServiceSaid(UP)]
    assert ends.server.mux.service_states == {"http": UP}


def test_what_says_nothing_new_is_odd() -> None:
    """So is a service that was not offered; what is odd too often ends the link, as ever."""
    server = joined().server
    server.read(service(UP) + service(UP) + service(UP._replace(name="ssh")))
    assert [type(each) for each in server.story] == [ServiceSaid, Glitch, Glitch]
    assert server.mux.service_states == {"http": UP}
    with pytest.raises(RemoteError, match="oddities"):
        server.read(service(UP) * LinkLimits().glitches)


def test_what_changes_all_the_time_ends_the_link() -> None:
    """A thousand times a minute is no machine's."""
    server = joined().server
    server.read((service(UP) + service(DOWN)) * (CHANGES // 2 - 1) + service(UP))
    with pytest.raises(RemoteError, match="changes of services"):
        server.read(service(DOWN))


def test_an_end_that_does_not_know_it_hears_nothing_of_it() -> None:
    """And a frame of it ends its link; so does the server's."""
    ends = joined(services=False)
    ends.agent.mux.say_service(UP)
    ends.settle()
    assert ends.server.story == [] and ends.agent.wrote == []
    for end in (joined(services=False).server, joined().agent):
        with pytest.raises(RemoteError, match="SERVICE on a link that is up"):
            end.read(service(UP))
