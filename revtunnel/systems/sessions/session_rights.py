"""What a person may do with the services of devices, by people, grants, labels and records together.

Rule of this file: it asks and changes nothing. A service of a device is an offer of it that its record
allows, by name; several at once are allowed only if each is. Times are seconds since 1970.

Of a device at another node its services are what that node says, a few seconds ago; who may have them is said
by the people, grants and records of this one. Whoever wants a device looks for it first (``look``).

Source: trust/grants.py; next/remote-sessions.md section 1; ours.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.devices import Device
from revtunnel.fleet.elsewhere import DeviceElsewhere, OtherNodes
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.targets import Offer
from revtunnel.systems.sessions.page_names import spoken_by
from revtunnel.trust.grants import Action, Grants, Question, Verdict
from revtunnel.trust.user_tokens import Login

__all__ = ["Listed", "Rights"]

LOOKED = 500  # devices that one page of a listing looks at
_WILD = frozenset("*?[")


class Listed(NamedTuple):
    """A page of what somebody may see. ``after``: the last device that was looked at."""

    services: list[dict[str, Any]]
    after: str
    more: bool


class Rights:
    """The one who asks grants. ``labels_of`` knows what a device is called by."""

    def __init__(
        self,
        grants: Grants,
        fleet: Fleet[Any],
        access: AccessControl,
        labels_of: Callable[[str], Iterable[str]],
        nodes: Callable[[], OtherNodes | None] = lambda: None,
    ) -> None:
        self._grants = grants
        self._fleet = fleet
        self._access = access
        self._labels_of = labels_of
        self._nodes = nodes

    def device(self, serial: str) -> Device[Any] | DeviceElsewhere | None:
        """One that is here, or at another node, or was here."""
        device, nodes = self._fleet.get(serial), self._nodes()
        elsewhere = nodes.known(serial) if nodes is not None and not (device and device.online) else None
        return elsewhere or device

    def look(self, serial: str) -> "Deferred[Any] | None":
        """Have it known whether a device is at another node; None: there is nothing to wait for."""
        device, nodes = self._fleet.get(serial), self._nodes()
        return None if nodes is None or (device is not None and device.online) else nodes.look(serial)

    def undecided(self, serial: str) -> str:
        """Why nobody knows whether a device is at another node, or nothing: it is known."""
        device, nodes = self.device(serial), self._nodes()
        problem = nodes.undecided(serial) if nodes is not None and not _reached(device) else None
        return f"directory-away: {problem}" if problem else ""

    def look_behind(self, after: str) -> "Deferred[list[DeviceElsewhere]] | None":
        """Devices of other nodes, for ``listing``; None: there are no other nodes."""
        nodes = self._nodes()
        return nodes.page(after, LOOKED) if nodes is not None else None

    def reachable(self, serial: str) -> bool:
        """Whether clients can be brought to it now, by whatever wire and node."""
        return _reached(self.device(serial))

    def services(self, serial: str) -> tuple[Offer, ...]:
        """What a device offers and may."""
        device = self.device(serial)
        return self._access.offers(serial, device.offers) if device is not None else ()

    def may(
        self, who: Login | str, action: Action, serial: str, services: Iterable[str], wall: float
    ) -> Verdict:
        """Whether somebody may do this to each of these; a Login's token has to be good as well.

        The answer's ``until`` is the earliest of all; with several grants the first one's is named.
        """
        user = who if isinstance(who, str) else who.user
        labels = tuple(self._labels_of(serial))
        found: Verdict | None = None
        for service in services:
            question = Question(user, action, serial, service, wall, labels)
            verdict = (
                self._grants.may(question) if isinstance(who, str) else self._grants.still(who, question)
            )
            if not verdict.allowed:
                return verdict
            if found is None:
                found = verdict
            elif verdict.until is not None and (found.until is None or verdict.until < found.until):
                found = found._replace(until=verdict.until)
        return found or Verdict(None, None, "no-grant")

    def guest(self, user: str, watches: bool, serial: str, services: Iterable[str], wall: float) -> Verdict:
        """Whether somebody may be let into another's session: whoever may start it may watch it too."""
        chosen = tuple(services)
        verdict = self.may(user, Action.START, serial, chosen, wall)
        if watches and not verdict.allowed:
            verdict = self.may(user, Action.OBSERVE, serial, chosen, wall)
        return verdict

    def is_one(self, pattern: str) -> bool:
        """Whether a pattern of ``listing`` is a serial."""
        return bool(pattern) and not _WILD.intersection(pattern)

    def listing(
        self,
        login: Login,
        after: str,
        pattern: str,
        wall: float,
        most: int,
        elsewhere: Sequence[DeviceElsewhere] = (),
    ) -> Listed:
        """Services that somebody may see, of devices behind ``after``, at most ``most`` and whole devices.

        ``elsewhere``: what ``look_behind`` found; of one serial it was looked for instead.
        """
        exact = self.is_one(pattern)
        devices: list[Device[Any] | DeviceElsewhere]
        if exact:
            device = self.device(pattern)
            devices = [] if device is None or device.serial <= after else [device]
        else:
            devices = _together(self._fleet.page(after, LOOKED), elsewhere)
        rows: list[dict[str, Any]] = []
        for device in devices:
            if not pattern or fnmatchcase(device.serial, pattern):
                fresh = self._rows(login, device, wall)
                if rows and len(rows) + len(fresh) > most:
                    return Listed(rows, after, True)
                rows += fresh
            after = device.serial
        return Listed(rows, after, not exact and len(devices) == LOOKED)

    def _rows(self, login: Login, device: Device[Any] | DeviceElsewhere, wall: float) -> list[dict[str, Any]]:
        serial = device.serial
        return [
            {
                "device": serial,
                "service": offer.name,
                "port": offer.target.port,
                "web": bool(spoken_by(offer.name, self._access.records.of(serial).web)),
                "online": _reached(device),
                "labels": dict(label.partition("=")[::2] for label in self._labels_of(serial)),
            }
            for offer in self._access.offers(serial, device.offers)
            if self.may(login, Action.LIST, serial, [offer.name], wall).allowed
        ]


def _reached(device: Device[Any] | DeviceElsewhere | None) -> bool:
    return isinstance(device, DeviceElsewhere) or (device is not None and device.carrier is not None)


def _together(
    here: Sequence[Device[Any]], elsewhere: Sequence[DeviceElsewhere]
) -> list[Device[Any] | DeviceElsewhere]:
    """By serial, ``LOOKED`` at most; of one that was here and is at another node, that."""
    found: dict[str, Device[Any] | DeviceElsewhere] = {each.serial: each for each in here}
    found |= {each.serial: each for each in elsewhere if not _reached(found.get(each.serial))}
    return [found[serial] for serial in sorted(found)[:LOOKED]]
