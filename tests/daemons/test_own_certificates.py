"""A server that runs longer than the certificate that it made itself: there is a new one in time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from revtunnel.daemons.own_authority import public_settings, renew_own
from revtunnel.daemons.own_certificates import DAY, WHAT, OwnCertificates
from revtunnel.daemons.server import Server
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.retries import Retries
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.authority_settings import AuthoritySettings
from tests.support.epoll import Loop, own_reactor


class Looks:
    """A service on a Clock, whose answers a test gives."""

    def __init__(self) -> None:
        self.clock, self.asked, self.taken = Clock(), 0, 0
        self.answer: list[str] = []
        self.fault: Exception | None = None
        self.retries = Retries(self.clock, lambda fact: None, lambda: 0.0)
        self.service = OwnCertificates(self.clock, self.renew, self.take, self.retries)
        self.service.startService()

    def renew(self) -> "Deferred[list[str]]":
        """As the options do."""
        self.asked += 1
        return fail(self.fault) if self.fault is not None else succeed(self.answer)

    def take(self) -> "Deferred[None]":
        """As the server does."""
        self.taken += 1
        return succeed(None)


def test_once_a_day_and_only_a_new_one_is_taken() -> None:
    """For years; nothing after the end."""
    looks = Looks()
    for _ in range(800):
        looks.clock.advance(DAY)
    assert (looks.asked, looks.taken) == (800, 0)
    looks.answer = ["gate.example.pem"]
    looks.clock.advance(DAY)
    assert looks.taken == 1
    looks.service.stopService()
    looks.clock.advance(10 * DAY)
    assert looks.asked == 801


def test_what_cannot_be_made_is_a_problem_and_tried_again_soon() -> None:
    """A full disk today is not the end of the service in a year."""
    looks = Looks()
    looks.fault = SettingsError(["--public: /var: No space left on device"])
    looks.clock.advance(DAY)
    assert WHAT in looks.retries.problems
    looks.fault, looks.answer = None, ["gate.example.pem"]
    looks.clock.advance(60)
    assert (looks.taken, looks.retries.problems) == (1, {})
    looks.clock.advance(DAY)
    assert looks.taken == 2


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A reactor, and its threads."""
    with own_reactor() as loop:
        pool = loop.reactor.getThreadPool()
        pool.start()
        yield loop
        pool.stop()


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    """A command line with --public, on a machine with a state directory in the test's."""
    found = ServerOptions()
    around = {"STATE_DIRECTORY": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path)}
    found.around = Surroundings(around, root=True, home="/", host_name="gate", default_path="/nowhere/r.ini")
    found.parseOptions(["--public", "gate.example", "--listen", "127.0.0.1:0"])
    return found


def test_a_server_shows_the_new_one_to_who_comes_then(loop: Loop, options: ServerOptions) -> None:
    """At its start, without a reload of what was edited beside it."""
    settings = options.settings.authority
    path = Path(str(options.settings.listeners[0].certificate))
    path.unlink()
    public_settings(
        ["gate.example"], settings, datetime.now(UTC) - timedelta(days=0.75 * settings.server_days)
    )
    late = path.read_bytes()
    server = Server(loop.reactor, options, ExitStatus(loop.reactor), Notifier(None))
    server.privilegedStartService()
    old = server._identities.of("main")
    server.startService()
    loop.until(lambda: server._identities.of("main") is not old)
    new = server._identities.of("main")
    loop.wait(maybeDeferred(server.stopService))

    assert old is not None and new is not None and path.read_bytes() != late
    assert new.credentials.fingerprints != old.credentials.fingerprints


def test_only_what_lies_where_this_authority_puts_it_is_made_anew(tmp_path: Path) -> None:
    """Certificates of others are for others, whatever is in them."""
    settings = AuthoritySettings(directory=str(tmp_path / "a"))
    now = datetime.now(UTC)
    made = public_settings(["gate.example", "10.1.0.1"], settings, now)
    path = Path(made["listener main", "certificate"])
    elsewhere = tmp_path / "gate.example.pem"
    elsewhere.write_bytes(path.read_bytes())
    later = now + timedelta(days=560)

    assert renew_own(settings, [str(path), None, str(elsewhere)], now) == []
    assert renew_own(settings, [str(path), None, str(elsewhere), str(tmp_path / "b.pem")], later) == [
        str(path)
    ]
    assert path.read_bytes() != elsewhere.read_bytes()
    assert renew_own(settings, [str(path)], later) == []
    path.write_text("nonsense")
    with pytest.raises(SettingsError, match=r"gate\.example\.pem"):
        renew_own(settings, [str(path)], later)
