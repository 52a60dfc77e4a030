"""The server's authority at work: tokens and certificates for operators, certificates for devices that ask.

Rule of this file: a request is read before anything is granted, and a token is used up before a certificate
is made from it. What was issued is in the ledger before it leaves; the authority's own list follows, and a
list that cannot be written is a problem to tell, not a reason to refuse.

The first use of a renewed certificate retires the one before it. An agent asks again with the same key until
it has its answer, so a second key for one certificate is a second holder, and told. A certificate that has
ended is renewed within ``grace`` if we made it, for the key that it has, and that is in the audit file.

Source: docs/link-protocol.rst "Enrolment"; docs/admin.rst; faults.md "Device identity".
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import CertificateForked, CertificateIssued, DeviceRevoked, Report, TokenGiven
from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.tls.enroll import SECRET_SIZE, decode_enroll, encode_certificate
from revtunnel.state.audit_records import RightsChanged
from revtunnel.trust.authority import (
    Authority,
    CertificateRequest,
    Unfit,
    fingerprint_of,
    issue_device,
    key_mark,
    read_request,
)
from revtunnel.trust.authority_files import AuthorityDirectory, row_of
from revtunnel.trust.certificate_book import DEVICE, SERVER, CertificateBook, CertificateRow
from revtunnel.trust.enrolment import (
    Enrolment,
    EnrolmentToken,
    TokenRow,
    TooManyTokens,
    directory_away,
    write_token,
)

__all__ = ["Issuer"]

LIST = "certificate list of the authority"  # what ``Retries`` know it by


class Issuer:
    """What the server does with its authority, if it has one: see ``load``. ``days``: life of a device's.

    ``ends_forks``: a device whose certificate is renewed for a second key is revoked, and ``cut_off``.
    """

    def __init__(
        self,
        book: CertificateBook,
        limits: EnrolmentLimits,
        seconds: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        report: Report,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self.days = 90
        self.ends_forks = False
        self.cut_off: Callable[[str, str], object] = lambda serial, detail: None
        # whether no other node has used a token, nor can from now on; asked where nodes share them
        self.first: Callable[[TokenRow], Deferred[bool]] | None = None
        self.unsure: Callable[[], str] = lambda: ""  # why tokens of other nodes may not be known here
        self.audited: Callable[[RightsChanged], object] = lambda change: None
        self.problem: str | None = None  # why the authority's list lacks something, or was not read
        self.retries: Retries | None = None
        self._unlisted: list[CertificateRow] = []  # what it lacks, in order
        self._unread = False  # it may have what we do not know
        self._grace = 0.0
        self._enrolment = Enrolment(limits, seconds(), book)
        book.took_token = lambda mark, row: self._enrolment.take(mark, row, seconds())
        self._directory: AuthorityDirectory | None = None
        self._authority: Authority | None = None
        self._seconds = seconds
        self._random_bytes = random_bytes
        self._report = report
        self._wall = wall

    # -- settings

    def load(self, path: str | None, days: int, limits: EnrolmentLimits, grace: float = 0.0) -> None:
        """Take the authority in the directory ``path``, if there is one, and learn what its list knows.

        Raises:
            Unfit: there is one, and it cannot be used; then all stays as it was.
        """
        directory = self._directory
        if directory is None or directory.path != path:
            directory = AuthorityDirectory(path) if path is not None else None
            self._unlisted.clear()  # of another list
        if directory is not None and directory.is_set_up:
            authority = directory.load()
            self._directory, self._authority = directory, authority
            self._unread = True
            self._settle()
        else:
            self._directory = self._authority = None
            self._settle()
        self.days, self._grace = days, grace
        self._enrolment.limits = limits

    def grace(self) -> float:
        """Seconds for which a certificate that has ended may be renewed."""
        return self._grace if self.is_set_up else 0.0

    @property
    def is_set_up(self) -> bool:
        """Whether certificates can be made here."""
        return self._authority is not None

    # -- for operators

    def about(self) -> dict[str, Any]:
        """The authority in one row.

        Raises:
            NotFound: there is none.
        """
        authority = self._needed()
        assert self._directory is not None
        return {
            "directory": self._directory.path,
            "fingerprint": fingerprint_of(authority.certificate),
            "until": written(authority.certificate.not_valid_after_utc.timestamp()),
            "tokens": len(self._enrolment),
            "certificates": self.book.count(DEVICE),
        }

    def token(self, serial: str, by: str, replace: bool) -> str:
        """A token, shown here once, with which an agent gets a certificate of ``serial``.

        Raises:
            NotFound: there is no authority.
            Conflict: the serial has a certificate and ``replace`` is False.
            Busy: too many tokens wait.
        """
        authority = self._needed()
        self._make_room(serial, replace)
        secret = self._random_bytes(SECRET_SIZE)
        try:
            self._enrolment.give(serial, secret, self._seconds())
        except TooManyTokens as error:
            raise Busy(str(error)) from None
        self._report(TokenGiven(serial, by))
        return write_token(EnrolmentToken(authority.pin, secret, serial))

    def certify(self, serial: str, request: bytes, by: str, replace: bool) -> tuple[bytes, bytes]:
        """A certificate of ``serial`` for the key of a request, and the authority's; both in DER.

        Raises:
            NotFound: there is no authority.
            Invalid: the request cannot be used, or is for another serial.
            Conflict: the serial has a certificate and ``replace`` is False.
        """
        self._needed()
        try:
            wanted = read_request(request)
        except Unfit as error:
            raise Invalid(str(error)) from None
        if wanted.serial not in (None, serial):
            raise Invalid(f"the request is for {wanted.serial}, not for {serial}")
        self._make_room(serial, replace)
        try:
            return self._issue(serial, wanted.public_key, by, "")
        except Unfit as error:
            raise Conflict(str(error)) from None

    def has(self, serial: str) -> bool:
        """Whether anything of a serial counts: a certificate that we made, or a token."""
        return bool(self.book.good(serial)) or self._enrolment.waits(serial)

    def revoke(self, serial: str) -> tuple[int, int]:
        """Let nothing of a serial count: how many certificates were good, and how many tokens waited."""
        tokens = self._enrolment.withdraw(serial)
        rows = self.book.good(serial)
        count = self.book.revoke(serial)
        for row in rows:
            self._list(row._replace(revoked=self._wall()))
        return count, tokens

    @property
    def server_names(self) -> list[str]:
        """The names in the newest certificate of a server that was made here."""
        rows = self.book.rows(SERVER)
        return rows[-1].name.split() if rows else []

    # -- for devices

    def answer(self, payload: bytes, shown: PeerCertificate | None, source: str) -> "bytes | Deferred[bytes]":
        """CERTIFICATE's payload for an ENROLL that came over TLS; later, where other nodes are asked.

        Args:
            shown: the certificate that the device showed and that was accepted.
            source: the address it comes from, for the failures of that address.

        Raises:
            Denied: for every reason the same one; its text is for our log.
        """
        now = self._seconds()
        self._enrolment.hear(source, now)
        if self._authority is None:
            raise self._enrolment.refuse(source, "there is no authority", now)
        try:
            secret, request = decode_enroll(payload)
            wanted = read_request(request)
            if secret and self.unsure() and not self._enrolment.knows(secret):
                raise directory_away(self.unsure())
            if secret and self.first is not None:
                token = self._enrolment.judge(secret, wanted.serial, source, now)
                return self.first(token).addCallback(self._answer_first, secret, wanted, source)
            serial = self._serial(secret, wanted, shown, source, now)
            if secret or shown is None:
                return self._by_token(serial, wanted)
            parent, key = shown.fingerprint, key_mark(wanted.public_key)
            if shown.late:
                self._check_late(shown, key, source, now)
            self.used(serial, parent)
            if key != shown.key:
                self._beware(serial, parent, key, source, now)
            by = "late-renewal" if shown.late else "renewal"
            made = self._issue(serial, wanted.public_key, by, parent)
            if shown.late:
                detail = f"its certificate had expired on {written(shown.expires)}; asked from {source}"
                self.audited(RightsChanged("certificate-renewed-late", serial, "renewal_grace", detail))
            return encode_certificate(*made)
        except (RemoteError, Unfit) as error:
            if isinstance(error, Unfit) or type(error) is RemoteError:
                raise self._enrolment.refuse(source, str(error), now) from None
            raise

    def _answer_first(self, first: bool, secret: bytes, wanted: CertificateRequest, source: str) -> bytes:
        """The same once it is known whether a token was used at another node."""
        now = self._seconds()
        if not first:
            raise self._enrolment.refuse(source, "the token was used at another node", now)
        serial = self._enrolment.redeem(secret, wanted.serial, source, now)
        try:
            return self._by_token(serial, wanted)
        except Unfit as error:
            raise self._enrolment.refuse(source, str(error), now) from None

    def _by_token(self, serial: str, wanted: CertificateRequest) -> bytes:
        return encode_certificate(*self._issue(serial, wanted.public_key, "token", ""))

    # -- what devices show

    def revoked(self, serial: str, fingerprint: str) -> bool:
        """Whether a device's certificate, good otherwise, does not count. Asked at every handshake."""
        refused = self.book.revoked(serial, fingerprint)
        if refused and self.book.retired(fingerprint):
            self._report(
                CertificateForked(serial, fingerprint, "", "it was renewed, and the new one is in use")
            )
        return refused

    def used(self, serial: str, fingerprint: str) -> None:
        """A device is here with a certificate that was accepted: the one before it counts no more."""
        retired = self.book.used(fingerprint)
        if retired is not None:
            self._list(retired)

    # -- inside

    def _check_late(self, shown: PeerCertificate, key: str, source: str, now: float) -> None:
        """Whether a certificate that has ended may be renewed.

        Raises:
            Denied: it is not ours, for another key, or its device has got another one since.
        """
        row, serial = self.book.row(shown.fingerprint), shown.serial
        why = ""
        if row is None:
            why = "was not made here"
        elif row.until + self._grace <= self._wall():
            why = "ended too long ago"
        elif shown.key != key:
            why = "has another key than the request"
        elif any(each.parent != shown.fingerprint for each in self.book.good(serial)):
            why = "is not the device's newest"
        if why:
            raise self._enrolment.refuse(source, f"the late certificate of {serial} {why}", now)

    def _beware(self, serial: str, parent: str, key: str, source: str, now: float) -> None:
        """Tell when a certificate is renewed for a second key.

        Raises:
            Denied: and that was the end of both.
        """
        others = [row.fingerprint for row in self.book.children(parent) if row.key != key]
        if not others:
            return
        detail = f"it is renewed for a second key; {others[0]} is the first one's"
        self._report(CertificateForked(serial, parent, source, detail))
        if self.ends_forks:
            self.revoke(serial)
            self._report(DeviceRevoked(serial, "two_renewals"))
            self.cut_off(serial, "two hold its certificate")
            raise self._enrolment.refuse(source, f"two hold the certificate of {serial}", now)

    def _serial(
        self,
        secret: bytes,
        wanted: CertificateRequest,
        shown: PeerCertificate | None,
        source: str,
        now: float,
    ) -> str:
        if secret:
            return self._enrolment.redeem(secret, wanted.serial, source, now)
        serial = shown.serial if shown is not None else None
        if shown is not None and self.book.revoked(shown.serial, shown.fingerprint):
            raise self._enrolment.refuse(source, f"the certificate of {serial} is revoked", now)
        today = self.book.issued_today(serial) if serial is not None else 0
        return self._enrolment.renew(serial, wanted.serial, today, source, now)

    def _needed(self) -> Authority:
        if self._authority is None:
            raise NotFound("no authority is set up: revtunnelctl ca init, then revtunnelctl reload")
        return self._authority

    def _make_room(self, serial: str, replace: bool) -> None:
        if not self.book.good(serial):
            return
        if not replace:
            raise Conflict(f"{serial} has a certificate already; revoke it first, or replace it")
        self.revoke(serial)

    def _issue(self, serial: str, public_key: Any, by: str, parent: str) -> tuple[bytes, bytes]:
        authority = self._needed()
        now = datetime.fromtimestamp(self._wall(), UTC)
        made = issue_device(authority, serial, public_key, self.days, now)
        row = row_of(made, DEVICE, serial, now)._replace(parent=parent, key=key_mark(public_key))
        self.book.put(row)
        self._list(row)
        self._report(CertificateIssued(serial, by, row.fingerprint, written(row.until)))
        return made.public_bytes(Encoding.DER), authority.certificate.public_bytes(Encoding.DER)

    def _list(self, row: CertificateRow) -> None:
        """Tell the authority's list; the ledger knows already."""
        if self._directory is not None:
            self._unlisted.append(row)
            self._settle()

    def _settle(self) -> None:
        """Learn what the list has, and bring to it what it lacks; what cannot be done now is done later."""
        directory = self._directory
        if directory is None:
            self._unlisted.clear()
            self._blame(None)
            return
        try:
            if self._unread:
                self.book.merge(directory.news(datetime.fromtimestamp(self._wall(), UTC)))
                self._unread = False
            while self._unlisted:
                directory.record(self._unlisted[0])
                del self._unlisted[0]
        except OSError as error:
            self._blame(f"{directory.path}: {error.strerror}")
        else:
            self._blame(None)

    def _blame(self, problem: str | None) -> None:
        self.problem = problem
        if self.retries is None:
            return
        if problem is None:
            self.retries.well(LIST)
        else:
            self.retries.failed(LIST, problem, self._settle)


def written(moment: float) -> str:
    """Seconds since 1970 as UTC, for people."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
