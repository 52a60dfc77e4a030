"""What a parent answers its workers: who has a key proves it before anything else is decided."""

from argparse import Namespace
from typing import Any

import pytest

from revtunnel.daemons.worker_answers import Answers
from revtunnel.daemons.worker_links import WorkerLink
from revtunnel.daemons.worker_messages import LinkCame
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import AgentHello, LinkDenied, ServerUp
from revtunnel.link.keys import Verifier, verifier_of

KEY = verifier_of(bytes(32), "plc-7")
WORKER: Any = Namespace()


class Asked:
    """Answers of a board that only writes down whom it admits."""

    def __init__(self, key: Verifier | None = None, why: str = "") -> None:
        self.admitted: list[str] = []
        self.why = why
        board: Any = Namespace(listeners={"main": None, "here": object()}, admit=self._admit)
        unused: Any = None
        self.answers = Answers(unused, board, unused, lambda serial: key)

    def _admit(self, link: Any, up: ServerUp) -> None:
        if self.why:
            raise LinkDenied(GoAway.DENIED, self.why, up.serial)
        self.admitted.append(up.serial)

    def admit(self, proved: bool, listener: str = "here") -> Any:
        up = ServerUp("plc-7", AgentHello("plc-7", bytes(32), ()), proved)
        return self.answers.admit(WORKER, LinkCame(1, listener, "192.0.2.7:5", "192.0.2.7", "", None, up))


@pytest.mark.parametrize(("key", "proved"), [(None, False), (KEY, True), (None, True)])
def test_who_has_no_key_or_has_proved_it_comes_in(key: Verifier | None, proved: bool) -> None:
    """Or has a certificate, which is as good."""
    asked = Asked(key)
    assert isinstance(asked.admit(proved), WorkerLink)
    assert asked.admitted == ["plc-7"]


@pytest.mark.parametrize("listener", ["here", "main"])
def test_who_has_not_proved_a_key_that_he_has_is_not_even_judged(listener: str) -> None:
    """His older link stays, and nothing is said of what is here."""
    asked = Asked(KEY, "no")
    assert asked.admit(False, listener) == KEY
    assert asked.admitted == []


def test_why_somebody_may_not_come_in_is_a_value() -> None:
    """Which the worker raises again."""
    assert Asked(why="it may not").admit(False)[1:3] == ("it may not", "plc-7")
