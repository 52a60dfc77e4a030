"""Who asks by HTTP, and from where: what every answer beyond health and files depends on.

Rule of this file: values; who somebody is says whoever keeps people. ``peer`` is that of
the client, also behind a balancer that the settings name.

Source: ours.
"""

from typing import Any, NamedTuple

from revtunnel.process.admin.operation_form import CallerRole
from revtunnel.process.web.http_answers import HttpRefused
from revtunnel.process.web.web_rules import WebRules

__all__ = ["Asker", "Place", "place_of"]


class Place(NamedTuple):
    """Where a request came in, and where from."""

    rules: WebRules
    peer: str  # HOST:PORT
    host: str  # as it was asked for
    is_forwarded: bool = False  # a balancer brought him


class Asker(NamedTuple):
    """Somebody who is known."""

    name: str
    role: CallerRole
    place: Place
    login: Any = None  # of whoever keeps people
    looks_only: bool = False  # whatever the role says
    csrf: str = ""  # what a page has to say with a change; "": it is no browser


def place_of(request: Any, by_link: bool = False) -> Place:
    """Of a request that is ours to answer; ``by_link``: a browser may be led here from any page.

    Raises:
        HttpRefused: it comes from a page of another origin.
    """
    rules: WebRules = request.channel.rules
    headers = request.requestHeaders
    said = [each.decode("latin-1") for each in headers.getRawHeaders(b"x-forwarded-for", [])]
    host = (headers.getRawHeaders(b"host") or [b""])[0].decode("latin-1")
    origins = headers.getRawHeaders(b"origin", [])
    sites = headers.getRawHeaders(b"sec-fetch-site", [b"none"])
    mode = headers.getRawHeaders(b"sec-fetch-mode", [b""]), headers.getRawHeaders(b"sec-fetch-dest", [b""])
    is_led = by_link and mode in (([b"navigate"], [b"document"]), ([b""], [b""]))
    if not all(rules.is_our_page(each.decode("latin-1"), host) for each in origins) or not (
        is_led or all(each in (b"none", b"same-origin") for each in sites)
    ):
        raise HttpRefused(403, "origin", "not for pages of another origin")
    peer = rules.client_of(request.channel.came_from, said)
    return Place(rules, peer, host, peer != request.channel.came_from)
