"""The book of certificates: what counts, what does not, and that it is all there after a restart."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.link.handshake import LinkDenied
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from revtunnel.trust.certificate_book import DEVICE, SERVER, CertificateBook, CertificateRow
from revtunnel.trust.enrolment import Enrolment

NOON = 1_800_000_000.0
DAY = 86400.0


def row(mark: str, name: str = "plc-7", kind: str = DEVICE, issued: float = NOON) -> CertificateRow:
    """A certificate of 90 days; its fingerprint begins with ``mark``."""
    return CertificateRow(mark.ljust(64, "0"), name, kind, "1a", issued + 90 * DAY, issued)


OLD, NEW, GATE = row("a"), row("b"), row("c", "gate.example 192.0.2.1", SERVER)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the state file of this test is."""
    return str(tmp_path / FILE_NAME)


@contextlib.contextmanager
def opened(path: str | None = None, wall: float = NOON) -> Iterator[CertificateBook]:
    """A book whose wall clock stands still."""
    ledger = SqliteLedger(path, lambda: wall)
    try:
        yield CertificateBook(ledger)
    finally:
        ledger.close()


def test_certificates_are_kept(path: str) -> None:
    """By device and by kind, with their times."""
    with opened(path) as book:
        for each in (OLD, NEW, GATE):
            book.put(each)
    with opened(path) as book:
        assert sorted(book.good("plc-7")) == [OLD, NEW]
        assert (book.rows(SERVER), len(book)) == ([GATE], 3)
        assert book.holders() == ["plc-7"]
        assert (book.knows("plc-7"), book.knows("plc-8"), book.knows(GATE.name)) == (True, False, False)


def test_revoked_is_for_good(path: str) -> None:
    """All of the serial that were issued until then, known or not; a later one counts."""
    with opened(path) as book:
        book.put(OLD)
        assert not book.revoked("plc-7", OLD.fingerprint)
        assert (book.revoke("plc-7"), book.revoke("plc-7")) == (1, 0)
        assert book.holders() == []
        book.put(NEW)
    with opened(path) as book:
        assert book.revoked("plc-7", OLD.fingerprint)
        assert book.revoked("plc-7", "f" * 64)
        assert not book.revoked("plc-7", NEW.fingerprint)
        assert not book.revoked("plc-8", "f" * 64)
        assert book.good("plc-7") == [NEW]


def test_a_bar_is_lifted_for_strange_certificates_only(path: str) -> None:
    """What we issued and revoked stays so."""
    with opened(path) as book:
        book.put(OLD)
        book.revoke("plc-7")
        assert (book.lift("plc-7"), book.lift("plc-7")) == (True, False)
    with opened(path) as book:
        assert book.revoked("plc-7", OLD.fingerprint)
        assert not book.revoked("plc-7", "f" * 64)


def test_n37_after_damage_strange_certificates_do_not_count(path: str) -> None:
    """Whether they were revoked was in the lost file; those that are known again are judged as ever."""
    Path(path).write_bytes(b"x" * 5000)
    with opened(path) as book:
        assert book.revoked("plc-8", "f" * 64)
        book.merge([OLD])
        assert not book.revoked("plc-7", OLD.fingerprint)
        Path(path + ".corrupt-1").unlink()
        assert not book.revoked("plc-8", "f" * 64)


def test_the_authoritys_list_is_learned(path: str) -> None:
    """What only one of both knows counts, and so does a revocation in either."""
    with opened(path) as book:
        book.put(OLD)
        book.revoke("plc-7")
        book.put(NEW)
        book.merge([OLD, NEW._replace(revoked=NOON), GATE, row("e", issued=NOON - 500 * DAY)])
        book.merge([NEW])
    with opened(path) as book:
        assert book.revoked("plc-7", OLD.fingerprint)
        assert book.revoked("plc-7", NEW.fingerprint)
        assert len(book) == 3


def test_what_ended_long_ago_is_forgotten(path: str) -> None:
    """At the next start, and when the device gets its next one: years of renewals fill nothing."""
    with opened(path) as book:
        book.put(OLD)
        book.put(GATE)
    with opened(path, NOON + 455 * DAY) as book:
        assert (len(book), book.good("plc-7")) == (2, [])
    with opened(path, NOON + 457 * DAY) as book:
        assert (len(book), book.knows("plc-7")) == (0, False)
    with opened(None) as book:
        for number in range(3):
            book.put(row(f"{number}", issued=NOON - 455 * DAY))
        book.put(row("d", issued=NOON - 457 * DAY))
        assert len(book) == 3


def test_so_many_a_day() -> None:
    """Counted over 24 hours."""
    with opened() as book:
        book.put(row("1", issued=NOON - DAY))
        book.put(row("2", issued=NOON - DAY + 1))
        book.put(row("3", "plc-8"))
        assert (book.issued_today("plc-7"), book.issued_today("plc-9")) == (1, 0)


def test_tokens_outlive_the_server(path: str) -> None:
    """With what is left of their time by the wall clock; the secret itself is not in the file."""
    secret = bytes(range(16))
    with opened(path) as book:
        Enrolment(EnrolmentLimits(), 5.0, book).give("plc-7", secret, 5.0)
    assert all(secret not in each.read_bytes() for each in Path(path).parent.iterdir())
    with opened(path, NOON + 3599.0) as book:
        assert [(each.serial, each.left) for each in book.tokens()] == [("plc-7", 1.0)]
        enrolment = Enrolment(EnrolmentLimits(), 1000.0, book)
        assert enrolment.redeem(secret, "plc-7", "192.0.2.7", 1000.5) == "plc-7"
    with opened(path, NOON + 3599.0) as book:
        assert book.tokens() == []
        with pytest.raises(LinkDenied):
            Enrolment(EnrolmentLimits(), 0.0, book).redeem(secret, None, "192.0.2.7", 0.0)


def test_another_book_learns_what_was_shared() -> None:
    """Whatever was issued anywhere until then is out; what came since counts, also when it is heard again."""
    theirs, strange = row("d"), "f" * 64
    with opened() as one, opened() as two:
        one.shared = two.learn
        one.put(OLD)
        two.put(theirs)
        one.revoke("plc-7")
        assert all(two.revoked("plc-7", each) for each in (OLD.fingerprint, theirs.fingerprint, strange))
        one.put(NEW)
        assert not two.revoked("plc-7", NEW.fingerprint)
        two.learn(*one.to_share())
        assert not two.revoked("plc-7", NEW.fingerprint)
        assert one.lift("plc-7") and not two.revoked("plc-7", strange)
        assert two.revoked("plc-7", theirs.fingerprint)


def test_one_that_was_retired_by_its_renewal_is_shared() -> None:
    """It is out at every node, and everything else that is good is nobody else's to know."""
    with opened() as one, opened() as two:
        one.shared = two.learn
        one.put(OLD)
        one.put(NEW._replace(parent=OLD.fingerprint))
        assert len(two) == 0
        one.used(NEW.fingerprint)
        assert two.revoked("plc-7", OLD.fingerprint) and not two.revoked("plc-7", NEW.fingerprint)
        rows, barred = one.to_share()
        assert [each.fingerprint for each in rows] == [OLD.fingerprint] and barred == {}
