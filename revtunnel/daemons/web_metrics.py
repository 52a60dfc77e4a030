"""``/metrics``: the figures of a server for Prometheus, made when they are asked for.

Rule of this file: names, units and endings by Prometheus' conventions; a label has a bounded number of
values, and none grows with devices unless a setting asks. Nothing is counted here that is counted
elsewhere, but how late the loop is. prometheus_client comes with the extra ``web``.

Source: Prometheus "Metric and label naming", OpenMetrics 1.0; issue 13; ours.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from twisted.internet.interfaces import IDelayedCall
from twisted.web import resource, server

from revtunnel import __version__
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.traffic import Traffic
from revtunnel.process.admin.operation_form import CallerRole
from revtunnel.process.web.askers import Asker, Place, place_of
from revtunnel.process.web.event_streams import EventStreams
from revtunnel.process.web.http_answers import (
    PROBLEM_JSON,
    HttpRefused,
    header,
    problem,
    write,
    write_json,
)
from revtunnel.process.web.web_rules import DEVICE_METRICS, METRICS, OPEN_METRICS

__all__ = ["Figures", "LoopDelay", "MetricsPage"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_TICK = 1.0  # seconds between two looks at the loop
PAGE = 500
# facts that are counted by their reason: the metric, and its help
_REASONS = {
    "link-refused": ("handshakes_refused", "Connections that did not become a link"),
    "link-down": ("links_ended", "Links that ended"),
    "client-refused": ("clients_refused", "Clients that were turned away"),
    "channel-ended": ("channels_ended", "Channels that ended"),
    "web-refused": ("web_refused", "Connections to web listeners that came to nothing"),
}
_DIALS = ("refused", "unreachable", "timed-out", "not-allowed", "out-of-resources")
_GAUGES = {
    "links": "Links that are up",
    "clients": "Clients that are connected",
    "channels": "Channels that run",
    "penalties": "Addresses and serials that are locked out",
    "proxies": "Proxy sessions of CCCP",
    "unregistered": "CCCP connections that have not said their serial",
    "users": "People who are known",
    "remote_sessions": "Remote sessions of people",
}


class LoopDelay:
    """How late the reactor calls whoever it was to call."""

    def __init__(self, clock: Any, registry: CollectorRegistry) -> None:
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._due = 0.0
        self._seen = Histogram(
            "revtunnel_loop_delay_seconds",
            "How late the event loop was, once a second",
            buckets=_BUCKETS,
            registry=registry,
        )

    def start(self) -> None:
        """Look from now on."""
        self._due = self._clock.seconds() + _TICK
        self._next = self._clock.callLater(_TICK, self._look)

    def stop(self) -> None:
        """No more."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        self._seen.observe(max(0.0, self._clock.seconds() - self._due))
        self.start()


class Figures:
    """A collector of prometheus_client. ``devices``: with those of each device."""

    def __init__(
        self, operator: Operator, board: Switchboard, traffic: Traffic, events: EventStreams
    ) -> None:
        self._operator = operator
        self._board = board
        self._traffic = traffic
        self._events = events
        self.devices = False

    def describe(self) -> list[Any]:
        """prometheus_client asks this at once, when there is nothing to be said yet."""
        return []

    def collect(self) -> Iterator[Any]:
        """prometheus_client calls this."""
        status = self._operator.status()
        yield InfoMetricFamily("revtunnel_build", "This program", value={"version": __version__})
        yield _gauge("draining", "Whether the server takes no new work", self._board.draining)
        for part in ("ledger", "audit"):
            text = f"Whether the {part} is not on the disk"
            yield _gauge(f"{part}_problem", text, bool(status[f"{part}_problem"]))
        fleet = self._board.fleet
        yield _by("devices", "Devices that are here, or were", "state",
                  {"online": len(fleet), "away": fleet.absent})  # fmt: skip
        yield _by("services", "Services that agents look at", "state", self._services())
        for name, text in _GAUGES.items():
            if name in status:
                yield _gauge(name, text, status[name])
        yield from self._ports(status["ports"])
        yield from self._bytes()
        yield from _facts(status["counts"])
        yield _gauge("event_readers", "Readers of server-sent events", len(self._events.readers))
        yield _by("event_readers_ended", "Readers that are gone", "reason", self._events.ended, total=True)
        yield from _webhooks(self._operator.webhooks.counts())
        if self.devices:
            yield from self._of_devices()

    def _services(self) -> dict[str, int]:
        said = (getattr(link.mux, "service_states", {}) for link in self._board.links)
        found = Counter(state.up for states in said for state in states.values())
        return {"up": found[True], "down": found[False]}

    @staticmethod
    def _ports(pools: dict[str, dict[str, int]]) -> Iterator[Any]:
        states = GaugeMetricFamily(
            "revtunnel_ports", "Client ports by pool and state", labels=["pool", "state"]
        )
        for pool, spread in pools.items():
            for state, count in spread.items():
                if state != "size":
                    states.add_metric([pool, state], count)
        yield states

    def _bytes(self) -> Iterator[Any]:
        traffic, pool = self._traffic, self._board.admission.pool
        moved = {"to_device": traffic.to_device, "to_client": traffic.to_client}
        waits = {"to_device": traffic.waiting_to_device, "to_client": traffic.waiting_to_client}
        yield _by("bytes", "Payload bytes of all channels", "direction", moved, total=True)
        yield _by("queued_bytes", "Payload bytes that wait in channels", "direction", waits)
        yield _gauge("credit_bytes", "Credit that is granted beyond first windows", pool.used)
        yield _gauge("credit_limit_bytes", "The most of it", pool.limit)

    def _of_devices(self) -> Iterator[Any]:
        here = GaugeMetricFamily("revtunnel_device_online", "Whether a device is here", labels=["serial"])
        trips = GaugeMetricFamily("revtunnel_device_round_trip_seconds", "Of its link", labels=["serial"])
        moved = CounterMetricFamily(
            "revtunnel_device_bytes", "Payload bytes of a device", labels=["serial", "direction"]
        )
        answers = GaugeMetricFamily(
            "revtunnel_device_service_up", "Whether a service answers", labels=["serial", "service"]
        )
        after: str | None = ""
        while after is not None:
            rows, after = self._operator.devices(after, PAGE)
            for row in rows:
                here.add_metric([row["serial"]], row["online"])
                if row["round_trip"] is not None:
                    trips.add_metric([row["serial"]], row["round_trip"])
                for direction in ("to_device", "to_client"):
                    moved.add_metric([row["serial"], direction], row[f"bytes_{direction}"])
                for target in row["targets"]:
                    if target.get("up") is not None:
                        answers.add_metric([row["serial"], target["name"]], target["up"])
        yield from (here, trips, moved, answers)


def _gauge(name: str, text: str, value: float) -> Any:
    return GaugeMetricFamily(f"revtunnel_{name}", text, value=float(value))


def _by(name: str, text: str, label: str, values: Any, total: bool = False) -> Any:
    family = CounterMetricFamily if total else GaugeMetricFamily
    found = family(f"revtunnel_{name}", text, labels=[label])
    for word, value in values.items():
        found.add_metric([word], value)
    return found


def _facts(counts: dict[str, int]) -> Iterator[Any]:
    """What is counted as it is told, all of it, and some by its reason."""
    plain = {word: count for word, count in counts.items() if " " not in word}
    yield _by("facts", "Facts, as the log and watch have them", "event", plain, total=True)
    for word, (name, text) in _REASONS.items():
        found = {key.partition(" ")[2]: n for key, n in counts.items() if key.startswith(f"{word} ")}
        yield _by(name, text, "reason", found, total=True)
    dials = {word: counts.get(f"channel-ended {word}", 0) for word in _DIALS}
    dials["ok"] = counts.get("channel-opened", 0)
    yield _by("dials", "Dials to services, by their result", "result", dials, total=True)


def _webhooks(hooks: dict[str, dict[str, int]]) -> Iterator[Any]:
    """What waits for hooks, and what became of the rest; nothing where there are none."""
    if not hooks:
        return
    results = ("delivered", "failed", "dropped", "dead")
    for name, text in (("waiting", "Messages that wait"), ("letters", "Dead letters that are kept")):
        yield _by(f"webhook_{name}", text, "hook", {hook: row[name] for hook, row in hooks.items()})
    text = "Messages delivered, tries failed, facts dropped, messages dead"
    found = CounterMetricFamily("revtunnel_webhook_messages", text, labels=["hook", "result"])
    for hook, row in hooks.items():
        for result in results:
            found.add_metric([hook, result], row[result])
    yield found


class MetricsPage(resource.Resource):
    """``/metrics``."""

    isLeaf = True

    def __init__(
        self, clock: Any, figures: Figures, who: Callable[[Any, Place], Asker], process: bool = True
    ) -> None:
        """``process``: with descriptors, memory and time of this process."""
        super().__init__()
        self._registry = CollectorRegistry()
        self._figures = figures
        self._who = who
        self.delay = LoopDelay(clock, self._registry)
        if process:
            ProcessCollector(registry=self._registry)
        self._registry.register(figures)

    def render(self, request: Any) -> Any:
        try:
            self._write(request)
        except HttpRefused as refused:
            row = problem(refused.status, refused.word, str(refused))
            write_json(request, refused.status, row, refused.headers, PROBLEM_JSON)
        return server.NOT_DONE_YET

    def _write(self, request: Any) -> None:
        place = place_of(request)
        parts = place.rules.parts
        if METRICS not in parts or request.postpath:
            raise HttpRefused(404, "not-found", "nothing is here")
        if request.method not in (b"GET", b"HEAD"):
            raise HttpRefused(405, "method", "not with this method, but GET, HEAD", Allow="GET, HEAD")
        if OPEN_METRICS not in parts:
            asker = self._who(request, place)
            if asker.role < CallerRole.READER:
                raise HttpRefused(403, "denied", f"{asker.name} may not look at the whole server")
        self._figures.devices = DEVICE_METRICS in parts
        encode, kind = choose_encoder(header(request, "accept"))
        write(request, 200, encode(self._registry), kind, {})
