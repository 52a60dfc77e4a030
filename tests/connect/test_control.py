"""The program's side of /control: answers, refusals, ends, and servers that say nonsense."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.connect.addressing import ServerAddress
from revtunnel.connect.control import Control, open_control
from revtunnel.connect.dialling import DialWay
from revtunnel.connect.outcomes import CONFIG, DENIED, TRY_AGAIN, UNREACHABLE, Stop
from tests.support.epoll import Loop
from tests.support.gate import TOKEN, Gate


@pytest.fixture
def gate(loop: Loop) -> Iterator[Gate]:
    gate = Gate(loop, {"plc-7": {"ssh": (22, None)}})
    yield gate
    gate.close()


def opened(gate: Gate, timeout: float = 10.0, token: str = TOKEN) -> Control:
    """A connection."""
    reactor = gate.loop.reactor
    way = DialWay(reactor, ServerAddress("127.0.0.1", gate.port, False), {})
    control: Control = gate.loop.wait(Deferred.fromCoroutine(open_control(reactor, way, token, timeout)))
    return control


def ask(gate: Gate, control: Control, word: str, **arguments: Any) -> Any:
    """The answer."""
    return gate.loop.wait(Deferred.fromCoroutine(control.ask(word, **arguments)))


def closed(gate: Gate, control: Control) -> None:
    """End it, and see it gone."""
    control.close()
    gate.loop.until(lambda: control.socket.over, "the end")


def test_questions_and_answers(gate: Gate) -> None:
    """Also several at once, each with its own."""
    control = opened(gate)
    assert control.user == "ana"
    both = [Deferred.fromCoroutine(control.ask(word)) for word in ("services", "sessions")]
    services, sessions = (gate.loop.wait(each) for each in both)
    assert services["services"][0]["service"] == "ssh"
    assert sessions == {"sessions": []}
    closed(gate, control)
    with pytest.raises(Stop, match="closed"):
        ask(gate, control, "services")


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("denied", DENIED),
        ("muted", DENIED),
        ("unknown", UNREACHABLE),
        ("offline", TRY_AGAIN),
        ("audit", TRY_AGAIN),
    ],
)
def test_refusals(gate: Gate, word: str, status: int) -> None:
    """The server's word decides the status."""
    control = opened(gate)
    gate.refusals["start"] = {"word": word, "why": "for people"}
    with pytest.raises(Stop) as stop:
        ask(gate, control, "start", device="plc-7", services=["ssh"])
    assert (stop.value.status, str(stop.value)) == (status, f"{word}: for people")
    closed(gate, control)


def test_a_wrong_token(gate: Gate) -> None:
    """Is in no sentence."""
    with pytest.raises(Stop, match="401") as stop:
        opened(gate, token="a-wrong-token")
    assert stop.value.status == DENIED
    assert "a-wrong-token" not in str(stop.value)


def test_sixteen_wait_at_most(gate: Gate) -> None:
    """Those who wait are told when it ends; 4001 is a token that was revoked."""
    control = opened(gate)
    gate.answer = lambda asked: None  # type: ignore[method-assign]
    waiting = [Deferred.fromCoroutine(control.ask("sessions")) for _ in range(16)]
    with pytest.raises(Stop, match="wait for an answer"):
        ask(gate, control, "sessions")
    gate.loop.until(lambda: len(gate.asked) == 16)
    gate.controls[-1].socket.close(4001, "revoked")
    for each in waiting:
        with pytest.raises(Stop, match="the token is revoked") as stop:
            gate.loop.wait(each)
        assert stop.value.status == DENIED
    gate.loop.until(lambda: control.socket.over)


def test_no_answer_in_time(gate: Gate) -> None:
    """Is an end with a sentence."""
    control = opened(gate, timeout=0.3)
    gate.answer = lambda asked: None  # type: ignore[method-assign]
    with pytest.raises(Stop, match=r"no answer in 0\.3 s") as stop:
        ask(gate, control, "sessions")
    assert stop.value.status == UNREACHABLE
    closed(gate, control)


def test_no_greeting(gate: Gate) -> None:
    """The connection does not stay."""
    gate.greets = False
    with pytest.raises(Stop, match=r"no answer in 0\.3 s"):
        opened(gate, timeout=0.3)
    gate.loop.until(lambda: gate.controls[-1].socket.over, "the end")


@pytest.mark.parametrize("said", ["{", "[]", "1", '"x"', "[" * 9000, json.dumps({"a": "b" * 20_000})])
def test_nonsense_ends_it(gate: Gate, said: str) -> None:
    """Whatever it is, it is no traceback."""
    control = opened(gate)
    gate.answer = lambda asked: gate.controls[-1].socket.send(said) and None  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(Stop, match="no JSON object"):
        ask(gate, control, "sessions")
    gate.loop.until(lambda: control.socket.over)


def test_what_is_not_asked_for(gate: Gate) -> None:
    """Unasked words are handed on, answers to nothing skipped, odd answers refused."""
    control = opened(gate)
    heard: list[Any] = []
    control.said = heard.append
    gate.controls[-1].socket.send(json.dumps({"say": "news", "x": 1}))
    gate.controls[-1].socket.send(json.dumps({"id": 99, "ok": {}}))
    gate.controls[-1].socket.send(json.dumps({"id": "x", "ok": {}}))
    gate.loop.until(lambda: heard)
    assert heard == [{"say": "news", "x": 1}]
    gate.answer = lambda asked: {"ok": []}  # type: ignore[method-assign]
    with pytest.raises(Stop, match="without ok and error"):
        ask(gate, control, "sessions")
    closed(gate, control)


def test_no_plaintext_to_others(loop: Loop) -> None:
    """Unless the person says so; an authority that cannot be read is a sentence."""
    with pytest.raises(Stop, match="without TLS") as stop:
        DialWay(loop.reactor, ServerAddress("192.0.2.1", 80, False), {})
    assert stop.value.status == CONFIG
    DialWay(loop.reactor, ServerAddress("192.0.2.1", 80, False), {}, plaintext=True)
    with pytest.raises(Stop, match="--ca") as stop:
        DialWay(loop.reactor, ServerAddress("gate.example", 443), {}, ca="/nowhere/ca.pem")
    assert stop.value.status == CONFIG
