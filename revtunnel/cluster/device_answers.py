"""What a node answers other nodes about its devices, and the sessions that those have to them.

The rules: a session of another node is known here as long as that node asks for it, and ``KEPT`` longer: its
node may have died. Its streams are let in while the device's record, its mute and its site allow it, for the
services that it was asked for. What other nodes' sessions may be in number is held here, for each device.

Source: docs/scale-out.rst; ours.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Typing

from twisted.internet.defer import Deferred

from revtunnel.cluster.devices_of_nodes import written_device
from revtunnel.fleet.device_consent import DeviceConsent
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.errors import RemoteError
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.refusals import Invalid, NotFound
from revtunnel.streams.consent_messages import ConsentRequest, decode_session, encode_asked

__all__ = ["DeviceAnswers", "DevicesHere", "Proxies"]

KEPT = 10.0  # seconds
OF_ONE = 64  # sessions of other nodes to one device


class DevicesHere(Typing):
    """The devices of this node."""

    def device_here(self, serial: str) -> DeviceElsewhere | None:
        """As others see it; None: it is not here."""

    def devices_here(self, after: str, limit: int) -> list[DeviceElsewhere]:
        """Those behind a serial, in order."""


class Proxies(Typing):
    """The CCCP proxies of this node, if it speaks that."""

    def proxy_here(self, serial: str) -> "Row | Deferred[Row] | None":
        """As ``/status`` says; None: there is none."""

    def proxy_off(self, serial: str) -> bool:
        """End it; False: there is none."""


@dataclass(slots=True)
class _Foreign:
    """A session of another node to a device here."""

    serial: str
    asked: ConsentRequest
    until: float
    yes: bool | None
    why: str = ""


class DeviceAnswers:
    """What other nodes call (node_operations.py). ``now`` is monotonic seconds."""

    def __init__(self, here: DevicesHere, say: DeviceConsent, now: Callable[[], float]) -> None:
        self.proxies: Proxies | None = None
        self.busy: Callable[[], Row] = lambda: {"load": None, "engine_trip": None}
        self._here = here
        self._say = say
        self._now = now
        self._sessions: dict[str, _Foreign] = {}
        self._of: Counter[str] = Counter()  # by serial

    # -- for nodes

    def device(self, serial: str, asked: str = "") -> Row:
        """A device that is here, and for a session what its site says.

        Raises:
            NotFound: it is not here.
            Invalid: nothing that asks.
        """
        found = self._here.device_here(serial)
        if found is None:
            raise NotFound(f"{serial} is not at this node")
        row = written_device(found)
        if not asked:
            return row
        session = self._keep(found, _read(asked))
        return {**row, "yes": session.yes, "why": session.why}

    def devices(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Those that are here, by serial."""
        found = self._here.devices_here(after, limit)
        return [written_device(each) for each in found], found[-1].serial if len(found) == limit else None

    def load(self) -> Row:
        """What this node has to do: per cent of a core, and seconds to its engine and back."""
        return self.busy()

    def over(self, session: str) -> None:
        """A session of another node has ended."""
        foreign = self._sessions.pop(session, None)
        if foreign is not None:
            self._of[foreign.serial] -= 1
            self._of += Counter()  # without those of none
            self._say.over(session)

    def proxy(self, serial: str) -> "Row | Deferred[Row]":
        """The CCCP proxy of a serial. NotFound: there is none here."""
        row = self.proxies.proxy_here(serial) if self.proxies is not None else None
        if row is None:
            raise NotFound(f"no proxy for {serial}")
        return row

    def proxy_off(self, serial: str) -> None:
        """End it. NotFound: there is none here."""
        if self.proxies is None or not self.proxies.proxy_off(serial):
            raise NotFound(f"no proxy for {serial}")

    # -- for this node

    def allows(self, session: str, serial: str, offer: str) -> bool:
        """Whether a client of another node's session may have a stream here."""
        known = self._sessions.get(session)
        return (
            known is not None and known.serial == serial and bool(known.yes) and offer in known.asked.services
        )

    def look(self) -> None:
        """Forget sessions that nobody asks for any more."""
        now = self._now()
        for number in [number for number, each in self._sessions.items() if each.until <= now]:
            self.over(number)

    def _keep(self, device: DeviceElsewhere, asked: ConsentRequest) -> _Foreign:
        """What is known of a session, which begins with the first question for it."""
        until, refusal = self._now() + KEPT, device.refusal
        before = self._sessions.get(asked.session)
        if before is not None and (before.serial, before.asked) == (device.serial, asked) and not refusal:
            before.until = until
            return before
        if before is None and self._of[device.serial] >= OF_ONE:
            refusal = refusal or f"{OF_ONE} sessions of other nodes run"
        if before is not None:
            self.over(asked.session)
        fresh = _Foreign(
            device.serial, asked, until, None if device.asks and not refusal else not refusal, refusal
        )
        if not refusal:
            self._sessions[asked.session] = fresh
            self._of[device.serial] += 1
            self._say.ask(device.serial, asked, lambda yes, why: _said(fresh, yes, why), foreign=True)
        return fresh


def _said(session: _Foreign, yes: bool, why: str) -> None:
    session.yes, session.why = yes, why


def _read(asked: str) -> ConsentRequest:
    """What a node asks for, held to what an agent takes."""
    try:
        session, user, services, address = json.loads(asked)
        found: Any = decode_session(encode_asked(ConsentRequest(session, user, tuple(services), address)))
    except (ValueError, TypeError, AttributeError, RecursionError, RemoteError) as error:
        raise Invalid(f"asked: {error}") from None
    return ConsentRequest(*found)
