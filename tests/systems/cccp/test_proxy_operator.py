"""What callers of CCCP may do at once, while it drains, and what a restart finds of it; over memory."""

from typing import Any

import pytest
from twisted.python.failure import Failure

from revtunnel.ground.limits import CccpLimits
from revtunnel.ground.networks import network_of
from revtunnel.process.admin.refusals import Busy
from revtunnel.systems.cccp.cccp_store import Kept
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.systems.cccp.test_http_api import Door

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
