"""An agent that has a token and no certificate: it gets one, and then it is an agent like any other.

Rule of this file: a server that says no ends the process, because a token does not get better; everything
else is tried again. Until the certificate is on the disk nothing of the agent runs.

Source: docs/link-protocol.rst "Enrolment"; ours.
"""

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import CertificateFailed, CertificateIssued, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.backoff import Backoff
from revtunnel.link.handshake import Dismissed
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.sockets.ways.proxy_choice import ProxyChoice
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import fingerprint_of
from revtunnel.trust.certificate_renewal import get_certificate, words_of
from revtunnel.trust.enrolling import find_authority
from revtunnel.trust.enrolment import EnrolmentToken
from revtunnel.trust.tls_settings import AgentTls

__all__ = ["FirstEnrolment"]

REFUSED, CONFIG = 1, 78  # exit status
DRAIN = 1.0  # seconds


class FirstEnrolment(MultiService):
    """Enrols, and then starts what ``then`` makes; None: that was all.

    Args:
        tls: with a state directory.
        servers: with link ports, asked in turn.
    """

    def __init__(
        self,
        reactor: Any,
        token: EnrolmentToken,
        tls: AgentTls,
        servers: Sequence[ServerPlace],
        proxy: ProxyChoice,
        limits: AgentLimits,
        exit_status: ExitStatus,
        notifier: Notifier,
        then: Callable[[AgentFiles], IService | None],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._tls = tls
        self._servers = servers
        self._proxy = proxy
        self._timeout = limits.connect
        self._exit = exit_status
        self._then = then
        self._token = token
        self._report = Reporter()
        self._files = AgentFiles(str(tls.state_directory), token.serial)
        self._backoff = Backoff(limits, random.random)
        self._turn = 0
        self._waiting: IDelayedCall | None = None
        self._asking: Deferred[Any] | None = None
        self._signals = SignalService(reactor, self, exit_status, notifier, deadline=DRAIN)
        self._notify = NotifyService(reactor, notifier)
        for service in (self._signals, self._notify):
            service.setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        self._report(ServerState("enrolling", self._token.serial))
        self._reactor.callWhenRunning(self._try)

    def stopService(self) -> Any:
        self.abort()
        return super().stopService()

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Nothing runs that could be waited for."""
        self.abort()
        return succeed(None)

    def abort(self) -> None:
        """Try no more."""
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def reload(self) -> None:
        """The settings are read when the certificate is there."""

    # -- inside

    def _try(self) -> None:
        self._waiting = None
        server = self._servers[self._turn % len(self._servers)]
        self._turn += 1
        self._asking = Deferred.fromCoroutine(self._enrol(server))
        self._asking.addCallbacks(self._enrolled, self._failed, errbackArgs=(str(server),))
        self._asking.addErrback(self._wrong)

    async def _enrol(self, server: ServerPlace) -> x509.Certificate:
        tls, timeout = self._tls, self._timeout
        look = find_authority(self._reactor, self._proxy, server.host, server.port, timeout, self._token.pin)
        self._files.trust(await look)
        rules = TlsRules(CertificateFiles(TlsSide.DEVICE, authority=self._files.authority), tls.tls_least)
        way = ServerWay(Identity(rules), server_name=tls.server_name, proxy=self._proxy)
        connector = ServerConnector(self._reactor, way)
        return await get_certificate(
            self._reactor,
            lambda: connector.open(server, timeout),
            self._token.secret,
            self._files,
            self._token.serial,
            2 * timeout,
        )

    def _enrolled(self, made: x509.Certificate) -> None:
        self._asking = None
        until = made.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        self._report(CertificateIssued(self._token.serial, "token", fingerprint_of(made), until))
        service = self._then(self._files)
        if service is None:
            self._exit.end()
            return
        for before in (self._signals, self._notify):
            before.disownServiceParent()
        service.setServiceParent(self)

    def _failed(self, failure: Failure, where: str) -> None:
        self._asking = None
        if failure.check(CancelledError):
            return
        self._report(CertificateFailed(self._token.serial, where, words_of(failure)))
        error = failure.value
        if isinstance(error, Dismissed) and error.reason is GoAway.DENIED:
            self._say(
                f"{where} refuses the token: it is wrong, used or too old, or this address failed too often"
            )
            self._exit.end(REFUSED)
            return
        again = bool(self._turn % len(self._servers))
        delay = 0.1 if again else self._backoff.after_failure()
        self._waiting = self._reactor.callLater(delay, self._try)

    def _wrong(self, failure: Failure) -> None:
        """The agent itself does not start."""
        error = failure.trap(SettingsError, OSError) and failure.value
        for line in error.errors if isinstance(error, SettingsError) else [str(error)]:
            self._say(line)
        self._exit.end(CONFIG if isinstance(error, SettingsError) else REFUSED)

    @staticmethod
    def _say(line: str) -> None:
        print(f"revtunnel-agent: {line}", file=sys.stderr)
