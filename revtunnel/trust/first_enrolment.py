"""An agent that has a token and no certificate: it gets one, and then it is an agent like any other.

Rule of this file: where a person waits for the certificate alone, a server that says no ends the process. An
agent stays: with a certificate that has ended it goes on, for that may be renewed; with none it waits for
another token, and tries its own now and then, for the no may have been meant for its address. Until the
certificate is there nothing of the agent runs.

Source: docs/link-protocol.rst "Enrolment"; ours.
"""

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import CertificateFailed, CertificateIssued, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.backoff import Backoff
from revtunnel.link.server_rounds import ServerRounds, ask_next
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ways.proxy_choice import ProxyChoice
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import fingerprint_of
from revtunnel.trust.certificate_renewal import until_of
from revtunnel.trust.enrolment import EnrolmentToken
from revtunnel.trust.tls_settings import AgentTls
from revtunnel.trust.token_watch import REFUSED, TokenWatch, enrol, is_refusal

__all__ = ["FirstEnrolment"]

FAILED, CONFIG = 1, 78  # exit status
DRAIN = 1.0  # seconds
AGAIN = 900.0  # seconds until a token that was refused is tried again


class FirstEnrolment(MultiService):
    """Enrols, and then starts what ``then`` makes; None: that was all.

    Args:
        tls: with a state directory.
        servers: with link ports, asked in turn.
        stays: it is an agent that waits; else a refusal is the end.
        token_file: where another token may come; None: nowhere.
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
        stays: bool = False,
        token_file: str | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._tls = tls
        self._servers = servers
        self._rounds = ServerRounds(reactor, servers, random.random)
        self._proxy = proxy
        self._timeout = limits.connect
        self._exit = exit_status
        self._then = then
        self._stays = stays
        self._token_file = token_file
        self._watch: TokenWatch | None = None
        self._token = token
        self._report = Reporter()
        self._files = AgentFiles(str(tls.state_directory), token.serial)
        self._backoff = Backoff(limits, random.random)
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
        self._asking = ask_next(self._rounds, lambda server: self._ask(self._token, server))
        self._asking.addCallbacks(self._enrolled, self._failed)
        self._asking.addErrback(self._wrong)

    def _ask(self, token: EnrolmentToken, server: ServerPlace) -> "Deferred[x509.Certificate]":
        asked = self._reactor, token, self._tls, self._proxy, server, self._timeout
        return Deferred.fromCoroutine(enrol(*asked))

    def _enrolled(self, made: x509.Certificate) -> None:
        self._asking = None
        by = self._token.serial, "token", fingerprint_of(made), until_of(made)
        self._report(CertificateIssued(*by))
        self._go_on()

    def _go_on(self) -> None:
        """The certificate is there: be what this was for."""
        self.abort()
        if self._watch is not None:
            self._watch.disownServiceParent()
        service = self._then(self._files)
        if service is None:
            self._exit.end()
            return
        for before in (self._signals, self._notify):
            before.disownServiceParent()
        service.setServiceParent(self)

    def _failed(self, failure: Failure) -> None:
        self._asking, where = None, str(self._rounds.asked)
        if failure.check(CancelledError):
            return
        if is_refusal(failure):
            self._refused(where)
            return
        self._report(CertificateFailed(self._token.serial, where, in_words(failure)))
        delay = self._backoff.after_failure() if self._rounds.over else 0.1
        self._waiting = self._reactor.callLater(delay, self._try)

    def _refused(self, where: str) -> None:
        self._report(CertificateFailed(self._token.serial, where, REFUSED))
        if not self._stays:
            self._say(f"{where}: {REFUSED}")
            self._exit.end(FAILED)
        elif self._files.is_there:
            self._go_on()
        else:
            self._waiting = self._reactor.callLater(AGAIN, self._try)
            self._wait_for_another()

    def _wait_for_another(self) -> None:
        if self._watch is None and self._token_file is not None:
            self._report(ServerState("enrolling", f"another token is waited for in {self._token_file}"))
            self._watch = TokenWatch(
                self._reactor,
                self._token_file,
                self._token.serial,
                lambda: self._servers,
                self._ask,
                self._report,
                lambda: maybeDeferred(self._go_on).addErrback(self._wrong),
            )
            self._watch.setServiceParent(self)

    def _wrong(self, failure: Failure) -> None:
        """The agent itself does not start."""
        error = failure.trap(SettingsError, OSError) and failure.value
        for line in error.errors if isinstance(error, SettingsError) else [str(error)]:
            self._say(line)
        self._exit.end(CONFIG if isinstance(error, SettingsError) else FAILED)

    @staticmethod
    def _say(line: str) -> None:
        print(f"revtunnel-agent: {line}", file=sys.stderr)
