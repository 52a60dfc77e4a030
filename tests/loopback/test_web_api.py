"""The HTTP API and logins of a real server: from the first link to the last word, over TLS and without."""

import json
import re
from typing import Any

import pytest

from tests.support.browsers import Browser
from tests.support.daemons import Lab
from tests.support.desk import ARGON2
from tests.support.services import Echo
from tests.support.throwaway_tls import Issuer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PASSWORD = "correct horse battery staple"


@pytest.mark.skipif(not ARGON2, reason="argon2-cffi is not here")
def test_from_the_first_link_to_a_session_over_tls(lab: Lab) -> None:
    """The first administrator, a device, a second person with a grant, a session, a kick, a logout."""
    issuer = Issuer(lab.directory)
    issued = issuer.server("localhost")
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    web = {"web main": {"address": "127.0.0.1:0", "tls": "yes", **files}}
    with Echo() as echo:
        server, _ = lab.pair(web, echo=echo.target)
        admin = Browser(server, issuer.file)
        link = server.wait_event("first-administrator")["link"]
        word = re.fullmatch(r"https://127\.0\.0\.1:\d+/#first=(.+)", link)
        assert word
        row = {"word": word[1], "user": "root", "password": PASSWORD}
        assert admin.ask("POST", "/first", row)[0] == 200
        assert admin.cookie.startswith("__Host-rt=")
        assert admin.ask("GET", "/")[1].startswith(b"<!doctype html>")
        assert [each["serial"] for each in admin.ask("GET", "/api/v1/devices")[1]["rows"]] == ["plc-7"]
        token = admin.ask("POST", "/api/v1/users", {"user": "ana"})[1]["token"]
        grant = {"holder": "ana", "device": "plc-*", "services": ["echo"]}
        assert admin.ask("POST", "/api/v1/grants", grant)[0] == 200
        ana = Browser(server, issuer.file)
        assert ana.ask("POST", "/login", {"token": token})[0] == 200
        assert ana.ask("GET", "/api/v1/devices")[0] == 403
        started = ana.ask("POST", "/api/v1/my/sessions", {"device": "plc-7", "services": ["echo"]})
        assert started[0] == 200
        assert [each["user"] for each in admin.ask("GET", "/api/v1/sessions?user=ana")[1]["rows"]] == ["ana"]
        assert admin.ask("POST", "/api/v1/devices/plc-7/kick", {"retry_after": 0})[0] == 204
        server.wait_event("admin-command", command="kick", by="root")
        assert admin.ask("POST", "/logout")[0] == 204
        assert admin.ask("GET", "/api/v1/my")[0] == 401
        assert ana.ask("GET", "/api/v1/my")[0] == 200


def test_events_by_token_and_metrics(lab: Lab) -> None:
    """As they happen; a token that is revoked ends them."""
    server = lab.server({"web main": {"address": "127.0.0.1:0"}}).start()
    token = server.control("user", "add", "rita", "--role", "reader")["token"]
    reader = Browser(server)
    bearer = {"Authorization": f"Bearer {token}"}
    connection = reader.open()
    connection.request("GET", "/api/v1/events?event=state,listener-opened,settings-reloaded", headers=bearer)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"

    def event() -> tuple[str, dict[str, Any]]:
        fields: dict[str, str] = {}
        while "event" not in fields:
            fields = {}
            while line := answer.readline().decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return fields["event"], json.loads(fields["data"])

    assert event() == ("hello", {"missed": False})
    server.control("reload")
    assert event()[0] == "settings-reloaded"
    server.control("token", "revoke", "rita")
    assert event() == ("over", {"why": "logged-out"})
    assert answer.read() == b""
    connection.close()
    assert reader.ask("GET", "/health/live")[0] == reader.ask("GET", "/health/ready")[0] == 200
    assert reader.ask("GET", "/metrics")[0] in (401, 404)
