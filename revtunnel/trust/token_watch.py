"""A token that comes to an agent by a file: the way back when the certificate is lost, or ended long ago.

Rule of this file: a file is tried as long as nobody could answer, and once where the server said no; it is
taken away when its token was used. What is wrong with it is said once, until it changes.

Source: docs/admin.rst "Enrolment"; ours.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import random
from typing import Any

from cryptography import x509
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.facts import CertificateFailed, CertificateIssued, Report
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.handshake import Dismissed
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.server_rounds import ServerRounds, ask_next
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.sockets.ways.proxy_choice import ProxyChoice
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import fingerprint_of
from revtunnel.trust.certificate_renewal import get_certificate, until_of
from revtunnel.trust.enrolling import find_authority
from revtunnel.trust.enrolment import EnrolmentToken, parse_token
from revtunnel.trust.tls_settings import AgentTls

__all__ = ["LOOK", "REFUSED", "TokenWatch", "enrol", "is_refusal"]

LOOK = 10.0  # seconds between looks
MAX_FILE = 1000  # bytes
REFUSED = "the token is refused: it is wrong, used or too old, or this address failed too often"


async def enrol(
    reactor: Any,
    token: EnrolmentToken,
    tls: AgentTls,
    proxy: ProxyChoice,
    server: ServerPlace,
    timeout: float,
) -> x509.Certificate:
    """Get a certificate for a token and keep it, and whom to trust, in the state directory.

    Raises:
        OSError, RemoteError: there is none; what was kept before is still there.
    """
    files = AgentFiles(str(tls.state_directory), token.serial)
    files.trust(await find_authority(reactor, proxy, server.host, server.port, timeout, token.pin))
    rules = TlsRules(CertificateFiles(TlsSide.DEVICE, authority=files.authority), tls.tls_least)
    way = ServerWay(Identity(rules), server_name=tls.server_name, proxy=proxy)
    opening = partial(ServerConnector(reactor, way).open, server, timeout)
    asked = token.secret, files, token.serial, 2 * timeout, files.next_key()
    return await get_certificate(reactor, opening, *asked)


def is_refusal(failure: Failure) -> bool:
    """Whether the server knows the token for no good; else it is worth another try."""
    error = failure.value
    return isinstance(error, Dismissed) and error.reason is GoAway.DENIED


class TokenWatch(Service):
    """Looks for the file while it runs. ``got`` is called when a certificate is kept.

    Args:
        servers: with link ports, asked in turn, one with each try.
        ask: enrols with a token at a server.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        serial: str,
        servers: Callable[[], Sequence[ServerPlace]],
        ask: Callable[[EnrolmentToken, ServerPlace], "Deferred[x509.Certificate]"],
        report: Report,
        got: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._serial = serial
        self._servers = servers
        self._ask = ask
        self._report = report
        self._got = got
        self._text = ""  # what was in the file at the last look
        self._spoilt = ""  # the same, where it is not worth another try
        self._complaint = ""
        self._rounds = ServerRounds(reactor, (), random)
        self._waiting: IDelayedCall | None = None
        self._asking: Deferred[Any] | None = None

    def startService(self) -> None:
        super().startService()
        self._look()

    def stopService(self) -> None:
        super().stopService()
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if self._asking is not None:
            self._asking.cancel()

    # -- inside

    def _look(self) -> None:
        self._waiting = None
        token, servers = self._token(), self._servers()
        if token is None or not servers:
            self._later()
            return
        self._rounds.take(servers)
        self._asking = ask_next(self._rounds, lambda server: self._ask(token, server))
        self._asking.addCallbacks(self._enrolled, self._failed)

    def _later(self) -> None:
        self._waiting = self._reactor.callLater(LOOK, self._look)

    def _token(self) -> EnrolmentToken | None:
        """What is in the file, if it is worth a try."""
        try:
            with open(self._path, "rb", opener=_at_once) as file:
                text = file.read(MAX_FILE).decode("ascii", "replace").strip()
            if not text or text == self._spoilt:
                return None
            token = parse_token(text)
            if token.serial != self._serial:
                raise ValueError(f"the token is for {token.serial}, and this is {self._serial}")
        except FileNotFoundError:
            self._spoilt = self._complaint = ""
            return None
        except (OSError, ValueError) as error:
            self._complain(self._path, (isinstance(error, OSError) and error.strerror) or str(error))
            return None
        self._text = text
        return token

    def _complain(self, where: str, detail: str) -> None:
        if detail != self._complaint:
            self._complaint = detail
            self._report(CertificateFailed(self._serial, where, detail))

    def _enrolled(self, made: x509.Certificate) -> None:
        self._asking = None
        self._spoilt, self._complaint = self._text, ""
        with suppress(OSError):  # a used token in a file that we may not remove is passed over
            os.unlink(self._path)
        self._report(CertificateIssued(self._serial, "token", fingerprint_of(made), until_of(made)))
        self._later()
        self._got()

    def _failed(self, failure: Failure) -> None:
        self._asking, where = None, str(self._rounds.asked)
        if not self.running or failure.check(CancelledError):
            return
        if is_refusal(failure):
            self._spoilt = self._text
        self._complain(where, REFUSED if is_refusal(failure) else in_words(failure))
        self._later()


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
