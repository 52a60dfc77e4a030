"""Logins by an identity provider that is a process of its own, over real TLS; and in a real browser."""

import http.client
import json
import signal
import ssl
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.chromium import CHROMIUM, Chromium
from tests.support.daemons import Lab, Server
from tests.support.ports import free_ports
from tests.support.throwaway_tls import Issuer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        find_spec("argon2") is None or find_spec("jwt") is None, reason="argon2-cffi or PyJWT is not here"
    ),
]
if find_spec("jwt") is not None:
    from tests.support.identity_provider import CLIENT, SECRET, Running, provider_process


@pytest.fixture
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture
def provider(tmp_path: Path, port: int) -> Iterator["Running"]:
    with provider_process(tmp_path, f"https://127.0.0.1:{port}/oidc/back") as found:
        yield found


@pytest.fixture
def server(lab: Lab, tmp_path: Path, port: int, provider: "Running") -> Server:
    """People come in by TLS, and by the provider; its group plant-3 means one of ours."""
    issued = Issuer(tmp_path).server("127.0.0.1")
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    oidc = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret_file": secret,
        "page": f"https://127.0.0.1:{port}",
        "authority": provider.authority,
        "groups": "plant-3=plant3",
    }
    found: Server = lab.server(
        {"web main": {"address": f"127.0.0.1:{port}", "tls": "yes", **files}, "oidc": oidc}
    ).start()
    found.control("group", "add", "plant3")
    return found


class Browser:
    """Follows where it is sent, as told, and keeps cookies; no redirect but by ``go``."""

    def __init__(self, *authorities: str) -> None:
        self.context = ssl.create_default_context()
        for each in authorities:
            self.context.load_verify_locations(each)
        self.cookies: dict[str, str] = {}

    def get(self, url: str) -> http.client.HTTPResponse:
        """One request."""
        at = urlsplit(url)
        connection = http.client.HTTPSConnection(at.netloc, timeout=20, context=self.context)
        said = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request("GET", f"{at.path}?{at.query}", headers={"Cookie": said} if said else {})
        answer = connection.getresponse()
        for each in answer.headers.get_all("Set-Cookie", []):
            name, _, value = each.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def go(self, url: str) -> str:
        """Where it comes to rest."""
        while "#" not in url:
            answer = self.get(url)
            assert answer.status == 303, (url, answer.status, answer.read())
            url = str(answer.headers["Location"])
        return url


def reload(server: Server, **oidc: object) -> None:
    """Other settings of [oidc], which make a provider of which nothing is known."""
    count = len(server.events("settings-reloaded"))
    server.write(oidc=oidc)
    server.signal(signal.SIGHUP)
    server.wait_until(lambda: len(server.events("settings-reloaded")) > count, "the reload")
    assert not server.events("settings-reloaded")[-1]["errors"]


def test_somebody_logs_in_by_the_provider(
    lab: Lab, server: Server, provider: "Running", port: int, tmp_path: Path
) -> None:
    """There and back over TLS; a provider that is not as it should be lets nobody in, and harms nobody."""
    page, authority = f"https://127.0.0.1:{port}", str(tmp_path / "test-authority.pem")
    browser = Browser(authority, provider.authority)
    for alg in ("RS256", "ES256"):
        provider.tell(alg=alg)
        assert browser.go(f"{page}/oidc/login") == f"{page}/#/"
    me = json.loads(browser.get(f"{page}/api/v1/my").read())
    assert (me["user"], me["groups"]) == ("ana@example.com", ["plant3"])

    for manner, why in (
        ({"large": ["/.well-known/openid-configuration"]}, "more than 65536 bytes"),
        ({"silent": ["/keys"]}, "no answer in 1 s"),
        ({"status": {"/.well-known/openid-configuration": 302}}, "it answered 302"),
    ):
        provider.tell(**manner)
        reload(server, wait="1 s", skew=f"{len(server.events('oidc-failed'))} s")
        assert browser.go(f"{page}/oidc/login") == f"{page}/#oidc=unreachable"
        assert why in server.events("oidc-failed")[-1]["detail"]
    provider.tell()
    reload(server, wait="10 s", authority=authority)  # who did not sign its certificate
    assert browser.go(f"{page}/oidc/login") == f"{page}/#oidc=unreachable"
    assert "certificate verify failed" in server.events("oidc-failed")[-1]["detail"]
    reload(server, authority=provider.authority)
    server.kill()
    server.start()
    assert json.loads(browser.get(f"{page}/api/v1/my").read())["user"] == "ana@example.com"
    provider.tell(claims={"sub": "another"})  # who has that mail address now
    assert browser.go(f"{page}/oidc/login") == f"{page}/#oidc=denied"
    provider.tell()
    assert browser.go(f"{page}/oidc/login") == f"{page}/#/"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_the_button_in_a_browser(server: Server, provider: "Running", port: int, tmp_path: Path) -> None:
    """The provider is another site: cookies and headers are what a browser makes of that."""
    with Chromium(tmp_path) as browser:
        page = browser.page(f"https://127.0.0.1:{port}/")
        provider.tell(claims={"groups": []})
        page.wait("a.button", "Log in by the company")
        page.screenshot(tmp_path / "button.png")
        page.click("Log in by the company")
        page.wait("p.wrong", "may nothing here")
        provider.tell()
        page.click("Log in by the company")
        page.wait("h1", "Devices")
        page.wait("header .who", "ana@example.com")
        assert page.problems == []
        page.click("Log out")
        page.wait("a.button", "Log in by the company")
