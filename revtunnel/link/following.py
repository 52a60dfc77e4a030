"""Whether an agent goes where a server sends it: the place that a GOAWAY may carry.

Rule of this file: a server has no say in what an agent dials beyond what its settings let it. A place is
gone to that is written in ``servers``, that DNS lists under a name of SRV there, or that is an address of
the name by which this link came; with ``follow = verified`` any place, but over TLS only, on a link that
has TLS, and only if the server there proves the name that this one had to prove. No place is more than a
try: whoever is not let in there goes on with his own list.

Who is on the path of a plain link can write a GOAWAY; he gets nobody farther than to the servers of the
list. A server that is not honest could have agents knock at doors of their own networks: for that
``verified`` is asked for by name.

Source: docs/link-protocol.rst "GOAWAY"; ours.
"""

from collections.abc import Iterable

from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.link.agent_link import AgentLink

__all__ = ["CONFIGURED", "NO", "VERIFIED", "place_to_go"]

CONFIGURED, VERIFIED, NO = "configured", "verified", "no"
SENDS = frozenset((GoAway.STOPPING.word, GoAway.OVERLOADED.word))  # reasons to be served by another one


def place_to_go(
    link: AgentLink, known: Iterable[ServerPlace], rule: str, server_name: str | None = None
) -> ServerPlace | None:
    """Where a link that has ended sends us; None: nowhere.

    Args:
        known: what is written, and what DNS lists under that.
        rule: ``follow``.
        server_name: that certificates must have; None: the host that is written.

    Raises:
        ValueError: somewhere, and we do not go there; the text says why.
    """
    if not link.elsewhere or link.ended is None or link.ended[0] not in SENDS:
        return None
    place = parse_server_place(link.elsewhere)
    if place.web or place.service:
        raise ValueError("HOST:PORT wanted")
    if rule == NO:
        raise ValueError("follow = no")
    here = link.place[0]
    for each in known:
        if not each.web and (each.host, each.port) == (place.host, place.port):
            return each
    proved = here.name or here.host
    if place.host in link.addresses and place.port == here.port and not here.web:
        return place._replace(name=proved)
    if rule == VERIFIED and link.tls and not here.web:
        return place._replace(name=server_name or proved)
    why = "and this link has no TLS" if rule == VERIFIED else "and follow = configured"
    raise ValueError(f"it is none of our servers, {why}")
