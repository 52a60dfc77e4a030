"""What callers of CCCP may do at once, while it drains, and what a restart finds of it; over memory."""

from dataclasses import replace
from typing import Any

import pytest
from twisted.python.failure import Failure

from revtunnel.ground.limits import CccpLimits
from revtunnel.ground.networks import network_of
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.refusals import Busy
from revtunnel.systems.cccp.cccp_store import Kept
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.systems.cccp.test_http_api import OPEN, Door

LIMITS = CccpLimits()
OPTIONS = ProxyOptions(True, (network_of("10.0.0.0/8"),), 60.0, "")


def waiting(door: Door, serial: str, answers: list[Any]) -> None:
    """A caller who waits for a device."""
    door.operator.on(OnCall(serial, wait=30.0)).addBoth(answers.append)  # type: ignore[union-attr]


def test_only_so_many_callers_wait() -> None:
    """The next one is told so, and nothing was started for him."""
    door, answers = Door(), []  # type: tuple[Door, list[Any]]
    for _ in range(LIMITS.waiting):
        waiting(door, "CLD-1", answers)
    with pytest.raises(Busy, match="too many callers"):
        door.operator.on(OnCall("CLD-2", wait=30.0))
    assert (answers, len(door.proxies)) == ([], 1)
    door.operator.on(OnCall("CLD-2"))
    door.operator.device_came("CLD-1")
    assert answers == [21000] * LIMITS.waiting
    waiting(door, "CLD-3", answers)


def test_a_wake_that_failed_is_tried_again_while_somebody_waits() -> None:
    """Once for all who wait; whoever waited in vain is told why it failed."""
    door, answers = Door(part=replace(OPEN, wake_command="/bin/sh wake")), []  # type: tuple[Door, list[Any]]
    retries = door.operator.retries = Retries(door.reactor, door.facts.append, lambda: 0.0)
    programs = door.reactor.programs
    waiting(door, "CLD-1", answers)
    programs[0].end(1, b"no such number\n")
    assert answers == []
    (problem,) = retries.problems.items()
    assert problem[0] == "waking CLD-1" and "no such number" in problem[1]
    door.reactor.advance(2.0)
    waiting(door, "CLD-1", answers)
    assert len(programs) == 3
    programs[1].end(0)
    programs[2].end(0)
    assert retries.problems == {}
    door.operator.device_came("CLD-1")
    assert answers == [21000] * 2
    waiting(door, "CLD-2", answers)
    programs[3].end(1, b"busy\n")
    for _ in range(30):
        door.reactor.advance(1.0)
        if len(programs) > 4 and not programs[-1].ended:
            programs[-1].end(1, b"still busy\n")
    (answer,) = answers[2:]
    assert isinstance(answer, Failure) and "still busy" in answer.getErrorMessage()
    assert len(programs) == 4 + 3  # after 2, 6 and 14 seconds
    assert retries.problems == {} and len(door.proxies) == 1
    door.reactor.advance(60.0)


def test_nobody_waits_for_a_daemon_that_drains() -> None:
    """Whoever waits is answered, whoever comes is refused, and no port is opened for either any more."""
    door, answers = Door(), []  # type: tuple[Door, list[Any]]
    waiting(door, "CLD-1", answers)
    door.operator.drain()
    (answer,) = answers
    assert isinstance(answer, Failure) and answer.check(Busy)
    for call in (OnCall("CLD-2"), OnCall("CLD-2", wait=30.0)):
        with pytest.raises(Busy, match="stopping"):
            door.operator.on(call)
    assert len(door.proxies) == 0
    door.reactor.advance(60.0)


def test_what_a_restart_finds() -> None:
    """A session with all that was said of it, its whitelist first of all; none that has ended."""
    door = Door()
    for serial in ("CLD-1", "CLD-2"):
        door.operator.on(OnCall(serial, OPTIONS))
    door.operator.off("CLD-2")
    assert [*door.book.load()] == [Kept("CLD-1", "main", 21000, OPTIONS)]
    door.proxies.stop()
    assert [kept.serial for kept in door.book.load()] == ["CLD-1"]
