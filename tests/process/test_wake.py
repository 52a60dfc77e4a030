"""The wake driver by a POST: dialled as all the rest is, by address and by name."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from revtunnel.ground.facts import WakeEnded
from revtunnel.process.wake import WakeDriver, WakeFailed
from revtunnel.process.wake_settings import WakeRules
from tests.support.epoll import Loop, Names, own_reactor


@pytest.fixture
def loop() -> Iterator[Loop]:
    with own_reactor() as loop:
        loop.reactor.installNameResolver(Names(waker=["127.0.0.1"]))
        yield loop


@pytest.fixture
def waker() -> Iterator[Any]:
    """A server that keeps what it is told."""
    told: list[bytes] = []

    class Waker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204 if self.path == "/wake" else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = HTTPServer(("127.0.0.1", 0), Waker)
    server.told = told
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def wake(loop: Loop, url: str, facts: list[Any]) -> Any:
    """What comes of it."""
    rules = WakeRules(url=url)
    return loop.wait(WakeDriver(loop.reactor, lambda serial: rules, facts.append).wake("CLD-1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "waker"])
def test_a_post_wakes_a_device(loop: Loop, waker: Any, host: str) -> None:
    """By address and by name; any answer but 2xx is a failure."""
    facts: list[WakeEnded] = []
    url = f"http://{host}:{waker.server_port}"
    wake(loop, f"{url}/wake", facts)
    assert waker.told == [b'{"serial": "CLD-1"}']
    with pytest.raises(WakeFailed, match="it answered 500"):
        wake(loop, f"{url}/other", facts)
    assert [fact.outcome for fact in facts] == ["done", "failed"]


def test_nobody_is_there(loop: Loop) -> None:
    """Said in words."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(WakeFailed, match="refused"):
        wake(loop, f"http://127.0.0.1:{port}/wake", [])
