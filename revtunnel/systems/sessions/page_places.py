"""Where a device's web page is for browsers: below a name, or at a port that is open for one session.

Rule of this file: none is ever one of ours. A name is for a service of a device, whoever opens it; a port is
for one service in one session, and is closed with it. A tab that was left open is of the same origin as the
next page at its port: a person gets a port where he has had the same page or none, else that of longest ago.

Source: issue "The web listener for people"; RFC 6454; ours.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from twisted.internet.error import CannotListenError

from revtunnel.process.web.askers import Place
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Listeners, Listening
from revtunnel.systems.sessions.page_names import label_of
from revtunnel.systems.sessions.session_life import SessionRefused

__all__ = ["OFF", "PageList", "PagePlace"]

BACKLOG = 64
SEEN = 65_536  # pages that people have had at ports, and are remembered
OFF = "web pages of devices are off here: device_names or device_ports in [web {}]"


class PagePlace(NamedTuple):
    """One origin. Of a port, ``session`` and ``service`` are all that is there."""

    label: str = ""  # below ``names``; "": a port
    port: int = 0
    session: str = ""
    service: str = ""
    prefix: str = ""  # of the device's cookies

    def is_for(self, session: str, serial: str, service: str) -> bool:
        """Whether a service of a session is seen here."""
        if self.label:
            return self.label == label_of(serial, service)
        return (self.session, self.service) == (session, service)

    def cookie(self, rules: WebRules) -> str:
        """The name of our cookie. ``__Host-``: no other host sets it; ``Http-``: no script does, either."""
        name = f"rt-page-{self.port}" if self.port else "rt-page"
        return name if rules.plain_cookies else f"__Host-Http-{name}"


class PageList:
    """The places of a server. ``came`` gets who connects to a port, with the name of its listener."""

    def __init__(
        self,
        listeners: Listeners,
        came: Callable[[str, End], object],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._listeners = listeners
        self._came = came
        self._random_bytes = random_bytes
        self._ports: dict[int, tuple[PagePlace, list[Listening]]] = {}
        self._seen: OrderedDict[tuple[str, int], tuple[str, str]] = OrderedDict()  # by person and port

    def __len__(self) -> int:
        """Ports that are open."""
        return len(self._ports)

    def find(self, rules: WebRules, host: str, port: int) -> PagePlace | None:
        """What was asked for, at a port of this machine; None: nothing of a device's. Any host at a port."""
        if port in self._ports:
            return self._ports[port][0]
        name = host.rpartition(":")[0] or host
        names = rules.pages.names if rules.pages is not None else ""
        label, _, rest = name.lower().rstrip(".").partition(".")
        return PagePlace(label) if names and rest == names else None

    def address(self, place: Place, user: str, session: str, serial: str, service: str) -> str:
        """The origin of a service for somebody; a port is opened for it, of his own.

        Raises:
            SessionRefused: ``off``, or ``too-many``: no port is left.
        """
        rules = place.rules
        if rules.pages is None:
            raise SessionRefused("off", OFF.format(rules.name))
        scheme = "https" if rules.identity is not None or place.is_forwarded else "http"
        if rules.pages.names:
            port = place.host.rpartition("]")[2].partition(":")[2]
            return f"{scheme}://{label_of(serial, service)}.{rules.pages.names}{port and ':' + port}"
        what = serial, service
        open_ = (each for each, _ in self._ports.values() if each.is_for(session, *what))
        found = next((each for each in open_ if self._seen.get((user, each.port)) == what), None)
        if found is None:
            found = self._open(rules, self._order(user, rules, what), session, service)
            self._seen.pop((user, found.port), None)
            self._seen[user, found.port] = what
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
        return f"{scheme}://{rules.pages.host}:{found.port}"

    def _order(self, user: str, rules: WebRules, what: tuple[str, str]) -> list[int]:
        """The free ports, the best one first."""
        assert rules.pages is not None
        low, high = rules.pages.ports
        free = [port for port in range(low, high + 1) if port not in self._ports]
        ages = {port: age for age, (who, port) in enumerate(self._seen, 1) if who == user}
        return sorted(free, key=lambda port: 0 if self._seen.get((user, port)) == what else ages.get(port, 0))

    def _open(self, rules: WebRules, ports: list[int], session: str, service: str) -> PagePlace:
        for port in ports:
            listening = self._listen(rules, port)
            if listening:
                found = PagePlace("", port, session, service, f"rt-{self._random_bytes(8).hex()}-")
                self._ports[port] = found, listening
                return found
        raise SessionRefused(
            "too-many", f"no port is free for a web page: device_ports in [web {rules.name}]"
        )

    def _listen(self, rules: WebRules, port: int) -> list[Listening]:
        """At every address of the listener; nothing: another has it."""
        listening: list[Listening] = []
        try:
            for address in rules.pages.addresses if rules.pages is not None else ():
                came = partial(self._came, rules.name)
                listening.append(self._listeners.listen(address, port, BACKLOG, came, they_begin=True))
        except CannotListenError:
            for each in listening:
                each.stop()
            return []
        return listening

    def close(self, is_over: Callable[[str], bool]) -> None:
        """Close the ports of sessions that are over."""
        for port, (each, listening) in [*self._ports.items()]:
            if is_over(each.session):
                del self._ports[port]
                for one in listening:
                    one.stop()
