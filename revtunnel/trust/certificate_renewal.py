"""The agent's own certificate: the answer to ENROLL is judged and kept, and renewed long before its end.

Rule of this file: nothing is kept that the server could not use against us: a certificate for another device,
for another key or by another authority is refused. The one we have stays until a new one is on the disk; a
link that is up never notices. A try whose answer was lost is made again with the same key. A certificate that
has ended is renewed for its own key, as long as the server lets it.

Source: docs/link-protocol.rst "Enrolment"; ours.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import CertificateFailed, CertificateIssued, Report
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.server_rounds import ServerRounds, ask_next
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.certificates import device_serial
from revtunnel.sockets.tls.enroll import encode_enroll
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import (
    Unfit,
    fingerprint_of,
    load_certificate,
    make_request,
    pin_of,
)
from revtunnel.trust.enrolling import ask

__all__ = ["CertificateRenewal", "get_certificate", "until_of"]

LOOK = 86400.0  # seconds at most between looks at the clock, which may be set meanwhile
RETRY_FIRST = 60.0  # seconds after the first failure; doubles each time
RETRY_MOST = 6 * 3600.0  # seconds
RETRY_LATE = 900.0  # seconds at most while it has ended
SPREAD = 0.1  # part of the time for renewal over which devices that were enrolled together spread

Open = Callable[[ServerPlace, float], "Deferred[End]"]


async def get_certificate(
    reactor: Any,
    opening: "Callable[[], Deferred[End]]",
    secret: bytes,
    files: AgentFiles,
    serial: str,
    timeout: float,
    key: Any,
) -> x509.Certificate:
    """Ask for a certificate of a key, judge it, keep both. The authority is in ``files`` already.

    Raises:
        OSError, RemoteError: there is none, or not a good one; what was kept before is still there.
        Unfit: the files cannot be read.
    """
    payload = encode_enroll(secret, make_request(serial, key))
    answer, _ = await ask(reactor, opening, payload, timeout)
    try:
        made = load_certificate(answer)
    except Unfit as error:
        raise RemoteError(f"the server sent {error}") from None
    _judge(made, serial, key, files.trusted())
    files.keep(key, made)
    return made


def _judge(made: x509.Certificate, serial: str, key: Any, authority: x509.Certificate) -> None:
    if device_serial(made) != serial:
        raise RemoteError(f"the server sent a certificate of {device_serial(made)}, {serial} wanted")
    if made.public_key() != key.public_key():
        raise RemoteError("the server sent a certificate for another key")
    try:
        made.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        pin = pin_of(authority).hex()[:16]
        raise RemoteError(f"the server sent a certificate by another authority than {pin}") from None


def until_of(certificate: x509.Certificate) -> str:
    """Its end in UTC, for people."""
    return certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


class CertificateRenewal(Service):
    """Renews while it runs. ``renewed`` is called when a new certificate is kept.

    Args:
        servers: with link ports, asked in turn, one with each try.
        opening: a connection to a server, over TLS with the present certificate, within so many seconds.
        share: of a certificate's life that is left when it is renewed; may be set anew.
        timeout: seconds for a connection and, again, for the answer.
        random: floats in [0, 1).
        cure: what a person can do when the server does not renew it any more.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        reactor: Any,
        files: AgentFiles,
        serial: str,
        servers: Callable[[], Sequence[ServerPlace]],
        opening: Open,
        share: float,
        timeout: float,
        report: Report,
        renewed: Callable[[], None],
        random: Callable[[], float],
        cure: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.share = share
        self.tried: Callable[[], None] = lambda: None  # called after every try
        self._cure = cure
        self._told_late = False
        self._reactor = reactor
        self._files = files
        self._serial = serial
        self._servers = servers
        self._open = opening
        self._timeout = timeout
        self._report = report
        self._renewed = renewed
        self._random = random
        self._wall = wall
        self._early = random() * SPREAD
        self._failures = 0
        self._rounds = ServerRounds(reactor, (), random)
        self._waiting: IDelayedCall | None = None
        self._asking: Deferred[Any] | None = None

    def startService(self) -> None:
        """Look at the certificate now and then."""
        super().startService()
        self._look()

    def stopService(self) -> None:
        """Leave a renewal that is under way; the certificate that we have goes on."""
        super().stopService()
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if self._asking is not None:
            self._asking.cancel()

    @property
    def is_late(self) -> bool:
        """Whether the certificate has ended, by our clock or by the server's."""
        try:
            return self._told_late or self._files.load().not_valid_after_utc.timestamp() <= self._wall()
        except (OSError, Unfit):
            return False

    def told_late(self) -> None:
        """The server says that it has ended, whatever our clock says: renew it now."""
        if self._told_late or self._asking is not None or not self.running:
            return
        self._told_late = True
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        self._renew()

    # -- inside

    def _look(self) -> None:
        self._waiting = None
        try:
            certificate = self._files.load()
        except (OSError, Unfit) as error:
            self._failed(Failure(error), self._files.certificate)
            return
        left = self._due(certificate) - self._wall()
        if left > 0 and not self._told_late:
            self._waiting = self._reactor.callLater(min(left, LOOK), self._look)
        else:
            self._renew()

    def _due(self, certificate: x509.Certificate) -> float:
        """When it is to be renewed, in seconds since 1970."""
        begin = certificate.not_valid_before_utc.timestamp()
        end = certificate.not_valid_after_utc.timestamp()
        return end - (end - begin) * self.share * (1 + self._early)

    def _renew(self) -> None:
        servers = self._servers()
        if not servers:  # none has a link port any more
            self._waiting = self._reactor.callLater(LOOK, self._look)
            self.tried()
            return
        self._rounds.take(servers)
        self._asking = ask_next(self._rounds, lambda server: Deferred.fromCoroutine(self._ask(server)))
        self._asking.addCallbacks(self._kept, lambda failure: self._failed(failure, str(self._rounds.asked)))

    async def _ask(self, server: ServerPlace) -> x509.Certificate:
        key = self._files.kept_key() if self.is_late else self._files.next_key()
        opening = partial(self._open, server, self._timeout)
        return await get_certificate(
            self._reactor, opening, b"", self._files, self._serial, 2 * self._timeout, key
        )

    def _kept(self, made: x509.Certificate) -> None:
        self._asking = None
        self._failures, self._told_late = 0, False
        self._report(CertificateIssued(self._serial, "renewal", fingerprint_of(made), until_of(made)))
        self._renewed()
        self._look()
        self.tried()

    def _failed(self, failure: Failure, where: str) -> None:
        self._asking = None
        if not self.running or failure.check(CancelledError):
            return
        self._report(CertificateFailed(self._serial, where, f"{in_words(failure)}{self._last_day()}"))
        most = RETRY_LATE if self.is_late else RETRY_MOST
        delay = min(most, RETRY_FIRST * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._waiting = self._reactor.callLater(delay * (0.5 + self._random() / 2), self._look)
        self.tried()

    def _last_day(self) -> str:
        try:
            end = self._files.load().not_valid_after_utc
        except (OSError, Unfit):
            return ""
        gone = end <= datetime.fromtimestamp(self._wall(), UTC)
        cure = self._cure if gone or self._told_late else ""
        return f"; ours {'ended' if gone else 'ends'} on {end.strftime('%Y-%m-%d')}{cure}"
