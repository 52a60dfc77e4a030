"""The page for people in a real browser, at a real server with real links: found, seen, done, and not done.

Pictures of what showed are in the directory of each test, ``*.png``: look at them.
"""

import base64
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from tests.support.axe_core import faults
from tests.support.chromium import CHROMIUM, Chromium, Page
from tests.support.daemons import Agent, Lab, Server
from tests.support.ports import port_block
from tests.support.services import Echo, Service
from tests.support.sshd import CAN_SSHD, PasswordSshd
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import wait_until
from tests.support.web_people import Person

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
    pytest.mark.skipif(find_spec("argon2") is None, reason="argon2-cffi is not here: no page is served"),
]
MANY = 300
MARKUP = "<img src=x onerror=document.title='cut'>"
PASSWORD = "correct horse battery staple "  # the blank belongs to it
PHONE = 360, 740
DIALOG = "dialog:last-of-type"


class Telnet(Service):
    """Echoes by itself, as its negotiation says, and greets in colour."""

    def serve(self, sock: socket.socket, number: int) -> None:
        """One client: its answers to the negotiation come first."""
        self.send(sock, b"\xff\xfb\x01\xff\xfb\x03\x1b[31mmachine\x1b[0m\r\n> ")
        answers = b""
        while len(answers) < 6:
            answers += sock.recv(100)
        self.record.add("negotiated", answers[:6], answers[6:])
        while data := sock.recv(4096):
            self.send(sock, data.upper())


class Screen(Service):
    """A VNC server, RFB 3.8 without a password: 64 times 48 red pixels; keys are recorded."""

    sizes: ClassVar = {0: 20, 3: 10, 4: 8, 5: 6}  # of messages, by their first byte

    def serve(self, sock: socket.socket, number: int) -> None:
        """One client."""
        with sock.makefile("rb") as said:
            self.send(sock, b"RFB 003.008\n")
            said.read(12)
            self.send(sock, b"\x01\x01")
            said.read(1)
            self.send(sock, bytes(4))
            said.read(1)
            name = b"press"
            form = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0))
            self.send(sock, struct.pack("!HH", 64, 48) + form + struct.pack("!I", len(name)) + name)
            while kind := said.read(1):
                if kind == b"\x02":
                    _, count = struct.unpack("!BH", said.read(3))
                    said.read(4 * count)
                    continue
                rest = said.read(self.sizes[kind[0]] - 1)
                if kind == b"\x03":
                    head = struct.pack("!BBHHHHHi", 0, 0, 1, 0, 0, 64, 48, 0)
                    self.send(sock, head + b"\xff\x00\x00\x00" * 64 * 48)
                elif kind == b"\x04":
                    self.record.add("key", *struct.unpack("!BxxI", rest))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """Without a tab; everybody in it is apart from all of other tests."""
    yield chromium
    chromium.clear()


@pytest.fixture
def server(lab: Lab) -> Server:
    """With a web listener, and device plc-7 that has labels."""
    about = {"web main": {"address": "127.0.0.1:0"}, "device plc-7": {"labels": "line=3"}}
    found: Server = lab.server(
        about | {"limits": {"pending_per_source": 500}, "pool default": {"ranges": port_block(400)}}
    ).start()
    return found


@pytest.fixture
def herd(server: Server) -> Iterator[None]:
    """Hundreds of devices, whose software is called as nobody would."""
    command = [sys.executable, "-m", "benchmarks.agents", "--port", str(server.port), "--count", str(MANY)]
    command += ["--offer", "ssh=127.0.0.1:22", "--software", MARKUP]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"up")
        yield
    finally:
        process.kill()
        process.communicate()


def home(server: Server, view: str = "") -> str:
    """The address of a view."""
    return f"http://127.0.0.1:{server.web_port}/#/{view}"


def logged_in(browser: Chromium, server: Server, name: str, role: str = "person", **more: int) -> Page:
    """The page of somebody new, by token."""
    token = server.control("user", "add", name, "--role", role)["token"]
    page = browser.page(home(server), apart=True, **more)
    page.click("Log in by a token")
    page.type("[name=token]", token)
    page.key("Enter")
    page.wait("h1", "Devices")
    page.wait("header .live", "live")
    return page


def code(secret: str, ahead: int = 0) -> str:
    """What an authenticator shows, ``ahead`` steps from now."""
    return TOTP(base64.b32decode(secret), 6, SHA1(), 30).generate(time.time() + 30 * ahead).decode()


def sound(page: Page) -> None:
    """No script failed, the policy was not hurt, nothing from elsewhere was asked, no text became markup."""
    assert page.problems == []
    here = re.compile(r"https?://(127\.0\.0\.1|localhost):\d+/|about:blank|data:image/")
    assert [each for each in page.asked if not here.match(each)] == []
    assert page.run("document.querySelectorAll('img, iframe, script:not([src])').length") == 0


def test_first_administrator_and_second_factor(lab: Lab, browser: Chromium, tmp_path: Path) -> None:
    """The link of the log makes an administrator; who has a second factor is asked for its code. Over TLS."""
    issued = Issuer(tmp_path).server("localhost")
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    web = {"address": "127.0.0.1:0", "tls": "yes", "hosts": "localhost", **files}
    server = lab.server({"web main": web}).start()
    page = browser.page(server.wait_event("first-administrator")["link"], apart=True)
    page.wait("p", "you are the administrator then")
    page.type("[name=user]", "ana")
    page.type("[name=password]", PASSWORD)
    page.screenshot(tmp_path / "first.png")
    page.click("Become the administrator")
    page.wait("h1", "Devices")
    page.wait(".nothing", "No device has come yet")
    assert page.run("location.hash") == "#/"  # the word is not in the address any more

    page.click("My account")
    page.click("Second factor")
    address = page.wait_for(f"document.querySelector('{DIALOG} textarea')?.value", "the secret")
    secret = re.search(r"secret=([A-Z2-7]+)", address)[1]  # type: ignore[index]
    page.type(f"{DIALOG} [name=code]", code(secret))
    page.click("Let it count")
    page.wait_gone("dialog")
    page.wait_for("/Second factor\\s*yes/.test(document.body.innerText)", "the second factor in the account")
    page.click("Log out")

    for password, said in (("wrong " * 3, "that is not right"), (PASSWORD, "")):
        page.type("[name=user]", "ana")
        page.type("[name=password]", password)
        page.key("Enter")
        if said:
            page.wait("[role=alert]", said)
    page.type("[name=code]", "000000")
    page.key("Enter")
    page.wait("[role=alert]", "that is not right")
    page.screenshot(tmp_path / "code.png")
    page.type("[name=code]", code(secret, 1))  # that of this step may be used up
    page.key("Enter")
    page.wait("h1", "Devices")
    sound(page)

    page.click("My account")
    server.control("user", "remove", "ana")  # what he has running ends, the page with it, by itself
    page.wait("[role=alert]", "The login is over.")
    page.wait("[name=password]")


def test_many_devices(lab: Lab, server: Server, herd: None, browser: Chromium, tmp_path: Path) -> None:
    """One is found among hundreds, only those in sight are in the page, and keys are enough."""
    page = logged_in(browser, server, "ana", "admin")
    page.wait(".count", f"{MANY} online")
    page.wait_gone(".count", "reading")
    assert page.run("document.querySelectorAll('tbody tr').length") < 80
    assert page.run("document.querySelector('table').getAttribute('aria-rowcount')") == str(
        MANY + 2
    )  # with plc-7, which has a record and is away
    page.screenshot(tmp_path / "devices.png")
    for width in (740, 860, 1000, 1060, 1280):
        page.resize(width, 800)
        assert page.overflow() <= 0
        assert page.run("(({scrollWidth: a, clientWidth: b}) => a - b)(document.querySelector('.rows'))") <= 0
    page.run("window.scrollTo(0, document.scrollingElement.scrollHeight)")
    page.wait("tbody td a", f"plc-{MANY - 1:05}")
    page.wait_gone("tbody td a", "plc-00000")
    page.screenshot(tmp_path / "devices-end.png")
    page.click("Serial")  # downwards
    page.run("window.scrollTo(0, 0)")
    page.wait("tbody tr[aria-rowindex='2'] a", f"plc-{MANY - 1:05}")
    page.wait("th[aria-sort=descending]", "Serial")

    page.type("#search", "plc-00217")
    page.wait(".count", "1 of ")
    page.choose("#state", "away")
    page.wait(".nothing", "No device fits")
    page.choose("#state", "online")
    page.wait("tbody a", "plc-00217")
    page.run("document.querySelector('tbody a').focus()")
    page.key("Enter")
    page.wait("h1", "plc-00217")
    page.wait(".facts", MARKUP)  # its software, as text
    assert page.run("document.activeElement.tagName") == "H1"
    page.key("Tab")
    assert page.run("document.activeElement.matches('.title button')")

    for view in ("", "devices/plc-00217", "sessions", "events", "ports", "people", "server", "account"):
        page.resize(*PHONE, dark=True, touch=True)
        page.go(home(server, view))
        page.wait_gone(".count", "reading")
        page.wait("main h1")
        assert page.overflow() <= 0, view
        hidden = "[...document.querySelectorAll('td.chips')].filter((each) => each.clientWidth < 200).length"
        assert page.run(hidden) == 0, view
        page.screenshot(tmp_path / f"phone-{view.replace('/', '-') or 'devices'}.png")
    page.click("Menu")
    page.click("Ports")
    page.wait("h1", "Ports and pools")
    page.click("Reserve a port")
    page.type(f"{DIALOG} [name=serial]", "plc-7")
    page.type(f"{DIALOG} [name=target]", "echo")
    page.key("Enter")
    page.wait_gone("dialog")
    page.type("#port-search", "plc-7")
    page.wait("td.state", "fixed")
    sound(page)


def test_what_an_administrator_does(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """Kick, mute, a session with its command, a share, an enrolment; and what happens shows as it happens."""
    with Echo() as echo:
        lab.agent(server, offers={"echo": echo.target}, settings={"agent": {"remote_offers": "any"}}).start()
        server.client_port("plc-7", "echo")
        page = logged_in(browser, server, "ana", "admin")
        ana = Person.__new__(Person)  # she is there already
        ana.server, ana.name = server, "ana"
        ana.grant("plc-7", "*")
        ben = Person(server, "ben", ("plc-7", "*"))

        page.click("plc-7")
        page.wait(".facts", "[device plc-7]")
        page.wait(".facts .chip", "line=3")
        page.wait(".chart figcaption", "Round trip")
        page.screenshot(tmp_path / "device.png", whole=True)
        page.click("Kick")
        page.wait(f"{DIALOG} p", "every client of the device is cut")
        page.screenshot(tmp_path / "kick.png")
        page.key("Escape")
        page.wait_gone("dialog")
        assert server.events("link-down") == []
        page.click("Kick")
        page.wait(DIALOG)
        page.run(f"document.querySelector('{DIALOG} [type=submit]').focus()")
        page.key("Enter")
        server.wait_event("link-down", serial="plc-7", reason="kicked")
        page.wait(".events li", "link-down")
        server.wait_link("plc-7", 2)
        page.wait(".events li", "link-up")
        page.wait("h1 + .states", "online")

        page.click("Start session to echo")
        page.click("Start")
        command = page.wait_for(f"document.querySelector('{DIALOG} textarea')?.value", "the command")
        found = re.fullmatch(r"revtunnel-connect 'revtunnel://[^/]+/s/([0-9a-f]{32})#(\S+)'", command)
        assert found, command
        page.wait(f"{DIALOG} .state", "Nobody has come in yet")
        page.screenshot(tmp_path / "command.png")
        with ana.raw(found[1], "echo", found[2]) as web:
            web.send(b"hello")
            assert web.recv(timeout=20) == b"hello"
            page.wait(f"{DIALOG} .state", "connected")
            page.click("Share …")
            page.type(f"{DIALOG} [name=person]", "ben")
            page.choose(f"{DIALOG} [name=role]", "use")
            page.click("Make a link")
            link = page.wait_for(f"document.querySelector('{DIALOG} textarea')?.value", "the link")
            page.screenshot(tmp_path / "share.png")
            with ben.raw(found[1], "echo", link.rpartition("/")[2]) as second:
                second.send(b"me too")
                assert second.recv(timeout=20) == b"me too"
            page.click("Close")
            page.wait_for("document.querySelectorAll('dialog').length === 1 || null", "one dialog less")
            page.click("End session")
            page.wait(f"{DIALOG} p", "Your session")
            page.run(f"document.querySelector('{DIALOG} [type=submit]').focus()")
            page.key("Enter")
            server.wait_event("session-ended", session=found[1])
        page.wait_gone("dialog")

        page.click("Offer a service")
        page.type(f"{DIALOG} [name=offer]", f"more={echo.target}")
        page.key("Enter")
        page.wait("td .chip", "more")
        page.click("Take away more")
        page.click("Take away")
        page.wait_gone("td .chip", "more")

        page.click("Edit record")
        page.wait_for(
            f"document.querySelector('{DIALOG} [name=labels]')?.value === 'line=3' || null", "the record"
        )
        page.type(f"{DIALOG} [name=labels]", "line=3, hall-b")
        page.type(f"{DIALOG} [name=channels]", "5")
        page.screenshot(tmp_path / "record.png")
        page.key("Enter")
        page.wait(".facts .chip", "hall-b")
        page.wait(".facts", "channels, labels")
        server.control("reload")
        kept = server.control("record", "show", "plc-7")
        assert (kept["kept"], kept["by"]) == ({"labels": "line=3, hall-b", "channels": "5"}, "ana")
        assert server.control("device", "plc-7")["labels"] == ["line=3", "hall-b"]
        page.click("Edit record")
        page.type(f"{DIALOG} [name=channels]", "6")
        server.control("record", "edit", "plc-7", "--leases", "9")
        page.key("Enter")
        page.wait(f"{DIALOG} [role=alert]", "not any more as it was read")
        page.key("Escape")
        page.wait_gone("dialog")
        page.click("Take back what was laid down")
        page.wait(f"{DIALOG} p", "cut at once")
        page.run(f"document.querySelector('{DIALOG} [type=submit]').focus()")
        page.key("Enter")
        page.wait_gone(".facts .chip", "hall-b")
        assert server.control("record", "show", "plc-7")["kept"] == {}

        page.click("Mute")
        page.type(f"{DIALOG} [name=why]", MARKUP)
        page.key("Enter")
        page.wait(".states", "muted")
        page.wait(".facts", MARKUP)
        assert server.control("muted")["muted"][0]["why"] == MARKUP
        page.click("Unmute")
        page.wait(f"{DIALOG} h2", "Unmute plc-7?")
        page.key("Tab")
        page.run(f"document.querySelector('{DIALOG} [type=submit]').focus()")
        page.key("Enter")
        page.wait_gone(".states", "muted")

        page.click("Devices")
        page.click("Enrol a device")
        page.type(f"{DIALOG} [name=serial]", "plc-9")
        page.type(f"{DIALOG} [name=local]", f"echo={echo.target}")
        page.key("Enter")
        key = page.wait_for(f"document.querySelector('{DIALOG} textarea')?.value", "the key")
        page.wait(f"{DIALOG} .state", "plc-9 has not come yet")
        line = page.run(f"[...document.querySelectorAll('{DIALOG} textarea')].at(-1).value")
        assert line.startswith("revtunnel-agent --serial plc-9") and line.endswith(
            f"--local echo={echo.target}"
        )
        page.screenshot(tmp_path / "enrol.png")
        kept = tmp_path / "plc-9.key"
        kept.write_text(key)
        kept.chmod(0o600)
        where = [f"127.0.0.1:{server.port}"]
        lab.add(
            Agent(tmp_path, "plc-9", where, {"echo": echo.target}, options=["--key-file", str(kept)])
        ).start()
        page.wait(f"{DIALOG} .state", "online")
        page.click("See it")
        page.wait("h1", "plc-9")

        page.click("Events")
        page.wait(".events li", "session-ended")
        server.control("kick", "plc-9")
        page.wait(".events li:first-of-type, .events li:nth-of-type(-n+9)", "kicked")
        page.screenshot(tmp_path / "events.png")
        page.click("Hold")
        page.wait(".count", "held")
        sound(page)


def test_users_and_grants(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """A user is made, and sees nothing until something is granted, and then that and no more."""
    with Echo() as echo:
        for serial in ("plc-7", "plc-8"):
            lab.agent(server, serial, offers={"echo": echo.target}).start()
            server.client_port(serial, "echo")
        page = logged_in(browser, server, "ana", "admin")
        page.click("Users and grants")
        page.click("Add a user")
        page.type(f"{DIALOG} [name=user]", "ben")
        page.type(f"{DIALOG} [name=note]", MARKUP)
        page.key("Enter")
        page.wait(f"{DIALOG} h2", "Token of ben")
        token = page.run(f"document.querySelector('{DIALOG} textarea').value")
        page.click("Done")
        page.wait("td", MARKUP)
        for note in (MARKUP, "second"):
            page.click("Change ben")
            page.wait_for(f"document.querySelector('{DIALOG} [name=note]')?.value === `{note}` || null", note)
            page.type(f"{DIALOG} [name=note]", "second")
            page.key("Enter")
            page.wait_gone("dialog")
            page.wait("td", "second")

        other = browser.page(home(server), *PHONE, apart=True)
        other.click("Log in by a token")
        other.type("[name=token]", token)
        other.key("Enter")
        other.wait(".nothing", "No service is granted to ben yet.")
        other.wait("header .live", "live")
        other.screenshot(tmp_path / "nothing.png")
        views = "[...document.querySelectorAll('nav a')].map((each) => each.textContent)"
        assert other.run(views) == ["Devices", "Sessions", "Events", "My account"]

        page.click("Grant")
        page.type(f"{DIALOG} [name=holder]", "ben")
        page.type(f"{DIALOG} [name=device]", "label=line=3")
        page.screenshot(tmp_path / "grant.png")
        page.key("Enter")
        page.wait("td", "label=line=3")
        page.screenshot(tmp_path / "people.png")

        other.go(home(server, "ports"))  # not his: devices in its place
        other.ask("Page.reload")
        other.wait(".count", "1 device, 1 online")
        other.wait("tbody .labels", "line=3")
        assert other.overflow() <= 0
        other.click("plc-7")
        other.wait("td", "echo")
        assert other.run("[...document.querySelectorAll('.title button')].length") == 0
        other.screenshot(tmp_path / "person-device.png")
        other.click("Start session to echo")
        other.click("Start")
        other.wait(f"{DIALOG} .state", "Nobody has come in yet")
        other.click("Done")
        other.go(home(server, "devices/plc-8"))
        other.wait("[role=alert]", "not yours to see")

        page.click("Sessions")
        page.wait("td", "ben")
        page.click("End the session to plc-7")
        page.wait(f"{DIALOG} p", "The session of ben")
        page.key("Tab")
        page.run(f"document.querySelector('{DIALOG} [type=submit]').focus()")
        page.key("Enter")
        server.wait_event("session-ended", user="ben")
        page.wait(".nothing", "No session runs")
        sound(page)
        sound(other)


def test_a_terminal_and_a_screen(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """What is typed gets to the service, what it says to the screen; the end is told, and can be undone."""
    with Telnet() as machine, Screen() as press:
        offers = {"console": machine.target, "web": "127.0.0.1:80", "vnc": press.target}
        lab.agent(server, offers=offers).start()
        server.client_port("plc-7", "console")
        page = logged_in(browser, server, "ana", "admin")
        server.control("grant", "ana", "plc-7", "console,vnc")
        page.click("plc-7")
        page.wait("td a[target=_blank]", "Terminal")
        links = page.run("[...document.querySelectorAll('td a[target=_blank]')].map((each) => each.href)")
        terminal, screen = links  # a web service has programs of its own
        page.go(terminal)
        page.wait("h1", "plc-7/console")
        assert server.events("session-started") == []  # a link alone starts nothing
        page.click("Connect")
        page.wait("header .mark.good", "connected")
        page.wait(".xterm-rows", "machine")
        machine.record.wait("negotiated", b"\xff\xfd\x01\xff\xfd\x03", b"")
        page.ask("Input.insertText", text="status")
        page.wait(".xterm-rows", "> STATUS")
        page.screenshot(tmp_path / "terminal.png")
        page.resize(*PHONE)
        assert page.overflow() <= 0
        page.screenshot(tmp_path / "terminal-phone.png")
        page.click("End session")
        page.wait("header .mark.off", "over")
        server.wait_event("session-ended", serial="plc-7")
        page.click("Connect again")
        page.wait("header .mark.good", "connected")
        server.wait_event("session-started", 2)
        machine.stop()
        page.wait("header .mark.off", "over")
        page.screenshot(tmp_path / "terminal-over.png")
        page.click("End session")
        server.wait_event("session-ended", 2, serial="plc-7")
        sound(page)

        page.resize(1280, 800)
        page.go(screen)
        page.wait("h1", "plc-7/vnc")
        page.click("Connect")
        page.wait("header .mark.good", "connected")
        red = """(() => { const it = document.querySelector(".picture canvas");
            if (it?.width !== 64) return null;
            return `${it.getContext("2d").getImageData(9, 9, 1, 1).data}` === "255,0,0,255" })()"""
        page.wait_for(red, "a red picture")
        page.key("Enter")
        press.record.wait("key", 1, 0xFF0D)
        page.screenshot(tmp_path / "screen.png")
        page.click("End session")
        page.wait("header .mark.off", "over")
        server.wait_event("session-ended", 3, serial="plc-7")
        sound(page)


def shared(page: Page, person: str, role: str, keep: bool = False) -> str:
    """The link that the owner is given, in his terminal or screen; ``keep``: the dialog stays open."""
    page.ask("Page.bringToFront")
    page.click("Share …")
    page.type(f"{DIALOG} [name=person]", person)
    page.choose(f"{DIALOG} [name=role]", role)
    page.click("Make a link")
    link = page.wait_for(f"document.querySelector('{DIALOG} textarea')?.value", "the link")
    assert "/page/share.html#" in link
    if not keep:
        page.click("Close")
        page.wait_gone("dialog")
    return str(link)


def into_terminal(page: Page, text: str) -> None:
    """Type into the terminal of a tab; a newline is Enter."""
    page.ask("Page.bringToFront")
    page.run("document.querySelector('.xterm-helper-textarea').focus()")
    page.ask("Input.insertText", text=text.rstrip("\n"))
    if text.endswith("\n"):
        page.key("Enter")


def test_a_session_is_shared_with_a_second_browser(
    lab: Lab, server: Server, browser: Chromium, tmp_path: Path
) -> None:
    """Who has a link watches the owner without typing, or has a terminal of his own; once, and no more."""
    with Telnet() as machine, Screen() as press:
        lab.agent(server, offers={"console": machine.target, "vnc": press.target}).start()
        server.client_port("plc-7", "console")
        page = logged_in(browser, server, "ana", "admin")
        server.control("grant", "ana", "plc-7", "*", "--actions", "list,start,share")
        Person(server, "ben", ("plc-7", "*"))
        page.go(f"{home(server)[:-2]}page/terminal.html#plc-7/console")
        page.click("Connect")
        page.wait(".xterm-rows", "machine")
        link = shared(page, "ben", "watch", keep=True)
        page.screenshot(tmp_path / "shared.png")
        taken = page.wait_for(
            f"[...document.querySelectorAll('{DIALOG} textarea')].at(-1).value", "an address"
        )
        assert taken.startswith("revtunnel://")
        page.click("Close")

        guest = browser.page(link, *PHONE, apart=True)  # nobody is logged in there
        guest.wait("p", "ana lets ben watch a session to plc-7")
        guest.screenshot(tmp_path / "share.png")
        assert guest.overflow() <= 0
        guest.click("Terminal at console")
        guest.wait("h1", "plc-7/console")
        guest.click("Connect")
        guest.wait("header .mark.good", "watching")
        guest.wait(".xterm-rows", "machine")  # said before he came
        into_terminal(guest, "forbidden")
        into_terminal(page, "status")
        guest.ask("Page.bringToFront")
        guest.wait(".xterm-rows", "> STATUS")
        guest.screenshot(tmp_path / "watching.png")
        page.ask("Page.bringToFront")
        page.wait(".xterm-rows", "> STATUS")
        assert "FORBIDDEN" not in page.text() + guest.text()
        assert "/" not in guest.run("location.hash.slice(1).split('/').slice(2).join('/')")
        late = browser.page(link, apart=True)
        late.wait("[role=alert]", "used already")
        late.screenshot(tmp_path / "used.png")

        again = shared(page, "ben", "use")
        other = browser.page(again, apart=True)
        other.click("Terminal at console")
        other.click("Connect")
        other.wait(".xterm-rows", "machine")
        into_terminal(other, "mine")
        other.wait(".xterm-rows", "> MINE")
        unused = shared(page, "ben", "watch", keep=True)
        page.click("Take it back from ben")
        page.wait(f"{DIALOG} p", "ben is let in no more")
        page.click("Close")
        for each in (guest, other):
            each.wait("header .mark.off", "over")
        late.go(unused)
        late.wait("[role=alert]", "taken back")
        late.go(f"{home(server)[:-2]}page/share.html#nonsense")
        late.wait("[role=alert]", "no link")
        page.click("End session")
        server.wait_event("session-ended", serial="plc-7")
        late.go(again)
        late.wait("[role=alert]", "used already")

        page.go(f"{home(server)[:-2]}page/vnc.html#plc-7/vnc")
        page.click("Connect")
        page.wait("header .mark.good", "connected")
        guest.go(shared(page, "ben", "watch"))
        guest.click("Screen at vnc")
        guest.click("Connect")
        guest.wait("header .mark.good", "watching")
        guest.wait_for("document.querySelector('.picture canvas')?.width === 64", "the picture")
        guest.run("document.querySelector('#only').disabled = false")
        guest.click("Look only")  # the page lets him, the server does not
        guest.key("Enter")
        page.ask("Page.bringToFront")
        page.run("document.querySelector('.picture canvas').focus()")
        page.key("Space")
        press.record.wait("key", 1, 0x20)
        assert press.record.count("key", 1, 0xFF0D) == 0
        for each in (page, guest, other, late):
            sound(each)


@pytest.mark.skipif(not CAN_SSHD, reason="no sshd here, or no root to have it apart")
@pytest.mark.skipif(find_spec("bcrypt") is None, reason="the extra ssh is not here")
def test_ssh_in_the_terminal(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """A shell at a real sshd: key, password, size; somebody watches in the same size; then its status."""
    with PasswordSshd(tmp_path) as sshd:
        lab.agent(server, offers={"ssh": sshd.target}).start()
        server.client_port("plc-7", "ssh")
        page = logged_in(browser, server, "ana", "admin")
        server.control("grant", "ana", "plc-7", "*", "--actions", "list,start,share")
        Person(server, "ben", ("plc-7", "*"))
        page.click("plc-7")
        page.wait("td a[target=_blank]", "Terminal")
        page.go(page.run("document.querySelector('td a[target=_blank]').href"))
        page.click("Connect")
        page.wait(".xterm-rows", "user name [ana]:")
        into_terminal(page, f"{sshd.USER}\n")
        page.wait(".xterm-rows", "Keep it, and go on (yes/no)?")
        assert sshd.fingerprint in page.run("document.querySelector('.xterm-rows').textContent")
        into_terminal(page, "yes\n")
        page.wait(".xterm-rows", "Password:")
        page.screenshot(tmp_path / "ssh-password.png")
        into_terminal(page, f"{sshd.PASSWORD}\n")
        page.wait(".xterm-rows", "$ ")
        into_terminal(page, "stty size | sed 's/^/size /'\n")
        size = page.wait_for(
            "/size (\\d+ \\d+)/.exec(document.querySelector('.xterm-rows').textContent)?.[1]", "its size"
        )
        guest = browser.page(shared(page, "ben", "watch"), *PHONE, apart=True)
        guest.click("Terminal at ssh")
        guest.click("Connect")
        guest.wait(".xterm-rows", f"size {size}")
        assert str(guest.run("document.querySelector('.xterm-rows').children.length")) == size.split()[0]
        assert sshd.PASSWORD not in page.text() + guest.text()
        guest.screenshot(tmp_path / "ssh-watching.png")
        into_terminal(page, "echo so-$((40+2)); exit 5\n")
        page.wait("header .mark.off", "over")
        page.wait("header [role=status]", "exit status 5")
        page.screenshot(tmp_path / "ssh-over.png")
        guest.ask("Page.bringToFront")
        guest.wait(".xterm-rows", "so-42")
        guest.wait(".gone:not([hidden])", "no terminal open")
        sound(page)
        sound(guest)


def test_nothing_keeps_anybody_out(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """axe-core finds no serious fault: every view, dark too, on a phone; dialogs, terminal, share, login."""
    with Telnet() as machine:
        lab.agent(server, offers={"console": machine.target, "vnc": "127.0.0.1:9"}).start()
        server.client_port("plc-7", "console")
        Person(server, "ben", ("plc-7", "*"))
        base = home(server)[:-2]
        found = {}
        page = browser.page(home(server), apart=True)
        page.wait("[name=user]")
        found["login"] = faults(page)
        page = logged_in(browser, server, "ana", "admin")
        server.control("grant", "ana", "plc-7", "*", "--actions", "list,start,share")
        for dark, size in ((False, (1280, 800)), (True, (1280, 800)), (False, PHONE)):
            page.resize(*size, dark=dark)
            for view in ("", "devices/plc-7", "sessions", "events", "ports", "people", "server", "account"):
                page.go(home(server, view))
                page.wait("main h1")
                page.wait_gone(".count", "reading")
                found[f"{view or 'devices'} {dark} {size[0]}"] = faults(page)
        page.resize(1280, 800)
        for view, button in (
            *(("devices/plc-7", each) for each in ("Kick", "Edit record", "Offer a service")),
            *(("people", each) for each in ("Grant", "Add a user", "Tokens of ben")),
            *(("", "Enrol a device"), ("ports", "Reserve a port"), ("account", "Second factor")),
        ):
            page.go(home(server, view))
            page.click(button)
            page.wait(DIALOG)
            found[button] = faults(page)
            page.key("Escape")
            page.wait_gone("dialog")
        page.go(f"{base}page/terminal.html#plc-7/console")
        page.click("Connect")
        page.wait(".xterm-rows", "machine")
        found["terminal"] = faults(page)
        link = shared(page, "ben", "watch", keep=True)
        found["share"] = faults(page)
        page.go(link)
        page.wait("p", "ana lets ben watch")
        found["shared"] = faults(page)
        page.go(f"{base}page/vnc.html#plc-7/vnc")
        page.wait("h1", "plc-7/vnc")
        found["screen"] = faults(page)
        wrong = [f"{name}: {each}" for name, all_ in found.items() for each in all_]
        assert not wrong, "\n".join(wrong)


def test_tabs_and_a_server_that_goes(lab: Lab, server: Server, browser: Chromium, tmp_path: Path) -> None:
    """Tabs share one stream of events; when the server is gone the page says so, and goes on."""
    server.write(**{"web main": {"address": f"127.0.0.1:{server.web_port}"}})  # the same place again
    page = logged_in(browser, server, "ana", "admin")
    other = browser.page(home(server, "events"), beside=page)
    other.wait("header .live", "live")
    page.go(home(server, "events"))
    server.control("user", "add", "ben", "--role", "reader")
    token = server.control("token", "new", "ben")["token"]
    third = browser.page(home(server), apart=True)
    third.click("Log in by a token")
    third.type("[name=token]", token)
    third.key("Enter")
    for each in (page, other):
        each.ask("Page.bringToFront")  # one behind another is not drawn
        each.wait(".events li", "logged-in")
    readers = [each for each in (page, other) if any(url.endswith("/events") for url in each.asked)]
    assert readers == [page]
    page.close()
    wait_until(lambda: other.run("1") and any(url.endswith("/v1/events") for url in other.asked), "its turn")
    other.wait("header .live", "live")

    server.stop()
    other.wait("header .live", "not connected")
    other.screenshot(tmp_path / "gone.png")
    server.start()
    other.wait("header .live .good", "live")
    other.click("Server")
    other.wait(".problems", "nothing is wrong")
    assert [each for each in other.problems if "ERR_" not in each] == []
