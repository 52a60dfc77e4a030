"""A token in a file: tried when it is there, once where the server said no, and taken away once used."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from revtunnel.ground.facts import CertificateFailed, CertificateIssued, Fact
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.handshake import Dismissed
from revtunnel.trust.authority import issue_device, make_authority, new_key
from revtunnel.trust.enrolment import EnrolmentToken, write_token
from revtunnel.trust.token_watch import LOOK, REFUSED, TokenWatch

NOW = datetime.now(UTC)
MADE = issue_device(make_authority("gate", 7300, NOW), "plc-7", new_key().public_key(), 90, NOW)
SERVERS = [ServerPlace("gate-a", 2065), ServerPlace("gate-b", 2065)]


class Watched:
    """A file, who looks for it, and the questions that a test answers by hand."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path / "plc-7.token"
        self.facts: list[Fact] = []
        self.asked: list[tuple[EnrolmentToken, ServerPlace, Deferred[x509.Certificate]]] = []
        self.got = 0
        self.watch = TokenWatch(
            self.clock, str(self.path), "plc-7", lambda: SERVERS, self.ask, self.facts.append, self.take
        )
        self.watch.startService()

    def ask(self, token: EnrolmentToken, server: ServerPlace) -> "Deferred[x509.Certificate]":
        self.asked.append((token, server, Deferred()))
        return self.asked[-1][2]

    def take(self) -> None:
        self.got += 1

    def put(self, secret: int = 1, serial: str = "plc-7") -> EnrolmentToken:
        token = EnrolmentToken(bytes(32), bytes([secret] * 16), serial)
        self.path.write_text(f"{write_token(token)}\n")
        return token

    def look(self, times: int = 1) -> int:
        """Let it look: how many questions there were so far."""
        self.clock.pump([LOOK] * times)
        return len(self.asked)

    def failed(self) -> list[str]:
        return [fact.detail for fact in self.facts if isinstance(fact, CertificateFailed)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_token_that_comes_is_used(watched: Watched) -> None:
    """The file is gone with it, and the agent is told that there is a certificate."""
    assert watched.look(3) == 0
    token = watched.put()
    assert watched.look() == 1
    assert watched.asked[0][:2] == (token, SERVERS[0])
    assert watched.look() == 1  # one question at a time
    watched.asked[0][2].callback(MADE)
    assert (watched.got, watched.path.exists(), watched.failed()) == (1, False, [])
    (fact,) = watched.facts
    assert isinstance(fact, CertificateIssued) and fact.by == "token"
    watched.put(2)
    assert watched.look() == 2


def test_a_server_that_is_not_there_is_asked_again(watched: Watched) -> None:
    """The next one is, and the failure is said once."""
    watched.put()
    for number in range(1, 5):
        assert watched.look() == number
        watched.asked[-1][2].errback(ConnectionRefusedError(111, "Connection refused"))
    assert [server for _, server, _ in watched.asked] == SERVERS * 2
    assert watched.failed() == ["refused the connection"]


def test_a_refused_token_is_tried_once(watched: Watched) -> None:
    """Until there is another one in the file."""
    watched.put()
    watched.look()
    watched.asked[0][2].errback(Dismissed(GoAway.DENIED, 0, ""))
    assert watched.look(5) == 1
    assert (watched.failed(), watched.path.exists()) == ([REFUSED], True)
    watched.put(2)
    assert watched.look() == 2


def test_what_is_no_token_is_said_once(watched: Watched) -> None:
    """Neither rubbish, nor a token for another device, nor a file that cannot be read, asks anybody."""
    watched.path.write_text("rttok1_x")
    watched.look(3)
    watched.put(1, "plc-8")
    watched.look(3)
    watched.path.unlink()
    watched.path.mkdir()
    watched.look(3)
    assert watched.asked == []
    assert watched.failed() == [
        "not a whole token: 8 characters",
        "the token is for plc-8, and this is plc-7",
        "Is a directory",
    ]


def test_a_file_that_stays_is_not_used_twice(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the agent may not take it away."""
    monkeypatch.setattr("os.unlink", lambda path: (_ for _ in ()).throw(PermissionError(13, "no")))
    watched.put()
    watched.look()
    watched.asked[0][2].callback(MADE)
    assert (watched.look(3), watched.got, watched.path.exists()) == (1, 1, True)


def test_stopping_asks_nobody_any_more(watched: Watched) -> None:
    """A question that is under way is left, without a word."""
    watched.put()
    watched.look()
    watched.watch.stopService()
    assert watched.failed() == []
    assert watched.clock.getDelayedCalls() == []
