"""Where agents and people come in at one server: listening sockets, their rules, the headers before them.

Rule of this file: what holds for a listener is looked up by its name when somebody comes, so that settings
change without its socket; whoever comes by one that is gone by then is turned away.

Source: ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from revtunnel import __version__
from revtunnel.carriers.doors import Lent
from revtunnel.daemons.legacy_devices import offers_at, sources_at
from revtunnel.daemons.server_settings import ListenerSettings, ServerSettings, agents_at
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.ground.facts import LinkRefused
from revtunnel.ground.limits import LinkLimits, ServerLimits
from revtunnel.ground.networks import is_loopback
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.server_link import AgentListener
from revtunnel.sockets.listening import Came, Listeners
from revtunnel.sockets.open_listeners import OpenListeners, WantedListener
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.ways.proxy_protocol import ProxyHeaders, Refused
from revtunnel.sockets.ways.trusted_proxies import HeaderRules, SenderSettings, header_rules
from revtunnel.streams.commands import Feature
from revtunnel.systems.emo.emo_listener import EmoListener
from revtunnel.systems.emo.emo_server import EmoServerLink

if TYPE_CHECKING:
    from revtunnel.process.web.web_listener import WebListener

__all__ = ["ServerListeners", "agent_listener", "agents_by_web", "nodes_at"]

SAFE = 25.0  # seconds of silence: who asks sooner knows that his path does not bear it
GROWN = 60.0  # seconds of silence that paths are tried to bear where nobody said so
_OF_SOCKETS = Feature.DATA_SOCKETS | Feature.EARLY
_FEATURES = Feature.ORIGIN | Feature.SESSIONS | Feature.SERVICES | Feature.OFFERS | Feature.CHANGES
_FEATURES |= Feature.PLACES | Feature.AFTER


def agent_listener(
    listener: ListenerSettings,
    settings: ServerSettings,
    identity: Identity | None = None,
    doubt: bool = False,
    emo: EmoListener | None = None,
) -> AgentListener:
    """What links of one listener get.

    ``doubt``: who is enrolled is not known (``SqliteLedger.doubtful``); ``emo``: what those of EMO share.
    """
    link = settings.link
    wide = any(not is_loopback(host) for host, _ in listener.address)
    rules = ListenerRules(
        listener.name,
        legacy=listener.kind == "legacy",
        probe=listener.probe,
        keys_required=listener.keys == "required" or (doubt and wide),
        legacy_serial=listener.serial or "",
        sources=sources_at(settings, listener),
    )
    kernel = kernel_keepalive(link)
    hello = ServerHello(
        name=settings.name,
        software=f"revtunnel {__version__}",
        first_window=link.first_window,
        keepalive=link.keepalive,
        spread=settings.limits.herd_spread,
        features=_FEATURES
        | (Feature(0) if listener.data == "link" else _OF_SOCKETS)
        | (Feature.PROBES if kernel else Feature(0)),
        kernel_keepalive=kernel,
    )
    made = AgentListener(
        rules,
        link,
        hello,
        duplicate=listener.duplicate,
        pool=listener.pool,
        heartbeat=listener.heartbeat,
        mappings=offers_at(settings, listener),
        data=listener.data,
        checkers=listener.checkers,
        identity=identity,
        certified_only=listener.certified,
        make=partial(EmoServerLink, _emo_listener(settings, emo)) if listener.kind == "emo" else None,
    )
    return _of_nodes(made) if listener.kind == "nodes" else made


def kernel_keepalive(link: LinkLimits) -> float:
    """Seconds of silence to which the kernels of agents grow; 0.0: they do not probe."""
    said = link.kernel_keepalive
    grown = said if said is not None else GROWN if link.keepalive >= SAFE else 0.0
    return grown if grown > link.keepalive else 0.0


def nodes_at(settings: ServerSettings) -> str:
    """The name of the listener for other nodes; "": there is none, or none any more."""
    return next((each.name for each in settings.listeners if each.kind == "nodes"), "")


def _of_nodes(made: AgentListener) -> AgentListener:
    """The same for links of other nodes."""
    from revtunnel.cluster.peer_dials import FEATURES, of_nodes
    from revtunnel.cluster.peer_hub import PeerServerLink

    limits = of_nodes(made.limits)
    hello = replace(made.hello, keepalive=limits.keepalive, features=FEATURES, kernel_keepalive=0.0)
    return replace(made, limits=limits, hello=hello, make=PeerServerLink)


def agents_by_web(settings: ServerSettings) -> list[ListenerSettings]:
    """Web listeners that are listeners for agents too."""
    return [agents_at(each) for each in settings.web if each.agents]


def _emo_listener(settings: ServerSettings, shared: EmoListener | None) -> EmoListener:
    """The machines of EMO: every reservation of a target that is called emo."""
    ports = {each.port: (each.serial, each.target) for each in settings.reservations if each.target == "emo"}
    shared = shared or EmoListener({})
    shared.in_vain.reserved(ports)
    return replace(shared, ports=ports, limits=settings.emo)


class ServerListeners:
    """All of one server. ``take`` comes first, then ``start``, or ``close_others`` and ``open_missing``."""

    def __init__(self, reactor: Any, listeners: Listeners, board: Switchboard) -> None:
        self.open = OpenListeners(listeners, they_begin=True)
        self.together = listeners.together
        self.people: WebListener | None = None  # who has web listeners
        self.nodes: Callable[[str], Came] | None = None  # who takes other nodes, by the listener's name
        self.workers: Callable[[str], Came] | None = (
            None  # who takes agents of rt1 in place of the switchboard
        )
        self._headers = ProxyHeaders(reactor, lambda: board.limits.pending)
        self._board = board
        self._rules: dict[str, HeaderRules | None] = {}  # by section
        self._wanted: list[WantedListener] = []
        board.data.gates.listening = self._by_ticket

    def take(self, settings: ServerSettings) -> None:
        """Other settings, for who comes from now on; no socket is opened or closed yet."""
        limits = settings.limits
        self._rules = {
            **{f"listener {each.name}": _header_rules(each, limits) for each in settings.listeners},
            **{f"web {each.name}": _header_rules(each, limits) for each in settings.web},
            **{f"pool {each.name}": _header_rules(each, limits) for each in settings.pools},
        }
        self._wanted = []
        for each in settings.listeners:
            refused = partial(self._not_let_in, each.name)
            by_kind = {"nodes": self.nodes, "rt1": self.workers or self._board.agents}
            who_comes = by_kind.get(each.kind, self._board.agents)
            if who_comes is None:  # a reload makes no node of a server
                continue
            came = self._behind(who_comes(each.name), f"listener {each.name}", refused)
            self._want(f"listener {each.name}", each.address, limits.backlog, came, must=True)
        for site in settings.web if self.people is not None else ():
            assert self.people is not None
            refused = partial(self.people.not_let_in, site.name)
            came = self._behind(partial(self.people.came, site.name), f"web {site.name}", refused)
            self._want(f"web {site.name}", site.address, limits.backlog, came)

    def close_others(self) -> None:
        """Close what is gone."""
        self.open.close_others(self._wanted)

    def open_missing(self) -> list[str]:
        """Open what is not open yet; a line for each that cannot be."""
        return self.open.open_missing(self._wanted)

    def start(self) -> None:
        """Open all. CannotListenError: one cannot be had."""
        self.open.start(self._wanted)

    def before_clients(self, came: Came, pool: Callable[[], str], refused: Refused) -> Came:
        """What listens for clients at a port, which may go from pool to pool."""
        return self._headers.behind(came, lambda: self._rules.get(f"pool {pool()}"), refused)

    def stand_before(self, ports: ClientPorts) -> None:
        """Read, at these ports, the headers that their pools want."""
        ports.behind = self.before_clients
        ports.heads = lambda pool: self._rules.get(f"pool {pool}") is not None

    def link_port(self, settings: ServerSettings) -> int:
        """Where agents come in with TLS; 0: nowhere."""
        secure = (self.open.of(f"[listener {each.name}]") for each in settings.listeners if each.tls)
        return next((listener.port for found in secure for listener in found), 0)

    def web_port(self, name: str) -> int:
        """Where people come in at one listener; 0: nowhere."""
        return next((each.port for each in self.open.of(f"[web {name}]")), 0)

    def places(self, kind: str) -> str:
        """Where we listen, for people: of every ``listener`` or of every ``web``."""
        return ", ".join(listener.place for listener in self.open.of(f"[{kind} "))

    def stop(self) -> None:
        """Let nobody in any more."""
        self.open.stop()

    def stop_headers(self) -> None:
        """Wait for no header any more."""
        self._headers.stop()

    # -- inside

    def _by_ticket(self, name: str) -> Sequence[Lent]:
        """The sockets of a listener where a data socket needs its ticket and nothing else."""
        asks = self.workers is not None or self._rules.get(f"listener {name}") is not None
        lets_in = not asks and self._board.admission.needs_ticket_only(name)
        return self.open.of(f"[listener {name}]") if lets_in else ()

    def _want(
        self,
        section: str,
        addresses: tuple[tuple[str, int], ...],
        backlog: int,
        came: Came,
        must: bool = False,
    ) -> None:
        self._wanted += [WantedListener(f"[{section}]", *each, backlog, came, must) for each in addresses]

    def _behind(self, came: Came, section: str, refused: Refused) -> Came:
        return self._headers.behind(came, lambda: self._rules.get(section), refused)

    def _not_let_in(self, listener: str, peer: str, reason: str, detail: str) -> None:
        self._board.report(LinkRefused(listener, peer, "", reason, detail))


def _header_rules(each: SenderSettings, limits: ServerLimits) -> HeaderRules | None:
    return header_rules(each.proxy_protocol, each.proxy_from, limits.proxy_header, limits.proxy_wait)
