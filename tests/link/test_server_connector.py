"""Where data sockets connect to, if a connect is all that is to be done."""

from typing import NamedTuple

import pytest

from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.ways.proxy_choice import from_environment

HERE = ServerPlace("server.example", 7000)
PROXY = from_environment({"http_proxy": "http://192.0.2.1:3128", "https_proxy": "http://192.0.2.1:3128"})
BAD = from_environment({"http_proxy": "socks://", "https_proxy": "socks://"})


class Link(NamedTuple):
    """Which server it is of, and the address of that."""

    place: tuple[ServerPlace, str]


@pytest.mark.parametrize(
    ("place", "at", "way", "found"),
    [
        (HERE, "192.0.2.7", ServerWay(), ("192.0.2.7", 7000)),
        (HERE, "2001:db8::1", ServerWay(), ("2001:db8::1", 7000)),
        (HERE, "", ServerWay(), None),
        (ServerPlace("server.example", 80, "/link"), "192.0.2.7", ServerWay(), None),
        (HERE, "192.0.2.7", ServerWay(Identity.__new__(Identity)), None),
        (HERE, "192.0.2.7", ServerWay(Identity.__new__(Identity), lambda _: False), ("192.0.2.7", 7000)),
        (HERE, "192.0.2.7", ServerWay(proxy=PROXY), None),
        (HERE, "192.0.2.7", ServerWay(proxy=BAD), None),
    ],
)
def test_what_more_is_to_be_done(
    place: ServerPlace, at: str, way: ServerWay, found: tuple[str, int] | None
) -> None:
    """A name to resolve, a WebSocket, TLS, a proxy, or one that cannot be used."""
    assert ServerConnector(None, way).direct(Link((place, at))) == found
