"""The issuer: tokens, requests, renewals and revocations over a real ledger and a real authority."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from revtunnel.ground.facts import (
    CertificateForked,
    CertificateIssued,
    DeviceRevoked,
    Fact,
    TokenGiven,
    Trouble,
    TroubleOver,
)
from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.ground.retries import Retries
from revtunnel.link.handshake import LinkDenied
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound
from revtunnel.sockets.tls.certificates import PeerCertificate, device_serial
from revtunnel.sockets.tls.enroll import decode_certificate, encode_enroll
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from revtunnel.trust.authority import Unfit, fingerprint_of, issue_device, key_mark, make_request, new_key
from revtunnel.trust.authority_files import AuthorityDirectory
from revtunnel.trust.certificate_book import AUTHORITY, DEVICE, CertificateBook
from revtunnel.trust.enrolment import directory_away, parse_token
from revtunnel.trust.issuer import Issuer
from tests.support.disks import full_disk

NOON = 1_800_000_000.0
HOST = "192.0.2.7"
DAY = 86400.0
GRACE = 30 * DAY
KEY = new_key()


def shown_of(certificate: x509.Certificate, late: bool = False) -> PeerCertificate:
    """A certificate as TLS has judged it."""
    until = certificate.not_valid_after_utc.timestamp()
    key = key_mark(certificate.public_key())
    return PeerCertificate(device_serial(certificate), fingerprint_of(certificate), until, late, key)


class Desk:
    """An issuer with a clock of its own; ``restart`` is a new process on the same files."""

    def __init__(self, path: Path, set_up: bool = True, **limits: Any) -> None:
        self.path, self.limits = path, EnrolmentLimits(**limits)
        self.seconds = 0.0
        self.facts: list[Fact] = []
        self.audited: list[RightsChanged] = []
        self.directory = AuthorityDirectory(str(path / "authority"))
        if set_up:
            self.directory.create("gate", 7300, self.now)
        self.start()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(NOON + self.seconds, UTC)

    def start(self) -> None:
        self.ledger = SqliteLedger(str(self.path / FILE_NAME), lambda: NOON + self.seconds)
        self.book = CertificateBook(self.ledger)
        self.issuer = Issuer(
            self.book,
            self.limits,
            lambda: self.seconds,
            lambda size: bytes(range(size)),
            self.facts.append,
            lambda: NOON + self.seconds,
        )
        self.issuer.load(self.directory.path, 90, self.limits, GRACE)
        self.issuer.audited = self.audited.append

    def restart(self) -> None:
        self.ledger.close()
        self.start()

    def token(self, serial: str = "plc-7") -> bytes:
        return parse_token(self.issuer.token(serial, "anna", False)).secret

    def ask(self, secret: bytes, request: bytes | None = None, shown: Any = None, source: str = HOST) -> Any:
        """The certificate that a device gets."""
        payload = encode_enroll(secret, request or make_request("plc-7", KEY))
        answer, authority = decode_certificate(self.issuer.answer(payload, shown, source))
        assert x509.load_der_x509_certificate(authority) == self.directory.load().certificate
        return x509.load_der_x509_certificate(answer)

    def refused(self, payload: bytes, shown: Any = None, source: str = HOST) -> str:
        with pytest.raises(LinkDenied) as caught:
            self.issuer.answer(payload, shown, source)
        assert caught.value.told == ""
        return str(caught.value)


@pytest.fixture
def pending(tmp_path: Path) -> Any:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


# ---- tokens


def test_a_token_becomes_a_certificate(pending: Desk) -> None:
    """For the serial of the token, the key of the request, and the days of the settings; written down."""
    written = pending.issuer.token("plc-7", "anna", False)
    token = parse_token(written)
    assert (token.serial, token.pin) == ("plc-7", pending.directory.load().pin)
    made = pending.ask(token.secret)
    assert device_serial(made) == "plc-7"
    assert made.public_key() == KEY.public_key()
    assert made.not_valid_after_utc == pending.now + timedelta(days=90)
    assert [fact.row() for fact in pending.facts] == [
        TokenGiven("plc-7", "anna").row(),
        CertificateIssued("plc-7", "token", fingerprint_of(made), "2027-04-15T08:00:00Z").row(),
    ]
    (row,) = pending.book.rows(DEVICE)
    assert (row.name, row.fingerprint, row.number) == (
        "plc-7",
        fingerprint_of(made),
        f"{made.serial_number:x}",
    )
    assert pending.directory.rows()[1:] == [row]
    assert not pending.book.revoked("plc-7", row.fingerprint)


def test_a_token_after_a_restart(pending: Desk) -> None:
    """And once: a second restart does not bring it back."""
    secret = pending.token()
    pending.restart()
    pending.seconds = 3599.0
    assert pending.ask(secret)
    pending.restart()
    assert "wrong, used or too late" in pending.refused(encode_enroll(secret, make_request("plc-7", KEY)))


def test_what_a_device_is_refused_for(pending: Desk) -> None:
    """Everything is the same Denied, and nothing is told; a wrong request does not use the token up."""
    secret, good = pending.token(), make_request("plc-7", KEY)
    assert "wrong, used" in pending.refused(encode_enroll(bytes(16), good))
    assert "request for plc-8" in pending.refused(encode_enroll(secret, make_request("plc-8", KEY)))
    assert "no certificate request" in pending.refused(encode_enroll(secret, b"0"))
    assert "version 1 wanted" in pending.refused(b"\x02")
    assert "neither a token nor" in pending.refused(encode_enroll(b"", good))
    assert pending.ask(secret)


def test_ten_wrong_tries(pending: Desk) -> None:
    """Then not even a good token helps from there; from elsewhere it does."""
    secret = pending.token()
    for _ in range(10):
        pending.refused(encode_enroll(bytes(16), make_request("plc-7", KEY)))
    assert "10 failures" in pending.refused(encode_enroll(secret, make_request("plc-7", KEY)))
    assert pending.ask(secret, source="192.0.2.8")


def test_too_many_tokens(tmp_path: Path) -> None:
    """The operator is told to come back."""
    pending = Desk(tmp_path, tokens=1)
    pending.token("plc-7")
    with pytest.raises(Busy, match="1 tokens wait"):
        pending.issuer.token("plc-8", "anna", False)
    pending.ledger.close()


# ---- certificates for operators


def test_a_request_that_an_operator_brings(pending: Desk) -> None:
    """His name is in the fact; a request of another serial is not turned into his."""
    made, _ = pending.issuer.certify("plc-7", make_request("plc-7", KEY), "anna", False)
    assert device_serial(x509.load_der_x509_certificate(made)) == "plc-7"
    assert [fact.by for fact in pending.facts if isinstance(fact, CertificateIssued)] == ["anna"]
    with pytest.raises(Invalid, match="for plc-7, not for plc-8"):
        pending.issuer.certify("plc-8", make_request("plc-7", KEY), "anna", False)
    with pytest.raises(Invalid, match="no certificate request"):
        pending.issuer.certify("plc-8", b"x", "anna", False)


def test_a_second_certificate_wants_a_word(pending: Desk) -> None:
    """With ``replace`` the first one stops to count at once."""
    first = pending.ask(pending.token())
    with pytest.raises(Conflict, match="has a certificate already"):
        pending.issuer.token("plc-7", "anna", False)
    with pytest.raises(Conflict, match="has a certificate already"):
        pending.issuer.certify("plc-7", make_request("plc-7", KEY), "anna", False)
    pending.issuer.token("plc-7", "anna", True)
    assert pending.book.revoked("plc-7", fingerprint_of(first))


def test_without_an_authority(tmp_path: Path) -> None:
    """Operators are told what to do, devices that they are refused; one made later is found by a reload."""
    pending = Desk(tmp_path, set_up=False)
    assert not pending.issuer.is_set_up
    for call in (
        pending.issuer.about,
        lambda: pending.issuer.token("plc-7", "anna", False),
        lambda: pending.issuer.certify("plc-7", make_request("plc-7", KEY), "anna", False),
    ):
        with pytest.raises(NotFound, match="revtunnelctl ca init"):
            call()
    assert "no authority" in pending.refused(encode_enroll(bytes(16), b"x"))
    pending.directory.create("gate", 7300, pending.now)
    pending.issuer.load(pending.directory.path, 30, pending.limits)
    assert pending.ask(pending.token()).not_valid_after_utc == pending.now + timedelta(days=30)
    assert pending.issuer.about()["certificates"] == 1
    pending.issuer.load(None, 30, pending.limits)
    assert not pending.issuer.is_set_up
    pending.ledger.close()


# ---- renewal


def test_renewal(pending: Desk) -> None:
    """Shown: a good certificate. Given: one for the same serial with a new life. The old one still counts."""
    old = pending.ask(pending.token())
    pending.seconds = 60 * 86400.0
    shown = shown_of(old)
    new = pending.ask(b"", make_request("plc-7", new_key()), shown)
    assert new.not_valid_after_utc == pending.now + timedelta(days=90)
    assert not pending.book.revoked("plc-7", fingerprint_of(old))
    assert "request for plc-8" in pending.refused(encode_enroll(b"", make_request("plc-8", KEY)), shown)
    pending.issuer.revoke("plc-7")
    assert "is revoked" in pending.refused(encode_enroll(b"", make_request("plc-7", KEY)), shown)


def test_renewals_have_an_end(pending: Desk) -> None:
    """A device that asks and asks fills neither disk nor memory."""
    shown = shown_of(pending.ask(pending.token()))
    for _ in range(15):
        pending.ask(b"", None, shown)
    assert "16 certificates in 24 hours" in pending.refused(
        encode_enroll(b"", make_request("plc-7", KEY)), shown
    )
    pending.seconds += 86400.0
    assert pending.ask(b"", None, shown)


def renewed(desk: Desk, shown: x509.Certificate, key: Any = None) -> x509.Certificate:
    """What whoever has a certificate and its key gets for another key."""
    made: x509.Certificate = desk.ask(b"", make_request("plc-7", key or new_key()), shown_of(shown))
    return made


def forks(desk: Desk) -> list[CertificateForked]:
    """The alarms."""
    return [fact for fact in desk.facts if isinstance(fact, CertificateForked)]


def counts(desk: Desk, made: x509.Certificate) -> bool:
    """Whether a handshake with it passes."""
    return not desk.issuer.revoked("plc-7", fingerprint_of(made))


def test_the_first_use_of_a_renewed_certificate_retires_the_one_before(pending: Desk) -> None:
    """Not the issue, for the answer may be lost; and over a restart, in both lists."""
    old = pending.ask(pending.token())
    new = renewed(pending, old)
    assert counts(pending, old) and counts(pending, new)
    pending.issuer.used("plc-7", fingerprint_of(old))
    assert counts(pending, old)
    for _ in range(2):
        pending.issuer.used("plc-7", fingerprint_of(new))
        assert not counts(pending, old) and counts(pending, new)
        pending.restart()
    assert [row.revoked is not None for row in pending.directory.rows()[1:]] == [True, False]
    assert len(forks(pending)) == 2


def test_who_shows_a_retired_certificate_is_told_of(pending: Desk) -> None:
    """Its key was stolen, or old files were put back; one that an operator revoked is no news."""
    old = pending.ask(pending.token())
    new = renewed(pending, old)
    pending.issuer.used("plc-7", fingerprint_of(new))
    assert forks(pending) == []
    assert not counts(pending, old)
    assert [(fact.serial, fact.fingerprint) for fact in forks(pending)] == [("plc-7", fingerprint_of(old))]
    pending.issuer.revoke("plc-7")
    assert not counts(pending, old)
    assert len(forks(pending)) == 1


def test_a_certificate_that_is_not_known_here_is_retired_too(pending: Desk) -> None:
    """Of another authority, or of a ledger that was lost: what was renewed here is known by that."""
    key = new_key()
    old = issue_device(pending.directory.load(), "plc-7", key.public_key(), 90, pending.now)
    new = renewed(pending, old)
    pending.issuer.used("plc-7", fingerprint_of(new))
    pending.restart()
    assert not counts(pending, old) and counts(pending, new)
    assert pending.issuer.about()["certificates"] == 1


def test_a_renewal_is_a_use(pending: Desk) -> None:
    """Whoever renews what he got by renewal retires the first one, without ever having a link."""
    first = pending.ask(pending.token())
    second = renewed(pending, first)
    renewed(pending, second)
    assert not counts(pending, first) and counts(pending, second)


def test_a_try_whose_answer_was_lost_is_no_fork(pending: Desk) -> None:
    """It comes with the same key."""
    old, key = pending.ask(pending.token()), new_key()
    for _ in range(3):
        assert renewed(pending, old, key).public_key() == key.public_key()
    assert forks(pending) == []
    assert pending.book.forked() == []


def test_two_children_of_one_parent_are_an_alarm(pending: Desk) -> None:
    """A stolen key renews beside its owner: the second one is told, with where it came from, and shown."""
    old = pending.ask(pending.token())
    first = renewed(pending, old)
    second = renewed(pending, old)
    (fork,) = forks(pending)
    assert (fork.serial, fork.fingerprint, fork.peer) == ("plc-7", fingerprint_of(old), HOST)
    assert fingerprint_of(first) in fork.detail
    assert counts(pending, first) and counts(pending, second)
    assert pending.book.forked() == ["plc-7"]
    pending.restart()
    assert pending.book.forked() == ["plc-7"]
    pending.issuer.revoke("plc-7")
    assert pending.book.forked() == []


def test_by_a_setting_they_are_the_end_of_both(pending: Desk) -> None:
    """Nobody can say which is which: the device is revoked and cut off, and enrolled anew by a person."""
    cut: list[tuple[str, str]] = []
    pending.issuer.ends_forks = True
    pending.issuer.cut_off = lambda serial, detail: cut.append((serial, detail))
    old = pending.ask(pending.token())
    first = renewed(pending, old)
    request = encode_enroll(b"", make_request("plc-7", new_key()))
    assert "two hold the certificate of plc-7" in pending.refused(request, shown_of(old))
    assert not counts(pending, old) and not counts(pending, first)
    assert cut == [("plc-7", "two hold its certificate")]
    assert DeviceRevoked("plc-7", "two_renewals") in pending.facts
    assert counts(pending, pending.ask(pending.token()))


# ---- revocation


def test_revocation_is_in_both_lists(pending: Desk) -> None:
    """A lost ledger learns it again from the authority's own list, and nobody is back who should not be."""
    made = pending.ask(pending.token())
    pending.issuer.token("plc-8", "anna", False)
    assert (pending.issuer.revoke("plc-7"), pending.issuer.revoke("plc-8")) == ((1, 0), (0, 1))
    pending.ledger.close()
    for each in pending.path.glob("revtunnel.db*"):
        each.unlink()
    pending.start()
    assert pending.book.revoked("plc-7", fingerprint_of(made))
    assert [row.kind for row in pending.directory.rows()] == [AUTHORITY, DEVICE]


def test_a_list_that_cannot_be_written_is_told(pending: Desk) -> None:
    """The ledger has it, so the device gets its certificate; the operator sees the problem."""
    Path(pending.directory.file("issued")).unlink()
    Path(pending.directory.file("issued")).mkdir()
    made = pending.ask(pending.token())
    assert "authority: Is a directory" in str(pending.issuer.problem)
    assert pending.book.good("plc-7")[0].fingerprint == fingerprint_of(made)
    Path(pending.directory.file("issued")).rmdir()
    pending.issuer.revoke("plc-7")
    assert pending.issuer.problem is None
    rows = {row.fingerprint: row for row in pending.directory.rows()}
    assert rows[fingerprint_of(made)].revoked is not None


def test_what_the_list_lacks_comes_to_it_by_itself(pending: Desk) -> None:
    """In order; a success behind a failure hides none of it."""
    clock, facts = Clock(), list[Fact]()
    pending.issuer.retries = Retries(clock, facts.append, lambda: 0.0)
    file = Path(pending.directory.file("issued"))
    file.rename(f"{file}.away")
    file.mkdir()
    made = pending.ask(pending.token())
    pending.issuer.revoke("plc-7")
    clock.advance(2)
    assert [type(fact) for fact in facts] == [Trouble]
    assert list(pending.issuer.retries.problems) == ["certificate list of the authority"]
    file.rmdir()
    Path(f"{file}.away").rename(file)
    clock.advance(4)
    assert pending.issuer.problem is None and pending.issuer.retries.problems == {}
    assert facts[1:] == [TroubleOver("certificate list of the authority", 6.0)]
    (row,) = (row for row in pending.directory.rows() if row.kind == DEVICE)
    assert row.fingerprint == fingerprint_of(made) and row.revoked is not None


def test_a_line_that_was_written_in_part_is_taken_back(pending: Desk) -> None:
    """Or the next one would be no line either."""
    file = pending.directory.file("issued")
    with full_disk(os.path.getsize(file) + 20):
        pending.ask(pending.token())
        assert "File too large" in str(pending.issuer.problem)
    pending.issuer.revoke("plc-7")
    (row,) = (row for row in pending.directory.rows() if row.kind == DEVICE)
    assert row.revoked is not None


def test_a_damaged_authority_changes_nothing(pending: Desk) -> None:
    """A reload says so and goes on with the one it had."""
    Path(pending.directory.file("authority.key")).write_bytes(b"noise")
    with pytest.raises(Unfit, match="no private key"):
        pending.issuer.load(pending.directory.path, 90, pending.limits)
    assert pending.issuer.is_set_up


def test_names_of_the_server(pending: Desk) -> None:
    """For the line that an operator pastes: those of the newest certificate."""
    assert pending.issuer.server_names == []
    pending.directory.issue_server(["old.example"], 825, pending.now)
    pending.seconds = 1.0
    pending.directory.issue_server(["gate.example", "192.0.2.1"], 825, pending.now)
    pending.restart()
    assert pending.issuer.server_names == ["gate.example", "192.0.2.1"]


# ---- late renewals


def test_a_certificate_that_has_ended_is_renewed_for_its_own_key(pending: Desk) -> None:
    """Within the grace, and it is in the audit file; for another key, or too late, it is not."""
    old = pending.ask(pending.token())
    pending.seconds = 91 * DAY
    shown, other = shown_of(old, late=True), encode_enroll(b"", make_request("plc-7", new_key()))
    assert "has another key than the request" in pending.refused(other, shown)
    assert pending.audited == []
    made = pending.ask(b"", make_request("plc-7", KEY), shown)
    issued = pending.facts[-1]
    assert isinstance(issued, CertificateIssued) and issued.by == "late-renewal"
    assert [(each.operation, each.subject) for each in pending.audited] == [
        ("certificate-renewed-late", "plc-7")
    ]
    pending.issuer.used("plc-7", fingerprint_of(made))
    assert "is revoked" in pending.refused(encode_enroll(b"", make_request("plc-7", KEY)), shown)


def test_a_late_renewal_has_its_bounds(pending: Desk) -> None:
    """Neither after the grace, nor beside a newer certificate of the device, nor for one made elsewhere."""
    old, asked = pending.ask(pending.token()), encode_enroll(b"", make_request("plc-7", KEY))
    shown = shown_of(old, late=True)
    pending.seconds = 90 * DAY + GRACE
    assert "ended too long ago" in pending.refused(asked, shown)
    pending.seconds -= 1
    pending.ask(pending.token(), make_request("plc-7", new_key()))
    assert "is not the device's newest" in pending.refused(asked, shown)
    foreign = issue_device(pending.directory.load(), "plc-8", KEY.public_key(), 90, pending.now)
    request = encode_enroll(b"", make_request("plc-8", KEY))
    assert "was not made here" in pending.refused(request, shown_of(foreign, late=True))


def test_a_lost_answer_is_no_second_holder(pending: Desk) -> None:
    """The answer to a renewal in time was lost; after the end the first key is asked for again."""
    old = pending.ask(pending.token())
    pending.seconds = 80 * DAY
    renewed(pending, old)
    pending.seconds = 91 * DAY
    pending.ask(b"", make_request("plc-7", KEY), shown_of(old, late=True))
    assert (forks(pending), pending.book.forked()) == ([], [])


# ---- several nodes


def test_other_nodes_say_whether_a_token_was_used(pending: Desk) -> None:
    """It is asked for a good token only, and used up by a yes alone; a second yes is worth nothing."""
    asked, secret = list[Deferred[bool]](), pending.token()
    pending.issuer.first = lambda token: asked.append(Deferred()) or asked[-1]  # type: ignore[func-returns-value]
    payload = encode_enroll(secret, make_request("plc-7", KEY))
    assert "wrong" in pending.refused(encode_enroll(bytes(16), make_request("plc-7", KEY)))
    assert asked == []
    answers: list[Any] = [pending.issuer.answer(payload, None, HOST) for _ in range(4)]
    asked[0].errback(directory_away("nobody knows"))
    asked[1].callback(False)
    assert "directory-away" in str(failed(answers[0])) and "another node" in str(failed(answers[1]))
    assert pending.book.good("plc-7") == []
    asked[2].callback(True)
    assert decode_certificate(answers[2].result)
    asked[3].callback(True)
    assert "wrong, used or too late" in str(failed(answers[3])) and len(pending.book.good("plc-7")) == 1


def failed(answer: Any) -> Any:
    """Why there is no certificate."""
    found: list[Any] = []
    answer.addErrback(found.append)
    return found[0].value


def test_a_token_that_may_be_of_another_node_is_not_called_wrong(pending: Desk) -> None:
    """While nobody can say: an agent asks again, and its address pays nothing."""
    pending.issuer.unsure = lambda: "the engine is away"
    payload = encode_enroll(bytes(16), make_request("plc-7", KEY))
    for _ in range(20):
        with pytest.raises(LinkDenied, match="directory-away: the engine is away") as caught:
            pending.issuer.answer(payload, None, HOST)
        assert caught.value.word == "directory-away"
    assert pending.ask(pending.token())
