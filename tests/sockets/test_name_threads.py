"""Names have threads of their own, which end with the process."""

import threading
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.sockets import name_threads
from revtunnel.sockets.name_threads import resolve_apart
from revtunnel.sockets.opening import resolve
from tests.support.epoll import own_reactor


def test_a_name_is_resolved_in_a_thread_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon thread, and none of the reactor's pool."""
    seen: list[threading.Thread] = []

    class Seen(name_threads.GAIResolver):
        def __init__(self, *told: Any) -> None:
            def asked(host: str, port: int, *more: Any) -> list[Any]:
                seen.append(threading.current_thread())
                return [(2, 1, 6, "", ("192.0.2.7", port))]

            super().__init__(*told, getaddrinfo=asked)

    monkeypatch.setattr(name_threads, "GAIResolver", Seen)
    with own_reactor() as loop:
        resolve_apart(loop.reactor)
        (found,) = loop.wait(Deferred.fromCoroutine(resolve(loop.reactor, "plc.example", 102)))
        assert (found.host, found.port) == ("192.0.2.7", 102)
        assert loop.reactor.threadpool is None
    assert seen[0].daemon
