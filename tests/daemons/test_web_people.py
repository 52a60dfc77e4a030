"""What web listeners have for people: by which settings, what that needs, and that nothing comes without."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from revtunnel.daemons import web_system
from revtunnel.daemons.web_system import check_packages, web_rules
from revtunnel.ground.errors import SettingsError
from revtunnel.process.web.web_rules import API, METRICS, OPEN_METRICS, PAGE
from revtunnel.systems.sessions.session_settings import WebSettings
from revtunnel.trust.identities import Identities
from revtunnel.trust.oidc_settings import OidcSettings
from tests.support.desk import ARGON2, Desk

PROMETHEUS = find_spec("prometheus_client") is not None
HERE = (("127.0.0.1", 0),)
WIDE = (("0.0.0.0", 2443),)


def parts(here: bool = True, **settings: Any) -> set[str]:
    """Of one listener without TLS."""
    address = HERE if here else WIDE
    each = WebSettings(name="main", address=address, allow_plaintext=True, **settings)
    check_packages((each,))
    return set(web_rules((each,), Identities(section="web").read((each,)))["main"].parts)


def test_what_is_there_as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """All on loopback, nothing for other machines without TLS; what is not installed is not there."""
    monkeypatch.setattr(web_system, "find_spec", lambda name: object())
    assert parts() == {"api", "page", "metrics"}
    assert parts(here=False) == set()
    assert parts(here=False, api="yes") == {"api"}
    assert parts(api="no", metrics="no") == {"page", "api"}
    assert parts(api="no", page="no", metrics="no") == set()
    assert parts(page="no", metrics="open", metrics_devices=True) == {
        "api", "metrics", "open-metrics", "device-metrics"
    }  # fmt: skip
    monkeypatch.setattr(web_system, "find_spec", lambda name: None)
    assert parts() == {"api"}
    with pytest.raises(SettingsError) as caught:
        parts(page="yes", metrics="token")
    assert caught.value.errors == [
        "[web main] page: package argon2 is not here: pip install 'revtunnel[web]'",
        "[web main] metrics: package prometheus_client is not here: pip install 'revtunnel[web]'",
    ]


def test_a_server_without_a_web_listener_imports_nothing_of_it(tmp_path: Path) -> None:
    """Neither twisted.web nor what comes with the extra, nor our own part of it."""
    program = f"""
import sys
from revtunnel.daemons.server import Server, Options
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from twisted.internet import reactor
from pathlib import Path
Path({str(tmp_path)!r}, "x.ini").write_text(
    "[server]\\nstate_directory = {tmp_path}\\n[listener main]\\naddress = 127.0.0.1:0\\n"
    "[admin]\\nsocket = {tmp_path}/admin.sock\\n[pool default]\\nranges = 20000\\n")
options = Options()
options.parseOptions(["--config", {str(tmp_path / "x.ini")!r}])
server = Server(reactor, options, ExitStatus(reactor), Notifier.from_environment({{}}, 0))
server.privilegedStartService()
found = [name for name in sys.modules if name.startswith(("twisted.web", "argon2", "prometheus_client"))]
found += [name for name in sys.modules if name.startswith("revtunnel.") and (
    name.rpartition(".")[2] in ("web_people", "web_metrics", "web_system", "login_routes", "login_secrets",
    "account_operator", "person_operator", "api", "page_files"))]
print(found)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.skipif(not ARGON2, reason="argon2-cffi is not here")
def test_the_first_link_is_offered_while_nobody_is_known() -> None:
    """Not where there are people; its place is the listener's own."""
    desk = Desk()
    assert desk.web.logins is not None
    desk.web.offer_first("https://gate.example:2443")
    assert desk.web.logins.first == ""
    desk.web.stop()
    for name in ("ana", "ben"):
        desk.people.remove_user(name)
    desk.web.offer_first("https://gate.example:2443")
    assert desk.web.logins.first
    desk.web.stop()


def test_what_a_reload_brings_is_there_and_stays() -> None:
    """A listener's API first, then its page and its metrics; asked for again it is not made anew."""
    desk = Desk(frozenset({API}))
    assert desk.ask("GET", "/metrics").status == desk.ask("GET", "/").status == 404
    wanted = frozenset({API, *((PAGE,) if ARGON2 else ()), *((METRICS, OPEN_METRICS) if PROMETHEUS else ())})
    desk.rules = replace(desk.rules, parts=wanted)
    for _ in range(2):
        desk.web.take(wanted, OidcSettings())
    assert desk.ask("GET", "/metrics").status == (200 if PROMETHEUS else 404)
    assert desk.ask("GET", "/").status == (200 if ARGON2 else 404)
    desk.rules = replace(desk.rules, parts=frozenset())
    assert desk.ask("GET", "/").status == desk.ask("GET", "/api/").status == 404
