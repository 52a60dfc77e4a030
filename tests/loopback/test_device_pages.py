"""Web pages of devices behind a real server and agent: what goes through, what does not, and when it ends."""

import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.chromium import CHROMIUM, Chromium
from tests.support.daemons import Server, laboratory
from tests.support.device_page import BLOB, MIB, DevicePage
from tests.support.page_visitor import Opened, Visitor
from tests.support.ports import free_ports, port_block
from tests.support.services import digest_of
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(find_spec("h11") is None, reason="h11 is not here: no page of a device is served"),
]
COOKIE = "__Host-Http-rt-page"


class World(NamedTuple):
    """A server with pages below a name, and at two ports of another listener; a device with its pages."""

    server: Server
    device: DevicePage
    low: int  # of the ports
    other: int  # where the other listener is

    def visitor(self, name: str, port: int = 0) -> Visitor:
        """Somebody who may everything."""
        return Visitor(self.server, name, ("plc-7", "*"), port=port)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("pages")
    low, _, high = port_block(2).partition("-")
    other, main = free_ports(2)
    issued = Issuer(directory).server("device.example")  # whom this machine does not know
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    names = {"address": f"127.0.0.1:{main}", "device_names": "pages.localhost", "hosts": "gate.localhost"}
    ports = {
        "address": f"127.0.0.1:{other}",
        "device_ports": f"{low}-{high}",
        "device_host": "devices.localhost",
    }
    record = {"web": "any=https-any, ui=http"}
    about = {
        "web other": ports,
        "web main": names,
        "device plc-7": record,
        "limits": {"pending_per_source": 200},
    }
    with laboratory(directory) as lab, DevicePage() as device, DevicePage(context) as secured:
        offers = {"web": device.target, "ui": device.target, "ssh": "127.0.0.1:22"}
        server, _ = lab.pair(about, **offers, https=secured.target, any=secured.target)
        assert server.web_port == main
        yield World(server, device, int(low), other)


def websocket(page: Opened, origin: str = "", cookie: str | None = None) -> ClientConnection:
    """To the device's page."""
    headers = {"Cookie": page.cookie if cookie is None else cookie}
    sock = socket.create_connection(("127.0.0.1", page.port), 20)
    about: dict[str, Any] = {"additional_headers": headers, "compression": None, "proxy": None}
    if origin:
        about["origin"] = origin
    return connect(f"ws://{page.host}/ws", sock=sock, **about)


def fields(page: Opened, **more: str) -> list[list[str]]:
    """What the device was told."""
    found: list[list[str]] = json.loads(page.read("GET", "/fields", **more)[1])
    return found


def test_a_page_as_it_is(world: World) -> None:
    """Bodies of every form both ways, ranges, events, upgrades, cookies; on connections that are kept."""
    server, device = world.server, world.device
    page = world.visitor("ana").open()
    assert page.entered.status == 200 and b'url=/"' in page.entered.read()
    assert page.cookie.startswith(f"{COOKIE}=")
    assert page.attributes == " Path=/; HttpOnly; Secure; SameSite=Strict"
    kept = page.connection()
    assert page.read("GET", "/", on=kept)[1].startswith(b"<!doctype html>")
    answer = page.ask("POST", "/login", b"user=op", on=kept)
    answer.read()
    assert (answer.status, answer.getheader("Location")) == (303, "/")
    assert answer.headers.get_all("Set-Cookie") == [
        "sid=secret; Path=/; HttpOnly",
        "seen=op; Path=/; SameSite=Lax",
    ]
    page.cookie += "; sid=secret; seen=op"
    own = f"http://{page.host}"
    more = {
        "Origin": own,
        "Referer": f"{own}/a?b",
        "X__Forwarded__For": "9.9.9.9",
        "Connection": "x-own",
        "X__Own": "1",
    }
    told = dict(fields(page, **more))
    assert told["Host"] == device.target and told["Cookie"] == "sid=secret; seen=op"
    assert (told["Origin"], told["Referer"]) == (f"http://{device.target}", f"http://{device.target}/a?b")
    assert not {"X-Forwarded-For", "Connection", "X-Own"} & told.keys()
    answer = page.ask("GET", "/redirect", on=kept)
    answer.read()
    assert answer.getheader("Location") == f"{own}/fields?a=1#b"
    assert answer.getheader("Refresh") == f"5; url={own}/"

    sent = hashlib.shake_128(b"up").digest(5 * MIB)
    pieces = [sent[at : at + 50_000] for at in range(0, len(sent), 50_000)]
    expected = [len(sent), hashlib.sha256(sent).hexdigest()]
    assert json.loads(page.read("POST", "/digest", sent, on=kept)[1]) == expected
    assert json.loads(page.read("PUT", "/digest", iter(pieces), on=kept)[1]) == expected
    assert device.record.count("connected") == 2  # one for each connection of the browser
    answer = page.ask("HEAD", "/blob", on=kept)
    assert (answer.getheader("Content-Length"), answer.read()) == (str(BLOB), b"")
    assert len(page.read("GET", "/blob", Range="bytes=100-299")[1]) == 200
    assert page.read("GET", "/until-close", on=kept) == (200, b"to the end")
    assert page.read("GET", "/chunked", on=kept) == (200, b"hello world")
    said = page.said(b"GET /chunked HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\nConnection: close\r\n\r\n")
    assert said.lower().endswith(b"0\r\nx-sum: 11\r\n\r\n")
    request = (
        b"POST /digest HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    with page.raw(request) as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"ok")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    two = b"GET /no HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n\r\n" * 2
    assert (
        page.said(two + two.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(b"no such thing")
        == 3
    )

    with websocket(page, own) as web:
        web.send("hello")
        assert web.recv(timeout=20) == "HELLO"
        web.send("x" * 300_000)
        assert web.recv(timeout=20) == "X" * 300_000
    device.record.wait("socket over")
    asks = (
        b"GET /shout HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nearly "
    )
    with page.raw(asks) as sock:
        heard = sock.recv(1000)
        sock.sendall(b"and late")
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(1000):
            heard += piece
    assert heard.endswith(b"\r\n\r\nLOUD EARLY AND LATEOVER")
    server.control("session", "end", page.session)
    ended = server.wait_event("session-ended", session=page.session)
    assert ended["reason"] == "operator" and ended["bytes_to_device"] > 10 * MIB
    assert page.read("GET", "/")[0] == 401


def test_large_things_flow_and_stop(world: World) -> None:
    """50 MiB are exact; who does not read stops the device; events come one by one; leaving is noticed."""
    device = world.device
    page = world.visitor("ben").open()
    answer = page.ask("GET", "/blob")
    device.record.wait("sent", 1)
    seen = -1

    def stands() -> bool:
        nonlocal seen
        before, seen = seen, device.record.count("sent")
        return before == seen

    wait_until(stands, "a device that waits", every=0.3)
    assert device.record.count("sent") < 600  # of 800 pieces: what kernels and windows hold
    digest = hashlib.sha256()
    while data := answer.read(MIB):
        digest.update(data)
    assert digest.hexdigest() == digest_of(BLOB)
    answer = page.ask("GET", "/events?ben")
    for number in (1, 2, 3):
        device.go("/events?ben")
        assert (answer.readline(), answer.readline()) == (b"data: %d\n" % number, b"\n")
    with page.raw(b"GET /hang?ben HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n\r\n"):
        device.record.wait("asked", "GET", "/hang?ben")
    device.record.wait("hung up", "/hang?ben")


BAD = {
    "/large-head": 502,
    "/two-lengths": 502,
    "/split": 502,
    "/no-http": 502,
    "/nothing-of-it": 404,
}


def test_what_a_device_tries(world: World) -> None:
    """It sets none of our cookies, no policy for others, no two messages for one; a cut stays a cut."""
    device = world.device
    page = world.visitor("cat").open()
    answer = page.ask("GET", "/toss")
    assert answer.headers.get_all("Set-Cookie") == [
        "rt-page=evil; Path=/; Secure",
        "good=evil; Path=/; Secure",
        "a=1",
    ]
    names = {name.lower() for name in answer.headers}
    assert not {"strict-transport-security", "clear-site-data", "alt-svc"} & names
    assert (answer.getheader("Content-Security-Policy"), answer.getheader("X-Html")) == (
        "default-src 'self'",
        "<b>&",
    )
    for path, status in BAD.items():
        assert page.read("GET", path)[0] == status, path
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        page.read("GET", "/short")
    answer = page.ask("GET", "/cut")
    assert answer.read(1000) == b"x" * 1000
    device.go("/cut")
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        answer.read()
    assert page.read("GET", "/")[0] == 200


def test_who_is_not_let_in(world: World) -> None:
    """No cookie, a word twice or elsewhere, pages of elsewhere, two lengths: nothing of it gets there."""
    server, device = world.server, world.device
    ana, ben = world.visitor("dan"), world.visitor("eve")
    page, other = ana.open(), ana.open(service="ui")
    assert ana.api("POST", f"/my/sessions/{ana.session('plc-7', 'ssh')}/page", {"service": "ssh"})[0] == 409
    assert ana.api("POST", f"/my/sessions/{page.session}/page", {"service": "ui"})[0] == 404
    assert ben.api("POST", f"/my/sessions/{page.session}/page", {"service": "web"})[0] == 404
    own = f"http://{page.host}"
    asked = device.record.count("asked")
    cookie, page.cookie = page.cookie, ""
    refusals = [
        page.read("GET", "/"),  # no cookie
        page.read("GET", page.entrance),  # a second time
        page.read("GET", page.entrance.partition("=")[0] + "=" + "A" * 43),
        page.read("POST", page.entrance),
        page.read("GET", "/", Cookie=other.cookie),
        page.read("GET", "/", Cookie=f"{cookie}; {cookie}"),
        page.read("GET", "/", Cookie=cookie, Host=other.host),
        page.read("GET", "/", Cookie=cookie, Host=f"plc-7--x.evil.pages.localhost:{page.port}"),
        page.read("GET", "/", Cookie=cookie, Origin="https://evil.example"),
        page.read("POST", "/", Cookie=cookie, Origin=f"http://{other.host}"),
        page.read("POST", "/", Cookie=cookie, Origin="null"),
        page.read("GET", "/", Cookie=cookie, Sec__Fetch__Site="same-site"),
        page.read("GET", "/", Cookie=cookie, Sec__Fetch__Site="cross-site", Sec__Fetch__Mode="navigate"),
        page.read("TRACE", "/", Cookie=cookie),
    ]
    assert [each[0] for each in refusals] == [
        401,
        401,
        401,
        405,
        401,
        401,
        401,
        421,
        403,
        403,
        403,
        403,
        403,
        405,
    ]
    fresh = ana.url(page.session, "web")
    elsewhere = Opened(page.session, fresh.replace("--web", "--ui"))
    assert elsewhere.entered.status in (403, 404)  # of the same session, but for another page
    assert Opened(page.session, fresh).entered.status == 200  # it was not used up by that
    raw = ana.api("POST", f"/my/sessions/{page.session}/nonce", {"browser": True})[1]["nonce"]
    assert Opened(page.session, fresh.partition("=")[0] + "=" + raw).entered.status == 404
    page.cookie = cookie
    bad = {
        b"Content-Length: 1\r\nTransfer-Encoding: chunked": b"400",
        b"Content-Length: 1\r\nContent-Length: 2": b"400",
        b"Transfer-Encoding: chunked, gzip": b"501",
        b"Transfer-Encoding : chunked": b"400",
        b"Content-Length: +1": b"400",
        b"Connection: content-length, host\r\nContent-Length: x": b"400",
        b"X: " + b"x" * MIB: b"431",
    }
    for line, status in bad.items():
        said = page.said(b"POST /digest HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n" + line + b"\r\n\r\nx0\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 " + status), (line[:40], said[:200])
    absolute = b"GET http://evil/ HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n\r\n"
    assert page.said(absolute).startswith(b"HTTP/1.1 400")
    assert device.record.count("asked") == asked
    for origin in ("https://evil.example", f"http://127.0.0.1:{page.port}"):
        with pytest.raises(InvalidStatus) as refused:
            websocket(page, origin)
        assert refused.value.response.status_code == 403
    assert page.read("GET", "/", Sec__Fetch__Site="same-origin", Origin="null")[0] == 200
    wrong = dict(fields(page, Cookie=f"{cookie}; __Host-rt=login; a=b"))
    assert wrong["Cookie"] == "a=b"
    assert page.read("GET", "/", Host="gate.localhost")[0] in (
        401,
        404,
        200,
    )  # our own page, not the device's
    assert b"Press 7" not in page.read("GET", "/", Host="gate.localhost")[1]
    assert own not in server.control("sessions")["sessions"][0].values()


def test_the_end_of_a_session_cuts_all(world: World) -> None:
    """A grant that is taken away: what runs is cut in the middle, and the cookie opens nothing."""
    server, device = world.server, world.device
    ana = world.visitor("fay")
    page = ana.open()
    answer = page.ask("GET", "/events?fay")
    device.go("/events?fay")
    assert answer.readline() == b"data: 1\n"
    asks = b"GET /hang?fay HTTP/1.1\r\nHost: HOST\r\nCOOKIE\r\n\r\n"
    with websocket(page) as web, page.raw(asks) as hanging:
        device.record.wait("asked", "GET", "/hang?fay")
        server.control("grant", "remove", *ana.grants)
        server.wait_event("session-ended", session=page.session, reason="revoked")
        with pytest.raises(ConnectionClosed) as closed:
            web.recv(timeout=20)
        assert closed.value.rcvd is None
        with pytest.raises(ConnectionResetError):
            hanging.recv(1)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        while True:
            answer.readline() or answer.read()
    device.record.wait("hung up", "/hang?fay")
    assert page.read("GET", "/")[0] == 401


def test_by_ports_and_to_https(world: World) -> None:
    """A port lasts as long as its session; cookies have a prefix; HTTPS has to be who it says, or any."""
    server, low = world.server, world.low
    ana = world.visitor("gus", world.other)
    page = ana.open(service="ui")
    assert page.host == f"devices.localhost:{low}" and page.port != server.web_port
    assert page.cookie.startswith(f"{COOKIE}-{low}=")
    answer = page.ask("POST", "/login", b"")
    answer.read()
    [sid, seen] = answer.headers.get_all("Set-Cookie") or []
    prefix = sid.partition("sid=")[0]
    assert sid == f"{prefix}sid=secret; Path=/; HttpOnly" and len(prefix) == 20
    assert seen == f"{prefix}seen=op; Path=/; SameSite=Lax; HttpOnly"
    said = f"{page.cookie}; {prefix}sid=secret; sid=tossed; rt-0000000000000000-sid=x; __Host-rt=login"
    told = dict(fields(page, Cookie=said))
    assert (told["Cookie"], told["Host"]) == ("sid=secret", world.device.target)
    for host in (f"127.0.0.1:{low}", "devices.localhost", f"devices.localhost:{low + 1}"):
        assert page.read("GET", "/", Host=host)[0] == 421
    assert page.read("GET", "/", Host=page.host)[0] == 200

    refused = ana.open(service="https")
    status, words = refused.read("GET", "/")
    assert status == 502 and b"another authority" in words
    session = ana.session("plc-7", "any")
    busy = ana.api("POST", f"/my/sessions/{session}/page", {"service": "any"})
    assert (busy[0], busy[1]["error"]) == (503, "busy")
    server.control("session", "end", refused.session)
    server.wait_event("session-ended", session=refused.session)
    wait_until(
        lambda: ana.api("POST", f"/my/sessions/{session}/page", {"service": "any"})[0] == 200, "a port"
    )
    secure = Opened(session, ana.url(session, "any"))
    assert secure.host == refused.host
    assert secure.read("GET", "/", Cookie=refused.cookie)[0] == 401
    assert b"Press 7" in secure.read("GET", "/")[1]
    server.control("session", "end", page.session)
    server.wait_event("session-ended", session=page.session)

    wait_until(lambda: not _listens(page.port), "a port that is shut")


TRIES = f"""(async () => {{
  const ours = "{COOKIE}";
  const tried = {{ seen: document.cookie.includes("rt-page") }};
  document.cookie = `${{ours}}=evil; Path=/; Secure`;
  document.cookie = `=${{ours}}=evil; Path=/; Secure`;
  document.cookie = "__Host-rt=evil; Path=/; Secure; Domain=localhost";
  for (const path of ["/api/v1/my", "/health/live"])
    tried[path] = await fetch("GATE" + path, {{ credentials: "include" }}).then(
      () => "read", () => "refused");
  tried.change = await fetch("GATE/logout", {{
    method: "POST", credentials: "include", mode: "no-cors" }}).then(({{ type }}) => type, () => "refused");
  tried.socket = await new Promise((done) => {{
    const web = new WebSocket("GATE/control".replace("http", "ws"), ["revtunnel.control.1"]);
    web.onopen = () => done("open");
    web.onerror = () => done("refused");
  }});
  tried.opener = String(window.opener);
  return tried;
}})()"""
EVICT = f"""for (let each = 0; each < 400; each += 1) document.cookie = `junk${{each}}=1; Path=/; Secure`;
document.cookie = "{COOKIE}=evil; Path=/; Secure"; 1"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.skipif(find_spec("argon2") is None, reason="argon2-cffi is not here: no page is served")
def test_in_a_browser(world: World, tmp_path: Path) -> None:
    """One press opens it in a tab; its script gets at nothing of ours; it ends with its session. A port."""
    hal = world.visitor("hal")
    gate = f"http://127.0.0.1:{hal.port}"
    with Chromium(tmp_path) as browser:
        page = browser.page(gate)
        page.click("Log in by a token")
        page.type("[name=token]", hal.token)
        page.key("Enter")
        page.wait("header .live", "live")
        page.click("plc-7")
        page.wait("h1", "plc-7")
        page.screenshot(tmp_path / "device-services.png")
        page.wait("td button[aria-label='Web page of ui']")  # by its record
        page.resize(360, 740)
        assert page.overflow() <= 0
        page.screenshot(tmp_path / "phone-services.png", whole=True)
        page.resize(1280, 800)
        page.click("Web page of web")
        tab = browser.opened(page)
        tab.wait("h1", "Press 7")
        tab.wait("#socket", "HELLO")
        tab.wait("#user", "no cookie seen")
        own = f"http://plc-7--web.pages.localhost:{hal.port}"
        assert tab.run("location.href") == f"{own}/"  # the word is in no address any more
        tab.click("Log in")
        tab.wait("#user", "seen=op")
        tab.screenshot(tmp_path / "device-page.png")
        assert tab.run(TRIES.replace("GATE", gate)) == {
            "seen": False,
            "/api/v1/my": "refused",
            "/health/live": "refused",
            "change": "opaque",  # asked, and refused there: see below
            "socket": "refused",
            "opener": "null",
        }
        tab.ask("Page.reload")
        tab.wait("#socket", "HELLO")
        cookies = {each["name"]: each for each in tab.ask("Network.getCookies", urls=[own, gate])["cookies"]}
        assert {COOKIE, "__Host-rt", "sid", "seen"} == cookies.keys()
        assert "evil" not in {each["value"] for each in cookies.values()}
        page.ask("Page.bringToFront")  # one behind another does not look
        page.click("Sessions")
        page.wait("td", "plc-7")  # it is logged in as before
        page.wait("td", "hal")
        page.screenshot(tmp_path / "device-session.png")
        assert page.run("fetch('/api/v1/my').then(({status}) => status)") == 200
        page.click("End the session to plc-7")
        page.key("Tab")
        page.click("End session")
        world.server.wait_event("session-ended", user="hal")
        tab.ask("Page.reload")
        tab.wait("h1", "Not let in")
        tab.wait("p", "Open web of plc-7 from the page of the server")
        tab.screenshot(tmp_path / "device-page-over.png")
        tab.run(EVICT)  # whatever a script throws out of the jar, it puts nothing there in our name
        assert "evil" not in {each["value"] for each in tab.ask("Network.getCookies", urls=[own])["cookies"]}
        _at_a_port(world, browser)
        _by_a_link(world, browser)


def _by_a_link(world: World, browser: Chromium) -> None:
    """A guest, logged in nowhere, sees the page of somebody's session until his link is taken back."""
    kim, lee = world.visitor("kim"), world.visitor("lee")
    session = kim.session("plc-7", "web")
    link = world.server.control("session", "share", session, "--with", lee.name, "--use")
    guest = browser.page(
        f"http://127.0.0.1:{kim.port}/page/share.html#{link['session']}/{link['nonce']}", apart=True
    )
    guest.click("Web page of web")
    guest.wait("h1", "Press 7")
    guest.wait("#socket", "HELLO")
    world.server.control("session", "unshare", session, lee.name)
    guest.ask("Page.reload")
    guest.wait("h1", "Not let in")


def _at_a_port(world: World, browser: Chromium) -> None:
    """Its cookies are not for scripts, whose own do not go on, and no worker of it stays."""
    ivy = world.visitor("ivy", world.other)
    tab = browser.page(ivy.url(ivy.session("plc-7", "ui"), "ui"), apart=True)
    tab.wait("#socket", "HELLO")
    tab.click("Log in")
    tab.wait("#socket", "HELLO")
    tab.wait("#user", "no cookie seen")
    told = tab.run("document.cookie = 'mine=1'; fetch('/fields').then((answer) => answer.json())")
    assert dict(told)["Cookie"] in ("sid=secret; seen=op", "seen=op; sid=secret")
    asked = world.device.record.count("asked", "GET", "/script")
    worker = "navigator.serviceWorker.register('/script').then(() => 'stays', (error) => error.name)"
    assert tab.run(worker) in ("TypeError", "SecurityError")
    assert world.device.record.count("asked", "GET", "/script") == asked


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
