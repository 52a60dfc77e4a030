"""What workers ask their parent: who may come, whose key, which certificate, what a failure costs.

Rule of this file: an answer is at hand; nothing here waits, but for an engine that nodes share.

Source: worker_board.py asks; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.worker_links import ToWorker, WorkerLink
from revtunnel.daemons.worker_messages import Answered, LinkCame, denied
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import LinkDenied
from revtunnel.link.keys import Verifier
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.trust.issuer import Issuer

__all__ = ["ASKED", "Answers"]

ASKED = frozenset(("admit", "issue", "key", "refused_after", "revoked"))


class Answers:
    """The parent's, by the name of what is asked."""

    def __init__(
        self, reactor: Any, board: Switchboard, issuer: Issuer, key_of: Callable[[str], Verifier | None]
    ) -> None:
        self._reactor = reactor
        self._board = board
        self._issuer = issuer
        self.key = key_of

    def revoked(self, serial: str, fingerprint: str) -> bool:
        """Whether a certificate does not count."""
        return self._issuer.revoked(serial, fingerprint)

    def refused_after(self, peer: str, reason: str) -> float:
        """Seconds for which an address is refused once it has failed so."""
        return self._board.access.refused_after(peer, reason, self._reactor.seconds())

    def issue(
        self, payload: bytes, shown: PeerCertificate | None, source: str
    ) -> "Deferred[tuple[Answered | None, bytes]]":
        """A certificate, or why there is none."""

        def proved(made: bytes) -> tuple[Answered | None, bytes]:
            self._board.access.proved(f"{source}:0", self._reactor.seconds())
            return None, made

        def refused(failure: Failure) -> tuple[Answered | None, bytes]:
            if not isinstance(failure.value, LinkDenied):
                failure.raiseException()
            return denied(failure.value), b""

        made = maybeDeferred(self._board.admission.issue, payload, shown, source)
        return made.addCallbacks(proved, refused)

    def admit(self, worker: ToWorker, came: LinkCame) -> WorkerLink | Verifier | Answered:
        """The link of a device that may come in; the key that it has to prove before; or why it may not."""
        if came.up.hello is not None and not came.up.authenticated:
            key = self.key(came.up.serial)
            if key is not None:
                return key
        try:
            listener = self._board.listeners.get(came.listener)
            if listener is None:
                raise LinkDenied(GoAway.STOPPING, "its listener is gone", came.up.serial)
            link: Any = WorkerLink(worker, came, listener)
            self._board.admit(link, came.up)
        except LinkDenied as error:
            return denied(error)
        made: WorkerLink = link
        return made
