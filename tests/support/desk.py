"""The HTTP API of a server in memory: the real operator, people and sessions of ``SessionRoom`` behind it.

::

    desk = Desk()
    admin = desk.person("root", "admin")             # a token
    answer = desk.ask("GET", "/api/v1/devices", admin)
    assert (answer.status, answer.row["rows"][0]["serial"]) == (200, "plc-1")
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from revtunnel.daemons.web_people import WebPeople
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import network_of
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import API, PAGE, WebRules
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.user_tokens import write_user_token
from tests.support.session_room import SessionRoom

__all__ = ["ARGON2", "Answer", "Caller", "Desk"]

ARGON2 = find_spec("argon2") is not None


class Answer(NamedTuple):
    """One answer, read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def row(self) -> Any:
        """The JSON of its body."""
        return json.loads(self.body)

    @property
    def word(self) -> str:
        """Of a problem, which is whole."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.row["status"] == self.status
        return str(self.row["error"])


class Caller(StringTransport):
    """The other end of a connection."""

    aborted = False

    def abortConnection(self) -> None:
        """Cut."""
        self.aborted = True
        self.loseConnection()


class _AtOnce:
    """Threads whose work is done before anybody waits for it."""

    def callInThreadWithCallback(self, told: Callable[..., None], work: Callable[[], Any]) -> None:
        """As a thread pool's."""
        told(True, work())


class Desk(SessionRoom):
    """The room, with a web listener that has an API, and a page where argon2 is."""

    def __init__(self, parts: frozenset[str] | None = None, pays: bool = False, **options: Any) -> None:
        """``pays``: whoever fails has a penalty."""
        super().__init__(**options)
        reactor: Any = self.reactor
        reactor.getThreadPool = _AtOnce
        reactor.callFromThread = lambda call, *given: call(*given)
        board = self.switchboard
        if not pays:
            board.access.penalties.exempt = (network_of("192.0.2.0/24"),)
        self.listener = WebListener(reactor, ServerLimits, board.access, board.report)
        have = {API, PAGE} if ARGON2 else {API}
        self.rules = WebRules(
            "main", frozenset({"gate.example"}), parts=frozenset(have) if parts is None else parts
        )
        self.listener.rules["main"] = self.rules
        self.web = WebPeople(
            *(reactor, SimpleNamespace(name="gate"), board, self.operator, self.live, self.listener),
            *(self.people, self.ledger, self.audit, self.random_bytes, self.wall_clock),
        )
        self.web.take(self.rules.parts, OidcSettings())
        if self.web.logins is not None:
            from argon2 import PasswordHasher

            self.web.logins._hashing._hasher = PasswordHasher(1, 8, 1)

    last: Any = None  # the channel of the last request

    def person(self, name: str, role: str = "", scope: str = "") -> str:
        """A user's token; he is made if he is not there."""
        if not self.people.knows(name):
            self.people.add_user(name, "", self.wall_clock(), role)
        secret = self.random_bytes(32)
        self.people.new_token(name, secret, "", self.wall_clock(), 86_400.0, scope)
        return write_user_token(secret)

    def open(self, method: str, path: str, *lines: str, body: bytes = b"", peer: str = "") -> Caller:
        """A request, whole; what was written comes to the answer's ``value``."""
        self.last = channel = self.listener.pages.channel()
        channel.rules, channel.came_from = self.rules, peer or "192.0.2.7:4711"
        caller = Caller()
        channel.makeConnection(caller)
        head = [f"{method} {path} HTTP/1.1", "Host: gate.example", *lines]
        channel.dataReceived("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        return caller

    def ask(
        self, method: str, path: str, token: str = "", row: Any = None, *lines: str, **more: Any
    ) -> Answer:
        """One request and its answer; ``row``: its body."""
        said = [*lines]
        if token:
            said.append(f"Authorization: Bearer {token}")
        body = b""
        if row is not None:
            body = row if isinstance(row, bytes) else json.dumps(row).encode()
            said += [f"Content-Length: {len(body)}"]
            said += (
                []
                if any(each.startswith("Content-Type") for each in lines)
                else ["Content-Type: application/json"]
            )
        answer = self.read(self.open(method, path, *said, body=body, **more))
        self.hang_up()
        return answer

    def hang_up(self) -> None:
        """The last caller does."""
        self.last.connectionLost(Failure(ConnectionDone()))

    def read(self, caller: Caller) -> Answer:
        """What was written to somebody."""
        self.pump()
        head, _, body = caller.value().partition(b"\r\n\r\n")
        assert head, "no answer"
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Answer(int(first.split()[1]), headers, body)
