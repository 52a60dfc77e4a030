"""What was answered is on the disk: the power goes after each write, sync and rename of a server's state."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revtunnel.ground.limits import EnrolmentLimits, PeopleLimits
from revtunnel.state.ledger import FILE_NAME, open_ledger
from revtunnel.trust.certificate_book import CertificateBook
from revtunnel.trust.enrolment import Enrolment
from revtunnel.trust.people_book import open_people
from tests.support.power_loss import GCC, Disk, Step, play, recorded

pytestmark = pytest.mark.skipif(GCC is None, reason="there is no gcc to build the log of the disk with")

# each line of marks is written when the call before it has returned: that is when somebody is answered
WORK = """
import sys
from revtunnel.state import change_journal
from revtunnel.ground.limits import EnrolmentLimits, PeopleLimits
from revtunnel.state.ledger import FILE_NAME, open_ledger
from revtunnel.trust.certificate_book import CertificateBook, CertificateRow
from revtunnel.trust.enrolment import Enrolment
from revtunnel.trust.people_book import open_people

change_journal.LARGE = int(sys.argv[2])
marks = open(sys.argv[1] + "/marks", "a", buffering=1)

def answered(word):
    marks.write(word + "\\n")

def main(directory):
    ledger = open_ledger(directory, FILE_NAME)
    book = CertificateBook(ledger)
    enrolment = Enrolment(EnrolmentLimits(), 0.0, book)
    answered("open")
    for serial in ("a", "b"):
        ledger.put_key(serial, b"1" * 32, b"2" * 32)
        answered(f"key-{serial}")
        book.put(CertificateRow(serial * 64, serial, "device", "1", 4e9, 1.0))
        answered(f"issued-{serial}")
    enrolment.give("c", b"c" * 16, 0.0)
    answered("token-c")
    enrolment.give("d", b"d" * 16, 0.0)
    answered("token-d")
    enrolment.redeem(b"c" * 16, "c", "192.0.2.7", 1.0)
    answered("used-c")
    people, grants, _ = open_people(PeopleLimits(), ledger)
    people.add_user("ana", "", 1.0)
    answered("user-ana")
    ledger.remove_key("a")
    answered("withdrawn-a")
    book.revoke("a")
    answered("revoked-a")
    book.revoke("x")
    answered("revoked-x")
    book.lift("x")
    answered("lifted-x")
    book.revoke("b")
    answered("revoked-b")
    ledger.close()
    answered("closed")
    ledger = open_ledger(directory, FILE_NAME)
    CertificateBook(ledger).revoke("y")
    answered("revoked-y")

main(sys.argv[1])
"""


def missing(directory: Path, answered: list[str]) -> Iterator[str]:
    """What somebody was told and the state in a directory does not know any more."""
    ledger = open_ledger(str(directory), FILE_NAME)
    try:
        book = CertificateBook(ledger)
        enrolment = Enrolment(EnrolmentLimits(), 0.0, book)
        people, _, _ = open_people(PeopleLimits(), ledger)
        waiting = {serial for serial in "cd" if enrolment.waits(serial)}
        known: dict[str, Callable[[str], bool]] = {
            "key": lambda serial: (
                ledger.key_of(serial) is not None or (serial == "a" and "user-ana" in answered)
            ),
            "issued": book.knows,
            "token": lambda serial: serial in waiting or serial == "c",
            "used": lambda serial: serial not in waiting,
            "user": lambda name: people.knows(name),
            "withdrawn": lambda serial: ledger.key_of(serial) is None,
            "revoked": lambda serial: book.revoked(serial, serial * 64) or serial == "x",
            "lifted": lambda serial: not book.barred(serial),
        }
        for word in answered:
            what, _, who = word.partition("-")
            if what in known and not known[what](who):
                yield word
        if ledger.doubtful or ledger.problem:
            yield f"doubt: {ledger.doubtful or ledger.problem}"
    finally:
        ledger.close()


@pytest.fixture(scope="module", params=[1 << 20, 700], ids=["long journal", "short journal"])
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """What the work did to its directory; a short journal is begun anew now and then."""
    base = tmp_path_factory.mktemp("work")
    (base / "state").mkdir()
    found = recorded(WORK, base / "state", base / "disk.log", str(request.param))
    assert [*play(found)][-1].answered[-1] == "revoked-y"
    return found


def after_each(steps: list[Step], base: Path, cut: Callable[[Disk, Path], None]) -> list[tuple[int, str]]:
    """What is missing when the power goes before each step; what was looked at already is not again."""
    found, seen = [], set()
    for number, disk in enumerate(play(steps)):
        directory = base / str(number)
        directory.mkdir()
        cut(disk, directory)
        files = {(path.name, path.read_bytes()) for path in directory.iterdir()}
        if (frozenset(files), len(disk.answered)) not in seen:
            seen.add((frozenset(files), len(disk.answered)))
            found += [(number, word) for word in missing(directory, disk.answered)]
    return found


def test_what_was_answered_survives_the_loss_of_all_that_was_not_synced(
    steps: list[Step], tmp_path: Path
) -> None:
    """Keys, certificates, tokens and their use, users, revocations, and that a revocation was lifted."""
    assert after_each(steps, tmp_path, Disk.dark) == []


@pytest.mark.slow
def test_what_was_answered_survives_a_kill(steps: list[Step], tmp_path: Path) -> None:
    """The system has all that was written."""
    assert after_each(steps, tmp_path, Disk.killed) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_was_answered_survives_the_loss_of_some_of_it(
    steps: list[Step], tmp_path: Path, seed: int
) -> None:
    """Writes that were not synced may be there or not, in any combination."""
    chance = random.Random(seed)
    assert after_each(steps, tmp_path, lambda disk, into: disk.torn(into, chance)) == []
