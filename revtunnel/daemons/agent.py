"""The agent daemon: one uplink, one dialler, and the manners of a process.

Source: house.md (services); twisted.md 1.6, 2.2 and 3.
"""

import os
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred

from revtunnel import __version__
from revtunnel.carriers.agent_data import AgentData
from revtunnel.daemons.agent_certificate import AgentCertificate
from revtunnel.daemons.agent_errand import AgentErrand
from revtunnel.daemons.agent_offers import AgentOffers, offer_changes
from revtunnel.daemons.agent_options import AgentOptions as Options
from revtunnel.daemons.agent_paths import AgentPaths
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.proxy_settings import headers_of
from revtunnel.daemons.schema import changes
from revtunnel.daemons.service_probes import ServiceProbes
from revtunnel.daemons.site_consent import SiteConsent
from revtunnel.ground.declared import updated
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import Fact, LinkUp, ServerState, SettingsReloaded
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.retries import SETTINGS, Retries
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.following import place_to_go
from revtunnel.link.handshake import FILLER, AgentHandshake, AgentHello
from revtunnel.link.keys import parse_key
from revtunnel.link.mux import OffersAsked
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.uplink import Uplink
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService
from revtunnel.sockets.data_plane import DataPlane, begin_plane
from revtunnel.sockets.ends import End
from revtunnel.sockets.network_changes import NetworkChanges
from revtunnel.sockets.tls.certificates import FaultyFiles
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.streams.commands import Feature
from revtunnel.streams.dialler import Dialler, Header
from revtunnel.streams.offer_messages import Answer
from revtunnel.streams.window import CreditPool
from revtunnel.systems.emo.emo_agent import EmoAgentLink, EmoRemains
from revtunnel.systems.emo.emo_choice import EmoChoice, modern_offer
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.first_enrolment import FirstEnrolment
from revtunnel.trust.tls_settings import speaks_tls
from revtunnel.trust.tls_settings_checks import agent_rules

__all__ = ["Agent", "Options", "makeService"]

POOL = 256 * 1024 * 1024  # bytes of credit beyond the first windows; one link has its own, smaller limit
DRAIN = 10.0  # seconds running channels get when the agent stops


def read_key(path: str | None) -> bytes | None:
    """The device key of a file, or None where no file is set.

    Raises:
        SettingsError: the file cannot be read, or holds no device key. Its contents are not repeated.
    """
    if path is None:
        return None
    try:
        with open(path, encoding="ascii") as file:
            return parse_key(file.read(1024))
    except (OSError, ValueError) as error:
        raise SettingsError([f"key file {path}: {error}"]) from None


def way_to(settings: AgentSettings) -> ServerWay:
    """How servers are reached.

    Raises:
        SettingsError: the files of TLS cannot be used.
    """
    rules, secure = agent_rules(settings), [each for each in settings.servers if speaks_tls(settings, each)]
    try:
        identity = Identity(rules) if any(not each.web for each in secure) else None
        web = Identity(replace(rules, alpn=b"http/1.1")) if any(each.web for each in secure) else None
    except FaultyFiles as error:
        raise SettingsError([f"[agent] {key}: {text}" for key, text in error.faults], passes=True) from None
    return ServerWay(identity, partial(speaks_tls, settings), settings.server_name, settings.proxy, web)


class Agent(MultiService):
    """The agent's service tree; also what signals act on (process.Daemon)."""

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__()
        self.settings = options.settings
        observer = getattr(options, "observer", None)
        self.reporter = Reporter(None if observer is None else observer.admits)
        self.retries = Retries(reactor, self.reporter)
        self._reactor = reactor
        self._options = options
        self._notifier = notifier
        self._key = read_key(self.settings.key_file)
        self._pool = CreditPool(POOL)
        self._paths = AgentPaths(self.settings, self.reporter)
        self._instance = os.urandom(8)  # of this run
        self._offers = AgentOffers(self.settings, self.reporter)
        told = self.settings.limits, self._offers.now, self._headers()
        self._dialler = Dialler(self._reactor, *told, at_once=self._at_once())
        self._data = AgentData(
            self._reactor,
            self.settings.limits,
            self._dialler,
            self._dial_again,
            self.reporter,
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
        self._data.take(self.settings.limits, self.settings.relay)
        self._plane = begin_plane(reactor, self.settings.data_plane, "agent")
        self._consent = SiteConsent(reactor, self.settings, self._targets(), self.reporter)
        self._consent.cut = self._data.end_session
        self._dialler.consents = self._consent.may_dial
        self._probes = ServiceProbes(reactor, self._dialler.dial, self.settings.serial, self.reporter)
        self._emo = EmoChoice(self.settings.modern)
        self._remains = EmoRemains()
        self._connector = ServerConnector(self._reactor, way_to(self.settings))
        if self._plane == "native":
            self._data.use_plane(DataPlane.of(reactor), self._connector.direct)
        self.uplink = self._make_uplink(self.settings)
        self._network = NetworkChanges(reactor, self.uplink.hurry)
        self._certificate = AgentCertificate(
            *(reactor, self.settings, self._connector, self.reporter, self._renewed, self._enrolled)
        )
        self._certificate.setServiceParent(self)
        self._signals = SignalService(reactor, self, exit_status, notifier, deadline=DRAIN)
        self._signals.setServiceParent(self)
        self._exit = exit_status
        if self.settings.once or self.settings.idle_end is not None:
            self._make_errand(self.settings).setServiceParent(self)
        NotifyService(reactor, notifier).setServiceParent(self)
        self.reporter.watch(self._told)

    def startService(self) -> None:
        super().startService()
        settings = self.settings
        targets = ", ".join(f"{offer.name}={offer.target}" for offer in settings.local)
        self.reporter(ServerState("started", f"{settings.serial} offers {targets}"))
        self.reporter(ServerState("data-plane", self._plane))
        self._warn()
        self._network.start()
        self._reactor.callWhenRunning(self._certificate.when_fit, self.uplink.start)
        self._reactor.callWhenRunning(self._probes.take, settings, settings.local)

    def stopService(self) -> Any:
        self.retries.stop()
        self.abort()
        self.reporter(ServerState("stopped", ""))
        return super().stopService()

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new channels; fires when the running ones have ended."""
        self.reporter(ServerState("draining", f"at most {DRAIN:g} s"))
        drained, sockets, remains = self.uplink.stop(DRAIN), self._data.drain(), self._remains.drain()
        # one waits for the other: a time-out of the whole is that of the one that is waited for
        return drained.addCallback(lambda _: sockets).addCallback(lambda _: remains)

    def abort(self) -> None:
        """Cut everything now."""
        self._network.stop()
        self._consent.stop()
        self._probes.stop()
        self.uplink.abort()
        self._data.abort()
        self._remains.abort()

    def reload(self) -> None:
        """Take new services, servers, limits, log level; running streams stay.

        Whoever asks for it wants a link: no back-off is waited for.
        """
        self._reload()

    def _reload(self, again: bool = False) -> None:
        try:
            told = self._options.load()
            new = _with_wire(self.settings, updated(self.settings, told), told)
            way = way_to(new)
        except SettingsError as error:
            self.retries.settings_failed(error, partial(self._reload, again=True))
            if not (again and error.passes):
                self.reporter(SettingsReloaded((), (), tuple(error.errors)))
            return
        self.retries.well(SETTINGS)
        live, restart = changes(self.settings, new)[0], changes(new, told)
        live = [each for each in live if each != "[agent] local"]
        live += offer_changes(self.settings.local, new.local)
        if _fingerprints(way) != _fingerprints(self._connector.way):
            live.append("[agent] certificate files")
        self._connector.way = way
        self._warn()
        observer = getattr(self._options, "observer", None)
        if observer is not None:
            observer.set_level(new.log_level)
        self._dialler.set_limits(new.limits)
        self._data.take(new.limits, new.relay)
        self._consent.take(new)
        self.uplink.change(new.servers, new.limits)
        self.uplink.hurry()
        self._certificate.take(new)
        self._paths.take(new)
        self._emo.mode = new.modern
        same_headers = self.settings.proxy_protocol == new.proxy_protocol
        self.settings = new
        others = self._offers.take(new)
        self._serve_offers()
        if others or not same_headers:
            self._tell(self.uplink.link)
        self.reporter(SettingsReloaded(tuple(live), (*restart[0], *restart[1]), ()))

    # -- inside

    def _warn(self) -> None:
        identity = self._connector.way.identity or self._connector.way.web
        self._certificate.warn(identity.credentials.warnings if identity is not None else ())

    def _renewed(self) -> None:
        """Use the new certificate from the next connection on."""
        try:
            self._connector.way = way_to(self.settings)
        except SettingsError as error:
            self.retries.failed("certificate files", str(error), self._renewed)
        else:
            self.retries.well("certificate files")
        self.uplink.hurry()

    def _enrolled(self) -> None:
        """A token brought a certificate: take it as a reload would."""
        self.reload()
        self.uplink.hurry()

    def _make_errand(self, settings: AgentSettings) -> AgentErrand:
        ways = 2 if settings.emo and settings.modern == "auto" else 1  # rt1, then EMO
        return AgentErrand(
            self._reactor,
            lambda: ways * len(self.uplink.rounds.places),
            settings.once,
            settings.idle_end,
            self.reporter.watch,
            self.reporter,
            self._end,
            self._data.settle,
        )

    def _end(self, status: int) -> None:
        """Stop as SIGTERM does, with a status of our own."""
        self._exit.status = status
        self._reactor.callLater(0, self._signals.stop_requested, "errand")  # not amid a fact

    def _make_uplink(self, settings: AgentSettings) -> Uplink:
        uplink = Uplink(
            self._reactor,
            settings.servers,
            settings.limits,
            random.random,
            self._make_link,
            self.reporter,
            self._connector.connect,
        )
        uplink.sent_to = self._sent_to
        return uplink

    def _sent_to(self, link: Any, known: list[ServerPlace]) -> ServerPlace | None:
        """Where a server sends us. ValueError: we do not go there."""
        if not isinstance(link, AgentLink):
            return None
        return place_to_go(link, known, self.settings.follow, self.settings.server_name)

    def _targets(self) -> dict[str, Target]:
        """What sessions may call services."""
        return {offer.name: offer.target for offer in (*self._offers.now, *self._said_offers())}

    def _said_offers(self) -> tuple[Offer, ...]:
        """What servers are told that we offer."""
        settings = self.settings
        if not settings.emo:
            return self._offers.now
        return (modern_offer(settings.server_port, settings.local[0].target),)

    def _serve_offers(self) -> None:
        """Let what is offered now be dialled, and nothing else."""
        self._dialler.offer(self._offers.now, self._headers(), self._at_once())
        self._consent.offer(self._targets())
        self._probes.take(self.settings, self._offers.now)
        if isinstance(self.uplink.link, EmoAgentLink):
            self.uplink.link.target = self.settings.local[0].target

    def _tell(self, link: Any) -> None:
        """Tell the server of a link, once that is up, what is offered now."""
        if not isinstance(link, AgentLink) or link.up_since is None or self.settings.legacy:
            return  # a legacy server has mappings of its own
        if not link.offer(self._said_offers()):
            self.reporter(ServerState("offers", "this server learns of other services with the next link"))
        if self._headers() and link.mux is not None and not link.mux.origins:
            self.reporter(ServerState("offers", "who clients are is known from the next link on"))

    def _asked(self, link: AgentLink, asked: OffersAsked) -> None:
        """The server wants other offers."""
        why = self._offers.change(asked.change) if asked.change is not None else asked.why
        self._serve_offers()
        link.offer(self._said_offers(), Answer(not why, why))

    def _headers(self) -> dict[Target, Header]:
        return headers_of(self._offers.now, self.settings.proxy_protocol)

    def _at_once(self) -> dict[Target, int]:
        most = dict(self.settings.at_once)
        return {offer.target: most[offer.name] for offer in self._offers.now if offer.name in most}

    def _features(self, settings: AgentSettings) -> Feature:
        """What its HELLO says that it has."""
        sockets = Feature.DATA_SOCKETS | Feature.EARLY if settings.data_sockets else Feature(0)
        changes = Feature(0) if settings.remote_offers == () or settings.emo else Feature.CHANGES
        origins = Feature.ORIGIN if self._headers() else Feature(0)
        always = Feature.SESSIONS | Feature.SERVICES | Feature.OFFERS | Feature.PROBES
        always |= Feature.PLACES | Feature.AFTER
        return always | sockets | changes | origins

    def _make_link(self, ready: Callable[[Any], None], left: Callable[[Any], None]) -> Any:
        settings = self.settings
        left = partial(self._left, left)
        offers, limits, filler = self._said_offers(), settings.link, b""
        if settings.emo:
            if not self._emo.offers_rt1(self._reactor.seconds(), settings.emo_limits):
                return self._make_emo_link(ready, left)
            filler = FILLER
            limits = replace(limits, handshake=min(limits.handshake, settings.emo_limits.first + 1))
            left = partial(self._left_modern, left)
        hello = AgentHello(
            settings.serial,
            os.urandom(32),
            offers,
            f"revtunnel {__version__}",
            settings.link.first_window,
            features=self._features(settings),
            instance=self._instance,
        )
        handshake = AgentHandshake(hello, self._key, settings.legacy, filler)
        link = AgentLink(
            self._reactor,
            limits,
            settings.serial,
            handshake,
            self._dialler,
            self._pool,
            self.reporter,
            partial(self._is_up, ready),
            left,
            self._data if settings.data_sockets else None,
            self._consent,
        )
        link.offers_asked = self._asked
        link.asks_after, link.is_cut_after = self._paths.of, self._paths.learned
        link.kernel_asks = self._paths.kernel_asks
        return link

    def _left(self, left: Callable[[Any], None], link: Any) -> None:
        """A server may know better than our clock that our certificate has ended."""
        if link.ended is not None and link.ended[0] == GoAway.EXPIRED.word:
            self._certificate.told_late()
        if isinstance(link, AgentLink) and link.up_since is not None:
            self._paths.ended(link)
        left(link)

    def _told(self, fact: Fact) -> None:
        """Have ``systemctl status`` show which server we have, or why none."""
        if isinstance(fact, LinkUp):
            self._notifier.status(f"link to {fact.peer}" + (f", {fact.listener}" if fact.listener else ""))
        elif isinstance(fact, ServerState) and fact.state == "away":
            self._notifier.status(f"no link: {fact.detail}")

    def _is_up(self, ready: Callable[[AgentLink], None], link: AgentLink) -> None:
        """A machine of EMO is known to the server by its port, and what it offers as emo."""
        ready(link)
        if link.offers != self._said_offers():  # they changed while it came up
            self._tell(link)
        emo = self.settings.emo
        self._probes.link_up(lambda state: link.say_service(state._replace(name="emo") if emo else state))

    def _left_modern(self, left: Callable[[Any], None], link: AgentLink) -> None:
        """A server that hung up on LISTEN is an original one: EMO is spoken at once, and for a while."""
        reason, now = link.ended[0] if link.ended is not None else "", self._reactor.seconds()
        if link.up_since is None and self._emo.is_original(reason, now):
            link.ended = ("original", "it does not know rt1, so EMO is spoken")
            link.at_once = True
        left(link)

    def _make_emo_link(self, ready: Callable[[Any], None], left: Callable[[Any], None]) -> EmoAgentLink:
        settings = self.settings
        return EmoAgentLink(
            self._reactor,
            settings.emo_limits,
            settings.serial,
            settings.server_port,
            settings.local[0].target,
            self._dialler,
            self._dial_again,
            self.reporter,
            ready,
            left,
            self._remains,
        )

    def _dial_again(self, link: AgentLink | EmoAgentLink) -> "Deferred[End]":
        """One more connection to the server of a link, for a data socket."""
        return self._connector.again(link, self.settings.limits.connect)


def _with_wire(old: AgentSettings, new: AgentSettings, told: AgentSettings) -> AgentSettings:
    """``new``, with the services of before where those belong to another wire, which needs a restart."""
    wires = [(each.legacy, each.emo, each.server_port) for each in (old, told)]
    return new if wires[0] == wires[1] else replace(new, local=old.local)


def _fingerprints(way: ServerWay) -> tuple[str, ...]:
    """What its files hold."""
    identity = way.identity or way.web
    return identity.credentials.fingerprints if identity is not None else ()


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-agent``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    exit_status = ExitStatus(reactor)

    def enrolled(files: AgentFiles) -> Agent | None:
        if options.enroll_only:
            return None
        options.enrolled(files)
        return Agent(reactor, options, exit_status, notifier)

    if options.token is not None:
        told, token = options.settings, options.token
        asked = (told, told.servers, told.proxy, told.limits)
        stays = not options.enroll_only
        return FirstEnrolment(reactor, token, *asked, exit_status, notifier, enrolled, stays, told.token_file)
    return Agent(reactor, options, exit_status, notifier)
