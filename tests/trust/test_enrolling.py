"""Enrolment on the wire: the agent's question, over a socketpair, and the server's answer, in memory."""

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred, TimeoutError, succeed

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import LinkRefused
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import Dismissed, LinkDenied
from revtunnel.link.server_link import ServerLink
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.tls.enroll import MAX_CERTIFICATE, MAX_ENROLL, encode_certificate, encode_enroll
from revtunnel.streams.commands import Command, decode_goaway, encode_goaway
from revtunnel.streams.frames import encode_frame, encode_header
from revtunnel.trust.enrolling import ask
from tests.link.test_link import LISTEN, frames, stranger
from tests.support.data_world import DataWorld
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop
from tests.support.services import reset
from tests.support.world import World

SECRET, REQUEST = bytes(range(16)), b"a request"
ENROLL = encode_enroll(SECRET, REQUEST)
ANSWER = encode_certificate(b"certificate", b"authority")


# ---- the agent's side


class Asked:
    """A question under way; ``far`` is where the server would be."""

    def __init__(self, loop: Loop, seconds: float = 20.0) -> None:
        near, self.far = socket.socketpair()
        self.far.settimeout(5.0)
        self.end = PlainEnd(near, "gate:2065")
        self.answer: Deferred[Any] = ask(loop.reactor, lambda: succeed(self.end), ENROLL, seconds)
        loop.settle()

    def heard(self) -> bytes:
        return self.far.recv(100_000)


@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_one_question_one_answer(loop: Loop, cut: int) -> None:
    """The frame is exact, the answer may come in pieces, and the connection is given up behind it."""
    asked = Asked(loop)
    assert asked.heard() == encode_frame(Command.ENROLL, 0, ENROLL)
    answer = encode_frame(Command.CERTIFICATE, 0, ANSWER)
    for at in range(0, len(answer), cut):
        asked.far.send(answer[at : at + cut])
        loop.reactor.iterate(0)
    assert loop.wait(asked.answer) == (b"certificate", b"authority")
    assert asked.end.sock.fileno() == -1


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.DENIED)), Dismissed, "the server says denied"),
        (b"", RemoteError, "hung up without an answer"),
        (b"\0\0\x1d", RemoteError, "hung up without an answer"),
        (LISTEN, RemoteError, "instead of a certificate"),
        (encode_header(MAX_CERTIFICATE + 1, Command.CERTIFICATE, 0), RemoteError, "instead of a certificate"),
        (encode_header(204, Command.GOAWAY, 0), RemoteError, "instead of a certificate"),
        (encode_frame(Command.CERTIFICATE, 0, b"\2"), RemoteError, "version 1 wanted"),
        (b"HTTP/1.1 400 Bad Request\r\n", RemoteError, "instead of a certificate"),
    ],
)
def test_other_answers(loop: Loop, answer: bytes, kind: type[Exception], text: str) -> None:
    """Each ends the question, in words, and the socket is gone."""
    asked = Asked(loop)
    asked.far.send(answer)
    asked.far.shutdown(socket.SHUT_WR)
    with pytest.raises(kind, match=text):
        loop.wait(asked.answer)
    assert asked.end.sock.fileno() == -1


def test_a_server_that_says_nothing(loop: Loop) -> None:
    """It has so many seconds, and no socket is left behind."""
    asked = Asked(loop, 0.05)
    with pytest.raises(TimeoutError):
        loop.wait(asked.answer)
    assert asked.end.sock.fileno() == -1


def test_a_connection_that_does_not_come(loop: Loop) -> None:
    """Cancelled with the question."""
    cancelled: list[Any] = []
    answer = ask(loop.reactor, lambda: Deferred(cancelled.append), ENROLL, 0.05)
    with pytest.raises(TimeoutError):
        loop.wait(answer)
    assert len(cancelled) == 1


@pytest.mark.slow
def test_a_look_and_gone() -> None:
    """Whoever only wants to see the server's certificate is gone at once: counted, and no fault."""
    with DataWorld() as world:
        near, far = tcp_pair()
        reset(far)
        world.switchboard.agents("main")(PlainEnd(near, "203.0.113.9:5"))
        counts = world.switchboard.counts

        def is_told() -> bool:
            world.switchboard.admission.say_left()
            return counts["left-early"] == 1

        world.until(is_told, "the end of the link")
        assert not world.of(LinkRefused)


# ---- the server's side


class Desk:
    """Takes the place of the issuer at the switchboard: notes what is asked, answers or refuses."""

    def __init__(self, refuses: bool = False) -> None:
        self.asked: list[Any] = []
        self._refuses = refuses

    def answer(self, payload: bytes, shown: PeerCertificate | None, source: str) -> bytes:
        self.asked.append((payload, shown, source))
        if self._refuses:
            raise LinkDenied(GoAway.DENIED, "refused: for a reason of ours")
        return ANSWER


def world(pending: Desk, tls: bool = True, shown: str = "", late: bool = False, **changes: Any) -> World:
    """A world whose strangers come over TLS, as the switchboard sees it, with a certificate or without."""

    def make(*args: Any) -> ServerLink:
        link = ServerLink(*args)
        if tls:
            link.tls = "TLSv1.3"
            link.certificate = PeerCertificate(shown, "ab" * 32, 0.0, late) if shown else None
        return link

    made = World(start=False)
    made.listener(make=make, **changes)
    made.switchboard.admission.issue = pending.answer
    return made


def refusals(made: World) -> list[tuple[str, str]]:
    return [(fact.reason, fact.detail) for fact in made.of(LinkRefused)]


@pytest.mark.parametrize("shown", ["", "plc-7"])
def test_a_certificate_is_given(shown: str) -> None:
    """One frame, and the connection is closed; it is nobody's failure and nothing is left of it."""
    pending = Desk()
    made = world(pending, shown=shown)
    recorder = stranger(made, encode_frame(Command.ENROLL, 0, ENROLL))
    (answer,) = frames(recorder.data)
    assert (answer.command, answer.channel, answer.payload) == (Command.CERTIFICATE, 0, ANSWER)
    assert recorder.lost is not None
    ((payload, who, source),) = pending.asked
    assert (payload, who) == (ENROLL, PeerCertificate("plc-7", "ab" * 32, 0.0) if shown else None)
    assert source == "203.0.113.9"
    assert refusals(made) == []
    made.finish()


def test_a_certificate_that_has_ended_gets_another_and_nothing_else() -> None:
    """No link, no data socket; whoever has it is told so by a word of its own, and why."""
    text = "its certificate expired on 1970-01-01 and may be renewed, nothing else"
    for first in (encode_frame(Command.LISTEN, 0), encode_frame(Command.ATTACH, 0, bytes(16))):
        made = world(Desk(), shown="plc-7", late=True)
        (answer,) = frames(stranger(made, first).data)
        assert (answer.command, decode_goaway(answer.payload)) == (
            Command.GOAWAY,
            (GoAway.EXPIRED, 0, text, ""),
        )
        assert refusals(made) == [("certificate", text)]
        made.finish()
    pending = Desk()
    made = world(pending, shown="plc-7", late=True)
    (answer,) = frames(stranger(made, encode_frame(Command.ENROLL, 0, ENROLL)).data)
    assert answer.command == Command.CERTIFICATE
    assert pending.asked[0][1].late
    made.finish()


def test_a_refusal_has_no_text() -> None:
    """GOAWAY denied; our own log has the reason, as a failure of that address."""
    made = world(Desk(refuses=True))
    recorder = stranger(made, encode_frame(Command.ENROLL, 0, ENROLL))
    (answer,) = frames(recorder.data)
    assert answer.command == Command.GOAWAY
    assert decode_goaway(answer.payload) == (GoAway.DENIED, 0, "", "")
    assert recorder.lost is not None
    assert refusals(made) == [("denied", "refused: for a reason of ours")]
    made.finish()


def test_where_nothing_issues() -> None:
    """A server without an authority says no as any other."""
    made = world(Desk())
    made.switchboard.admission.issue = World(start=False).switchboard.admission.issue
    recorder = stranger(made, encode_frame(Command.ENROLL, 0, ENROLL))
    assert [frame.command for frame in frames(recorder.data)] == [Command.GOAWAY]
    assert refusals(made) == [("denied", "certificates are not made here")]
    made.finish()


def test_not_in_plain() -> None:
    """A secret on a plain link is not even read."""
    pending = Desk()
    made = world(pending, tls=False)
    recorder = stranger(made, encode_frame(Command.ENROLL, 0, ENROLL))
    assert (bytes(recorder.data), pending.asked) == (b"", [])
    assert refusals(made) == [("protocol", "the first frame is not LISTEN")]
    made.finish()


@pytest.mark.parametrize(
    "said",
    [encode_header(MAX_ENROLL + 1, Command.ENROLL, 0), encode_header(20, Command.ENROLL, 1)],
    ids=["too long", "on a channel"],
)
def test_judged_by_its_header(said: bytes) -> None:
    """Nothing large is waited for from a stranger."""
    pending = Desk()
    made = world(pending)
    recorder = stranger(made, said)
    assert recorder.lost is not None
    assert (pending.asked, [reason for reason, _ in refusals(made)]) == ([], ["protocol"])
    made.finish()


def test_only_as_the_first_frame() -> None:
    """Behind LISTEN it is too late."""
    pending = Desk()
    made = world(pending)
    recorder = stranger(made, LISTEN + encode_frame(Command.ENROLL, 0, ENROLL))
    assert recorder.lost is not None
    assert pending.asked == []
    made.finish()


@pytest.mark.parametrize(
    "said", [LISTEN, encode_frame(Command.ATTACH, 0, bytes(16))], ids=["LISTEN", "ATTACH"]
)
def test_without_a_certificate_there_is_nothing_else(said: bytes) -> None:
    """Where links need one, TLS lets in who has none, for enrolment: told so, and counted."""
    made = world(Desk(), certified_only=True)
    recorder = stranger(made, said)
    (answer,) = frames(recorder.data)
    assert decode_goaway(answer.payload) == (GoAway.DENIED, 0, "no certificate", "")
    assert refusals(made) == [("certificate", "no certificate")]
    made.finish()


def test_with_a_certificate_it_is_a_link() -> None:
    """The same listener, the same first frame."""
    made = world(Desk(), shown="plc-1", certified_only=True)
    recorder = stranger(made, LISTEN)
    assert [frame.command for frame in frames(recorder.data)] == [Command.HELLO]
    made.advance(30.0)
    made.finish()


def test_silence_is_over_after_10_s() -> None:
    """A stranger who begins ENROLL and stops holds nothing."""
    made = world(Desk(), certified_only=True)
    recorder = stranger(made, encode_frame(Command.ENROLL, 0, ENROLL)[:20])
    made.advance(9.9)
    assert recorder.lost is None
    made.advance(0.2)
    assert recorder.lost is not None
    made.finish()
