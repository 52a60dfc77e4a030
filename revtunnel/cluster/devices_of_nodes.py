"""What one node knows of devices at the others: asked of the node where a device is, remembered for seconds.

The rules: the directory says whom to ask, and that node decides; what it said is good for ``FRESH``, and is
asked for again as long as a session of ours needs it. A session that begins here is kept by the device's node
only as long as this one says so; each question for it is that word too.

Source: docs/scale-out.rst; fleet/elsewhere.py; ours.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from heapq import nsmallest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from revtunnel.cluster.directory import Directory, DirectoryAway
from revtunnel.cluster.node_calls import NodeCaller
from revtunnel.cluster.node_operations import NODE_DEVICE, NODE_DEVICES, NODE_OVER
from revtunnel.cluster.node_records import Place
from revtunnel.fleet.device_consent import DeviceConsent
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.targets import Offer, Target
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import NotFound, OperatorError
from revtunnel.streams.consent_messages import ConsentRequest

__all__ = ["DevicesOfNodes", "read_device", "shielded", "written_device"]

log = Logger(namespace="revtunnel")

FRESH = 8.0  # seconds
KNOWN = 10_000  # devices that are remembered
UNDECIDED = 0.5  # seconds between questions for a session that waits for its site


class DevicesOfNodes:
    """fleet/elsewhere.OtherNodes. ``callers`` are the nodes that can be asked; ``say`` has our sessions.

    ``ask_all``: one call to every other node, and what those answered that did, by name.
    """

    def __init__(
        self,
        clock: IReactorTime,
        directory: Directory,
        callers: Mapping[str, NodeCaller],
        ask_all: Callable[..., "Deferred[dict[str, Row]]"],
        say: DeviceConsent,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._callers = callers
        self._ask_all = ask_all
        self._say = say
        self._known: OrderedDict[str, tuple[DeviceElsewhere, float]] = OrderedDict()
        self._unheard: OrderedDict[str, str] = OrderedDict()  # whose node gave no answer, in words
        self._asking: set[str] = set()  # sessions

    def undecided(self, serial: str) -> str | None:
        return self._directory.problem or self._unheard.get(serial)

    def known(self, serial: str) -> DeviceElsewhere | None:
        device, at = self._known.get(serial, (None, 0.0))
        return device if device is not None and self._clock.seconds() - at < FRESH else None

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        return shielded(Deferred.fromCoroutine(self._look(serial)))

    def page(self, after: str, limit: int) -> "Deferred[list[DeviceElsewhere]]":
        def merged(told: dict[str, Row]) -> list[DeviceElsewhere]:
            rows = [(name, row) for name, answer in told.items() for row in answer["rows"]]
            found = [each for name, row in rows if (each := _read(name, row, row["serial"])) is not None]
            return nsmallest(limit, found, key=lambda each: each.serial)

        asked = self._ask_all(NODE_DEVICES, after=after or None, limit=limit)
        return shielded(asked.addCallback(merged))

    # -- sessions

    def ask_for(self, serial: str, asked: ConsentRequest) -> None:
        if asked.session not in self._asking:
            self._asking.add(asked.session)
            asking = Deferred.fromCoroutine(self._ask(serial, asked))
            asking.addErrback(lambda bug: log.failure("asking a node for a session failed", bug))

    def over(self, serial: str, session: str) -> None:
        device, _ = self._known.get(serial, (None, 0.0))
        caller = self._callers.get(device.node) if device is not None else None
        if caller is not None:
            caller.call(NODE_OVER, session=session).addErrback(lambda failure: failure.trap(OperatorError))

    def refresh(self) -> None:
        """Ask again for every session of ours whose device is not here."""
        for serial, asked in self._say.away():
            self.ask_for(serial, asked)

    async def _ask(self, serial: str, asked: ConsentRequest) -> None:
        try:
            row = await self._row(serial, asked)
        finally:
            self._asking.discard(asked.session)
        if row is None:
            return
        yes = None if row.get("yes") is None else row["yes"] is True
        said = bool(row.get("asks", True)), yes, str(row.get("why", ""))
        if self._say.told(asked.session, *said) and yes is None:  # its site has not answered yet
            self._clock.callLater(UNDECIDED, self._ask_again, serial, asked)

    def _ask_again(self, serial: str, asked: ConsentRequest) -> None:
        if self._say.waits(asked.session):
            self.ask_for(serial, asked)

    # -- asking

    async def _look(self, serial: str) -> DeviceElsewhere | None:
        row = await self._row(serial, None)
        return self.known(serial) if row is not None else None

    async def _row(self, serial: str, asked: ConsentRequest | None) -> Row | None:
        """What the node of a device says, which is remembered; None: there is none that can be asked."""
        said, unheard = None if asked is None else json.dumps(asked), ""
        self._unheard.pop(serial, None)
        for _ in range(2):  # what the directory says may be old once, and a node busy
            place, unheard = await self._place(serial), ""
            caller = self._callers.get(place.node) if place is not None else None
            if place is None or caller is None:
                break
            try:
                row = await caller.call(NODE_DEVICE, serial=serial, asked=said)
            except NotFound:
                self._directory.forget(serial, place)
                continue
            except OperatorError as error:  # it is slow, or of another version
                unheard = f"{place.node}: {error}"
                continue
            device = _read(place.node, row, serial)
            if device is None:
                return None
            self._remember(device)
            return row
        if unheard:
            self._not_heard(serial, unheard)
        else:
            self._known.pop(serial, None)
        return None

    def _remember(self, device: DeviceElsewhere) -> None:
        self._known[device.serial] = device, self._clock.seconds()
        self._known.move_to_end(device.serial)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _not_heard(self, serial: str, why: str) -> None:
        self._unheard[serial] = why
        if len(self._unheard) > KNOWN:
            self._unheard.popitem(last=False)

    async def _place(self, serial: str) -> Place | None:
        try:
            return await self._directory.find(serial)
        except DirectoryAway:
            return self._directory.known(serial)


def shielded(call: "Deferred[Any]") -> "Deferred[Any]":
    """The same result; whoever waits may hang up, and the call goes on, as nodes and engines want it."""
    found: Deferred[Any] = Deferred()
    call.addBoth(found.callback)
    return found


def written_device(device: DeviceElsewhere) -> Row:
    """As a node says it of a device that is there."""
    offers = [(each.name, each.target.host, each.target.port) for each in device.offers]
    return {**device._asdict(), "offers": offers}


def _read(node: str, row: Row, serial: str) -> DeviceElsewhere | None:
    """The same, if it is that one; None: it makes no sense."""
    try:
        found = read_device(node, row)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    texts = found.serial, found.system, found.peer, found.refusal, *(each.name for each in found.offers)
    return found if found.serial == serial and all(isinstance(each, str) for each in texts) else None


def read_device(node: str, row: Row) -> DeviceElsewhere:
    """As the asking node reads that; one of another version may say more."""
    known = {name: row[name] for name in DeviceElsewhere._fields if name in row}
    offers = tuple(Offer(name, Target(host, port)) for name, host, port in row["offers"])
    return DeviceElsewhere(**{**known, "node": node, "offers": offers})
