"""The agent's certificate: renewed in time, from a good answer only, and tried again when there was none."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, fail, succeed

from revtunnel.ground.facts import CertificateFailed, CertificateIssued, Fact
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.sockets.tls.enroll import decode_enroll, encode_certificate
from revtunnel.streams.commands import Command, encode_goaway
from revtunnel.streams.frames import encode_frame
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import fingerprint_of, issue_device, make_authority, new_key, read_request
from revtunnel.trust.certificate_renewal import LOOK, RETRY_LATE, RETRY_MOST, CertificateRenewal
from tests.support.epoll import Loop, own_reactor

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = 86400.0
AUTHORITY, OTHER = make_authority("gate", 7300, NOW), make_authority("other", 7300, NOW)


class Beside:
    """A keeper, what it keeps, and a server that a test plays by hand."""

    def __init__(self, loop: Loop, path: Path, days: int = 90) -> None:
        self.loop = loop
        self.facts: list[Fact] = []
        self.renewed = 0
        self.dialled: list[tuple[str, int]] = []
        self.far: socket.socket | None = None
        self.down: Exception | None = None
        self.wall = NOW.timestamp()
        self.files = AgentFiles(str(path), "plc-7")
        key = new_key()
        self.files.trust(AUTHORITY.certificate)
        self.files.keep(key, issue_device(AUTHORITY, "plc-7", key.public_key(), days, NOW))
        self.first = self.files.load()
        self.keeper = CertificateRenewal(
            loop.reactor,
            self.files,
            "plc-7",
            lambda: [ServerPlace("gate-a", 2065), ServerPlace("gate-b", 2065)],
            self.open,
            0.33,
            5.0,
            self.facts.append,
            self.again,
            lambda: 0.5,
            "; bring a token",
            lambda: self.wall,
        )

    def open(self, server: ServerPlace, timeout: float) -> "Deferred[End]":
        self.dialled.append((server.host, server.port))
        if self.down is not None:
            return fail(self.down)
        near, self.far = socket.socketpair()
        self.far.settimeout(5.0)
        return succeed(PlainEnd(near, str(server)))

    def again(self) -> None:
        self.renewed += 1

    def later(self, days: float) -> None:
        """Let the wall clock be so many days on, and the keeper look at it."""
        self.wall = NOW.timestamp() + days * DAY
        for call in self.waiting():
            call.cancel()
        self.keeper._look()
        self.loop.settle()

    def waiting(self) -> list[Any]:
        return list(self.loop.reactor.getDelayedCalls())

    def delay(self) -> float:
        """Seconds until it looks again."""
        (call,) = self.waiting()
        return float(call.getTime() - self.loop.reactor.seconds())

    def answer(
        self, serial: str = "plc-7", authority: Any = AUTHORITY, key: Any = None, days: int = 90
    ) -> x509.Certificate:
        """What the server says to the question that is there."""
        assert self.far is not None
        secret, request = decode_enroll(self.far.recv(10_000)[4:])
        assert secret == b""
        asked = read_request(request)
        assert asked.serial == "plc-7"
        now = datetime.fromtimestamp(self.wall, UTC)
        made = issue_device(authority, serial, key or asked.public_key, days, now)
        both = made.public_bytes(Encoding.DER), authority.certificate.public_bytes(Encoding.DER)
        self.say(encode_frame(Command.CERTIFICATE, 0, encode_certificate(*both)))
        return made

    def say(self, data: bytes) -> None:
        assert self.far is not None
        self.far.send(data)
        self.loop.settle()
        self.far.close()

    def failed(self) -> list[str]:
        return [fact.detail for fact in self.facts if isinstance(fact, CertificateFailed)]


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    with own_reactor() as loop:
        made = Beside(loop, tmp_path)
        yield made
        if made.keeper.running:
            made.keeper.stopService()
        loop.settle()
        assert made.waiting() == []


def test_nothing_before_its_time(beside: Beside) -> None:
    """It looks at the clock once a day, because somebody may set that, and asks nobody."""
    beside.keeper.startService()
    assert beside.delay() == pytest.approx(LOOK, abs=1.0)
    beside.later(57.0)
    assert beside.dialled == []
    assert 0 < beside.delay() <= LOOK


def test_renewed_when_a_third_is_left(beside: Beside) -> None:
    """A new key and certificate in one file; the agent is told, and the next look is tomorrow."""
    beside.keeper.startService()
    beside.later(61.0)
    assert beside.dialled == [("gate-a", 2065)]
    made = beside.answer()
    assert beside.files.load() == made
    assert made.public_key() != beside.first.public_key()
    assert beside.renewed == 1
    (fact,) = beside.facts
    assert isinstance(fact, CertificateIssued)
    assert (fact.serial, fact.by, fact.fingerprint) == ("plc-7", "renewal", fingerprint_of(made))
    assert beside.delay() == pytest.approx(LOOK, abs=1.0)


def test_those_enrolled_together_do_not_come_together(beside: Beside) -> None:
    """Up to a tenth of the time is by chance."""
    keeper = beside.keeper
    due = []
    for chance in (0.0, 0.05, 0.1):
        keeper._early = chance
        due.append(keeper._due(beside.first))
    life = (beside.first.not_valid_after_utc - beside.first.not_valid_before_utc).total_seconds()
    end = beside.first.not_valid_after_utc.timestamp()
    assert due == [pytest.approx(end - life * 0.33 * factor) for factor in (1.0, 1.05, 1.1)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"serial": "plc-8"}, "a certificate of plc-8, plc-7 wanted"),
        ({"key": new_key().public_key()}, "for another key"),
        ({"authority": OTHER}, "by another authority"),
    ],
)
def test_an_answer_that_is_not_ours(beside: Beside, wrong: dict[str, Any], words: str) -> None:
    """The one we have stays, whatever the server sends."""
    beside.keeper.startService()
    beside.later(61.0)
    beside.answer(**wrong)
    (failed,) = beside.failed()
    assert words in failed
    assert (beside.files.load(), beside.renewed) == (beside.first, 0)


def test_failures_are_told_and_tried_again(beside: Beside) -> None:
    """By turns at all servers, slower each time, four times a day at least; then all is as before."""
    beside.keeper.startService()
    beside.down = ConnectionRefusedError(111, "gate-a:2065: Connection refused")
    beside.later(61.0)
    delays = [beside.delay()]
    for _ in range(12):
        beside.later(61.0)
        delays.append(beside.delay())
    assert beside.dialled[:3] == [("gate-a", 2065), ("gate-b", 2065), ("gate-a", 2065)]
    assert delays[0] == pytest.approx(45.0, abs=1.0)
    assert delays[1] == pytest.approx(90.0, abs=1.0)
    assert max(delays) == pytest.approx(RETRY_MOST * 0.75, abs=1.0)
    end = beside.first.not_valid_after_utc.strftime("%Y-%m-%d")
    assert beside.failed()[0] == f"gate-a:2065: Connection refused; ours ends on {end}"
    beside.down = None
    beside.later(61.0)
    beside.say(encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.DENIED)))
    assert beside.failed()[-1].startswith("the server says denied: its log says why; ours ends on")
    beside.later(91.0)
    beside.answer()
    assert beside.renewed == 1
    assert beside.keeper._failures == 0


def test_files_that_went_away(beside: Beside) -> None:
    """Told and looked for again; somebody may put them back."""
    Path(beside.files.certificate).rename(beside.files.certificate + ".away")
    beside.keeper.startService()
    assert "No such file" in beside.failed()[0]
    Path(beside.files.certificate + ".away").rename(beside.files.certificate)
    beside.later(61.0)
    beside.answer()
    assert beside.renewed == 1


def test_stopping_leaves_a_renewal(beside: Beside) -> None:
    """No timer, no socket, no complaint."""
    beside.keeper.startService()
    beside.later(61.0)
    beside.keeper.stopService()
    beside.loop.settle()
    assert beside.failed() == []
    assert beside.far is not None
    with pytest.raises(OSError):
        while beside.far.recv(10_000):
            pass
        raise ConnectionResetError
    assert beside.waiting() == []


def test_a_short_life(tmp_path: Path) -> None:
    """One day: renewed when the third of it is left, not a day later."""
    with own_reactor() as loop:
        beside = Beside(loop, tmp_path, days=1)
        beside.keeper.startService()
        life = timedelta(days=1, minutes=5).total_seconds()
        assert beside.delay() == pytest.approx(DAY - life * 0.33 * 1.05, abs=2.0)
        beside.keeper.stopService()


# ---- it has ended


def test_one_that_has_ended_is_renewed_for_its_own_key(beside: Beside) -> None:
    """At once, whoever waits for the try is told, and the next one is for a new key again."""
    tried: list[float] = []
    beside.keeper.tried = lambda: tried.append(beside.wall)
    beside.wall += 91 * DAY
    assert beside.keeper.is_late
    beside.keeper.startService()
    beside.loop.settle()
    assert tried == []
    made = beside.answer()
    assert made.public_key() == beside.first.public_key()
    assert (beside.files.load(), beside.renewed, len(tried)) == (made, 1, 1)
    assert not beside.keeper.is_late


def test_nobody_renews_it_any_more(beside: Beside) -> None:
    """It is tried on, four times an hour at least, and said how a person can help."""
    beside.down = ConnectionRefusedError(111, "gate-a:2065: Connection refused")
    beside.wall += 91 * DAY
    tried: list[float] = []
    beside.keeper.tried = lambda: tried.append(beside.wall)
    beside.keeper.startService()
    delays = []
    for _ in range(9):
        beside.later(91.0)
        delays.append(beside.delay())
    assert (max(delays), len(tried)) == (pytest.approx(RETRY_LATE * 0.75, abs=1.0), 10)
    assert beside.failed()[-1].endswith("; bring a token")


def test_a_server_knows_better_that_it_has_ended(beside: Beside) -> None:
    """The clock here says something else; one try at once, and then the times of tries."""
    beside.keeper.startService()
    beside.keeper.told_late()
    beside.loop.settle()
    beside.say(encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.DENIED)))
    beside.keeper.told_late()
    assert len(beside.dialled) == 1
    assert beside.failed()[-1].endswith("; bring a token")
    beside.later(1.0)
    assert beside.answer().public_key() == beside.first.public_key()
    assert not beside.keeper.is_late
