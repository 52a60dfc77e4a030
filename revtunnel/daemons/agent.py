"""The agent daemon: one uplink, one dialler, and the manners of a process.

Source: house.md (services); twisted.md 1.6, 2.2 and 3.
"""

import os
import random
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred

from revtunnel import __version__
from revtunnel.carriers.agent_data import AgentData
from revtunnel.daemons.options import AgentOptions as Options
from revtunnel.daemons.proxy_settings import headers_of
from revtunnel.daemons.service_probes import ServiceProbes
from revtunnel.daemons.settings import AgentSettings, SettingsError, changes
from revtunnel.daemons.site_consent import SiteConsent
from revtunnel.ground.declared import updated
from revtunnel.ground.facts import ServerState, SettingsReloaded
from revtunnel.ground.retries import SETTINGS, Retries
from revtunnel.ground.targets import Target
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.handshake import FILLER, AgentHandshake, AgentHello
from revtunnel.link.keys import parse_key
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.uplink import Uplink
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService
from revtunnel.sockets.ends import End
from revtunnel.sockets.network_changes import NetworkChanges
from revtunnel.sockets.tls.certificates import FaultyFiles
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.state.state_directory import openness
from revtunnel.streams.commands import Feature
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.window import CreditPool
from revtunnel.systems.emo.emo_agent import EmoAgentLink, EmoRemains
from revtunnel.systems.emo.emo_choice import EmoChoice
from revtunnel.systems.emo.emo_modern import modern_offer
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.certificate_renewal import CertificateRenewal
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
        self.reporter = Reporter()
        self.retries = Retries(reactor, self.reporter)
        self._reactor = reactor
        self._options = options
        self._notifier = notifier
        self._key = read_key(self.settings.key_file)
        self._pool = CreditPool(POOL)
        headers = headers_of(self.settings.local, self.settings.proxy_protocol)
        self._dialler = Dialler(self._reactor, self.settings.limits, self.settings.local, headers)
        self._data = AgentData(
            self._reactor,
            self.settings.limits,
            self._dialler,
            self._dial_again,
            self.reporter,
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
        self._data.take(self.settings.limits, self.settings.relay)
        self._consent = SiteConsent(reactor, self.settings, self._targets(), self.reporter)
        self._consent.cut = self._data.end_session
        self._dialler.consents = self._consent.may_dial
        self._probes = ServiceProbes(reactor, self._dialler.dial, self.settings.serial, self.reporter)
        self._emo = EmoChoice(self.settings.modern)
        self._remains = EmoRemains()
        self._connector = ServerConnector(self._reactor, way_to(self.settings))
        self.uplink = self._make_uplink(self.settings)
        self._network = NetworkChanges(reactor, self.uplink.hurry)
        self._keeper = self._make_keeper(self.settings)
        if self._keeper is not None:
            self._keeper.setServiceParent(self)
        SignalService(reactor, self, exit_status, notifier, deadline=DRAIN).setServiceParent(self)
        NotifyService(reactor, notifier).setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        settings = self.settings
        targets = ", ".join(f"{offer.name}={offer.target}" for offer in settings.local)
        self.reporter(ServerState("started", f"{settings.serial} offers {targets}"))
        self._warn()
        self._network.start()
        self._reactor.callWhenRunning(self.uplink.start)
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
        """Take new servers, limits, log level; offers that are gone are not dialled, more need a restart.

        Whoever asks for it wants a link: no back-off is waited for.
        """
        self._reload()

    def _reload(self, again: bool = False) -> None:
        try:
            new = self._options.load()
            way = way_to(new)
        except SettingsError as error:
            self.retries.settings_failed(error, partial(self._reload, again=True))
            if not (again and error.passes):
                self.reporter(SettingsReloaded((), (), tuple(error.errors)))
            return
        self.retries.well(SETTINGS)
        live, restart = changes(self.settings, new)
        if _fingerprints(way) != _fingerprints(self._connector.way):
            live.append("[agent] certificate files")
        self._connector.way = way
        self._warn()
        observer = getattr(self._options, "observer", None)
        if observer is not None:
            observer.set_level(new.log_level)
        self._dialler.set_limits(new.limits)
        self._dialler.keep(new.local)
        self._data.take(new.limits, new.relay)
        self._consent.take(new)
        self._probes.take(new, new.local)
        self.uplink.change(new.servers, new.limits)
        self.uplink.hurry()
        if self._keeper is not None:
            self._keeper.share = new.renew_before
        self._emo.mode = new.modern
        self.settings = updated(self.settings, new)
        self.reporter(SettingsReloaded(tuple(live), tuple(restart), ()))

    # -- inside

    def _warn(self) -> None:
        """Say what the operator should know of the certificate and of where its key is."""
        with suppress(FileNotFoundError):
            directory = self.settings.state_directory
            if self._keeper is not None and directory is not None and (found := openness(directory)):
                self.reporter(ServerState("state", found))
        identity = self._connector.way.identity or self._connector.way.web
        for warning in identity.credentials.warnings if identity is not None else ():
            self.reporter(ServerState("certificate", warning))

    def _make_keeper(self, settings: AgentSettings) -> CertificateRenewal | None:
        """Who renews the certificate; None: it is not one of enrolment."""
        if settings.state_directory is None or settings.certificate is None:
            return None
        files = AgentFiles(settings.state_directory, settings.serial)
        if files.certificate != settings.certificate:
            return None
        return CertificateRenewal(
            self._reactor,
            files,
            settings.serial,
            lambda: [each for each in self.settings.servers if not each.web],
            self._connector.open,
            settings.renew_before,
            settings.limits.connect,
            self.reporter,
            self._renewed,
            random.random,
        )

    def _renewed(self) -> None:
        """Use the new certificate from the next connection on."""
        try:
            self._connector.way = way_to(self.settings)
        except SettingsError as error:
            self.retries.failed("certificate files", str(error), self._renewed)
        else:
            self.retries.well("certificate files")

    def _make_uplink(self, settings: AgentSettings) -> Uplink:
        return Uplink(
            self._reactor,
            settings.servers,
            settings.limits,
            random.random,
            self._make_link,
            self.reporter,
            self._connector.connect,
        )

    def _targets(self) -> dict[str, Target]:
        """What sessions may call services."""
        settings = self.settings
        offers = [*settings.local]
        if settings.emo:
            offers.append(modern_offer(settings.server_port, settings.local[0].target))
        return {offer.name: offer.target for offer in offers}

    def _features(self, settings: AgentSettings) -> Feature:
        """What its HELLO says that it has."""
        origins = Feature.ORIGIN if self._dialler.asks_for_origins else Feature(0)
        sockets = Feature.DATA_SOCKETS if settings.data_sockets else Feature(0)
        return Feature.SESSIONS | Feature.SERVICES | origins | sockets

    def _make_link(self, ready: Callable[[Any], None], left: Callable[[Any], None]) -> Any:
        settings = self.settings
        offers, limits, filler = settings.local, settings.link, b""
        if settings.emo:
            if not self._emo.offers_rt1(self._reactor.seconds(), settings.emo_limits):
                return self._make_emo_link(ready, left)
            offers = (modern_offer(settings.server_port, settings.local[0].target),)
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
        )
        handshake = AgentHandshake(hello, self._key, settings.legacy, filler)
        return AgentLink(
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

    def _is_up(self, ready: Callable[[AgentLink], None], link: AgentLink) -> None:
        """A machine of EMO is known to the server by its port, and what it offers as emo."""
        ready(link)
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
        return FirstEnrolment(reactor, token, *asked, exit_status, notifier, enrolled)
    return Agent(reactor, options, exit_status, notifier)
