"""Who is let in at a device's page, by what word and cookie; where it is; and what time ends."""

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.ground.networks import network_of
from revtunnel.ground.targets import Target
from revtunnel.process.web.askers import Place
from revtunnel.process.web.web_rules import PagePlaces, WebRules
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.systems.sessions.nonces import NonceRefused
from revtunnel.systems.sessions.session_life import RemoteSession, Role, SessionEvent, SessionRefused
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop, own_reactor
from tests.support.ports import port_block
from tests.support.session_room import SessionRoom

pytest.importorskip("h11")
from revtunnel.sockets.listening import Listeners
from revtunnel.systems.sessions.device_pages import BROWSERS, DevicePages
from revtunnel.systems.sessions.page_connection import KEEP
from revtunnel.systems.sessions.page_seat import MOST

NAMED = WebRules("main", frozenset({"gate.example"}), pages=PagePlaces("pages.example"))
OFF = WebRules("off", frozenset({"gate.example"}))
HOST = "plc-1--web.pages.example:2443"


class Listener:
    """What is asked of the web listener."""

    wire = WebSocketLimits()

    def __init__(self) -> None:
        self.elsewhere: Any = None
        self.owes = ""
        self.fails: list[str] = []

    def owing(self, peer: str, is_forwarded: bool) -> str:
        return self.owes

    def failed(self, peer: str) -> None:
        self.fails.append(peer)

    def came(self, name: str, end: Any) -> None:
        end.abort()


class World:
    """A room with a session of ana's to plc-1, and pages; ``clients`` are those that a device would have."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.room = SessionRoom()
        self.listener = Listener()
        self.clients: list[ClientSocket] = []
        self.record = DeviceRecord()
        self.refuses = ""
        report = self.room.switchboard.report
        listeners = Listeners(loop.reactor, report)
        self.pages = DevicePages(
            *(loop.reactor, self.room.live, self.listener, listeners, self._dial),  # type: ignore[arg-type]
            *(lambda serial: self.record, self.room.random_bytes),
        )
        self.session, _ = self.room.begin("ana", "web")

    def _dial(self, serial: str, name: str, left: Any, session: str) -> Clients:
        def admit(client: ClientSocket) -> str:
            self.clients.append(client)
            return self.refuses

        told = serial, name, Target("10.0.0.5", 80), admit
        return Clients(self.loop.reactor, *told, lambda client, why: None, left, session)

    def address(self, rules: WebRules = NAMED, user: str = "ana", service: str = "web", id: str = "") -> str:
        """Where it is opened."""
        place = Place(rules, "192.0.2.7:1", "gate.example:2443")
        return self.pages.address(user, id or self.session.id, service, place)

    def ask(
        self, path: str, cookie: str = "", host: str = HOST, rules: WebRules = NAMED, more: str = ""
    ) -> socket.socket:
        """A browser's connection; ``more``: fields."""
        ours, theirs = tcp_pair()
        said = more + (f"Cookie: {cookie}\r\n" if cookie else "")
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{said}\r\n"
        end = PlainEnd(theirs, "192.0.2.7:4711")
        assert self.listener.elsewhere(rules, end, host, head.encode())
        ours.setblocking(False)
        return ours

    def hear(self, sock: socket.socket, end: bytes = b"") -> bytes:
        """What is answered, up to its end or to this."""
        heard = bytearray()

        def whole() -> bool:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return bool(end) and heard.endswith(end)
            heard.extend(data)
            return not data

        self.loop.until(whole, "an answer")
        return bytes(heard)

    def status(self, *asked: Any, **more: Any) -> int:
        """Of an answer of ours."""
        return int(self.hear(self.ask(*asked, **more)).split(b" ")[1])

    def enter(self) -> str:
        """A browser is let in: its cookie."""
        answer = self.hear(self.ask(self.path()))
        found = re.search(rb"Set-Cookie: ([^;]+); Path=/; HttpOnly; Secure; SameSite=Strict\r\n", answer)
        assert found and b"Clear-Site-Data" not in answer
        return found[1].decode()

    def path(self) -> str:
        """The entrance, with a fresh word."""
        return self.address().removeprefix(f"http://{HOST}")

    def device_says(self, data: bytes) -> None:
        """The last client's device."""
        self.loop.until(lambda: self.clients, "a client")
        end: Any = self.clients[-1]._end
        while data:
            data = data[end.write(data) :]
            self.loop.settle()

    def later(self, seconds: float) -> None:
        """Have connections looked at as if so much time had passed."""
        for each in [*self.pages.connections]:
            each.look(self.loop.reactor.seconds() + seconds)


@pytest.fixture
def world() -> Iterator[World]:
    with own_reactor() as loop:
        found = World(loop)
        yield found
        found.pages.stop()
        loop.settle()


def refused(world: World, **how: Any) -> str:
    """The word of a refusal."""
    with pytest.raises(SessionRefused) as caught:
        world.address(**how)
    return caught.value.word


def test_who_gets_an_address(world: World) -> None:
    """The owner of a session that runs, for a service of it that is a page, where pages are."""
    assert re.fullmatch(rf"http://{HOST}/\.well-known/revtunnel/enter\?code=[\w-]{{43}}", world.address())
    assert refused(world, rules=OFF) == "off"
    assert (
        refused(world, user="ben")
        == refused(world, service="console")
        == refused(world, id="0" * 32)
        == "unknown"
    )
    console, _ = world.room.begin("ana", "console")
    assert refused(world, id=console.id, service="console") == "no-page"
    world.record = DeviceRecord(web=(("console", "http"),))
    assert "plc-1--console" in world.address(id=console.id, service="console")
    world.room.live.end(world.session.id, SessionEvent.OPERATOR)
    assert refused(world) == "unknown"


def test_a_guest_opens_a_page_by_his_link(world: World) -> None:
    """One who may use the session, once for the link; it is taken back with the rest, and ends with it."""
    live, session = world.room.live, world.session
    world.room.grant("ben", "start observe", id="g7")

    def link(role: Role) -> str:
        return live.share(session.id, "ana", "ben", role, "192.0.2.7:1")

    def invited(nonce: str, service: str = "web", rules: WebRules = NAMED) -> str:
        return world.pages.invited(
            nonce, session.id, service, Place(rules, "192.0.2.9:1", "gate.example:2443")
        )

    watching, using = link(Role.WATCH), link(Role.USE)
    for nonce, asked in ((watching, {}), (using, {"service": "console"}), (using, {"rules": OFF})):
        with pytest.raises(SessionRefused, match=r"is not|off here"):
            invited(nonce, **asked)  # type: ignore[arg-type]
    mine = world.enter()
    answer = world.hear(world.ask(invited(using).removeprefix(f"http://{HOST}")))  # none of that used it up
    found = re.search(rb"Set-Cookie: ([^;]+)", answer)
    assert found
    with pytest.raises(NonceRefused, match="used"):
        invited(using)
    assert {seat.person for seat in session.seats.values() if seat.role is Role.USE} == {"ana", "ben"}
    world.refuses = "device-absent"
    assert [world.status("/", each) for each in (mine, found[1].decode())] == [503, 503]
    waits = invited(link(Role.USE)).removeprefix(f"http://{HOST}")
    live.unshare(session.id, "ana", "ben")
    assert [world.status("/", each) for each in (mine, found[1].decode())] == [503, 401]
    assert world.status(waits) == 401
    late = link(Role.USE)
    live.end(session.id, SessionEvent.OPERATOR)
    with pytest.raises(NonceRefused, match="ended"):
        invited(late)
    assert world.status("/", mine) == 401


def test_a_guests_page_at_a_port_is_not_the_owners(world: World) -> None:
    """Each has a port of his own: what a browser keeps of a port is of one page that its person has had."""
    low = int(port_block(2).partition("-")[0])
    at_ports = replace(NAMED, pages=PagePlaces("", "pages.example", (low, low + 1), ("127.0.0.1",)))
    world.room.grant("ben", "start", id="g7")
    nonce = world.room.live.share(world.session.id, "ana", "ben", Role.USE, "192.0.2.7:1")
    place = Place(at_ports, "192.0.2.9:1", "gate.example:2443")
    found = {
        world.address(at_ports).partition("/.")[0],
        world.pages.invited(nonce, world.session.id, "web", place).partition("/.")[0],
        world.address(at_ports).partition("/.")[0],
    }
    assert found == {f"http://pages.example:{low}", f"http://pages.example:{low + 1}"}


def test_a_word_is_good_once_here_and_now(world: World) -> None:
    """401 else, which costs the address something; and what it was for is still there."""
    path = world.path()
    assert world.status(path) == 200
    assert world.status(path) == 401
    assert world.status(path.partition("=")[0]) == world.status(path[:-1]) == 401
    assert world.status(f"{path.partition('?')[0]}?{'&' * 9}code=x") == world.status(f"{path}&a=b") == 401
    assert len(world.listener.fails) == 5
    fresh = world.path()
    assert world.status(fresh, host="plc-1--http.pages.example:2443") == 404
    raw = world.room.live.nonce("ana", world.session.id, True)
    assert world.status(path.partition("=")[0] + "=" + raw) == 404
    for unseen in ("image", "iframe", "empty"):
        assert world.status(fresh, more=f"Sec-Fetch-Dest: {unseen}\r\n") == 403
    world.listener.owes = "it failed too often"
    assert world.status(fresh) == 429
    world.listener.owes = ""
    assert world.status(fresh) == 200  # none of that has used it up
    fresh = world.path()
    world.room.advance(31.0)
    assert world.status(fresh) == 401
    fresh = world.path()
    world.room.live.end(world.session.id, SessionEvent.OPERATOR)
    assert world.status(fresh) == 410
    assert {"used", "wrong", "not-of-it", "expired", "ended"} <= {
        word for _, _, word in world.room.refusals()
    }


@pytest.mark.parametrize(
    "label", ["", "--", "%00", "plc-1--web--x", "a" * 9_000, "\xe4", "xn--a", "*", "<b>"]
)
def test_names_that_nobody_has(world: World, label: str) -> None:
    """Whatever stands below the name is no device's, unless a session says so."""
    cookie, host = world.enter(), f"{label}.pages.example"
    assert world.status("/", cookie, host=host) in (401, 421)
    assert world.status("/", cookie, host=f"{host}:99999999") in (401, 421)
    assert not world.clients


def test_what_is_no_place_of_a_device(world: World) -> None:
    """Other hosts, the name itself, names two below it, and a listener without pages go elsewhere."""
    _, theirs = tcp_pair()
    end = PlainEnd(theirs, "192.0.2.7:4711")
    for host in (
        "gate.example",
        "pages.example",
        "a.b.pages.example",
        "plc-1--web.pages.example.evil",
        "",
        "[::1]",
    ):
        assert not world.listener.elsewhere(NAMED, end, host, b"")
    assert not world.listener.elsewhere(OFF, end, HOST, b"")
    end.abort()


def test_a_cookie_is_a_seat(world: World) -> None:
    """Counted in the session; a second word in one browser takes its place; it is dead with the session."""
    cookie = world.enter()
    assert world.room.live.connected == 1 and len(world.pages) == 1
    path = world.path()
    answer = world.hear(world.ask(path, cookie))
    second = re.search(r"Set-Cookie: ([^;]+)", answer.decode())
    assert second and world.room.live.connected == 1
    assert world.status("/", cookie) == 401
    assert world.status("/", f"{second[1]}; {second[1]}") == 401
    kept = world.ask("/a", second[1])
    world.device_says(b"HTTP/1.1 204 No\r\n\r\n")
    world.hear(kept, b"\r\n\r\n")
    kept.sendall(f"GET {world.path()} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {second[1]}\r\n\r\n".encode())
    second = re.search(r"Set-Cookie: ([^;]+)", world.hear(kept).decode())  # on a connection of the last
    assert second and world.room.live.connected == 1
    world.refuses = "device-absent"
    assert world.status("/", second[1]) == 503
    asked = len(world.clients)
    for said in ("https", ""):  # by its record now, and not what was opened
        world.record = DeviceRecord(web=(("web", said),))
        assert world.status("/", second[1]) == 503 and len(world.clients) == asked
    world.room.live.end(world.session.id, SessionEvent.OPERATOR)
    assert world.status("/", second[1]) == 401
    assert len(world.pages) == world.room.live.connected == 0


def test_browsers_that_have_lost_their_cookies_make_room(world: World) -> None:
    """They cannot say that they left: of many that came to one page the last few count."""
    cookies = [world.enter() for _ in range(20)]
    assert len(world.pages) == world.room.live.connected == BROWSERS
    world.refuses = "device-absent"
    assert [world.status("/", each) for each in cookies[-BROWSERS - 1 :]] == [401] + [503] * BROWSERS


def test_a_balancers_connection_has_one_answer(world: World) -> None:
    """What it asks for next may be somebody else's, or not of a device at all."""
    rules = replace(NAMED, forwarded_from=(network_of("192.0.2.7"),))
    more = "X-Forwarded-For: 198.51.100.4\r\n"
    cookie = world.enter()
    for count in (1, 2):
        browser = world.ask("/a", cookie, rules=rules, more=more)
        world.loop.until(lambda count=count: len(world.clients) == count, "a client")
        assert b"\r\nConnection: close\r\n" in _asked(world)
        world.device_says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        heard = world.hear(browser)
        assert heard.endswith(b"\r\n\r\nok") and b"\r\nConnection: close\r\n" in heard
    browser = world.ask("/a", cookie, rules=rules, more=more + "Connection: Upgrade\r\nUpgrade: shout\r\n")
    world.loop.until(lambda: len(world.clients) == 3, "a client")
    world.device_says(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nhello")
    assert b"close" not in world.hear(browser, b"hello")
    browser.close()


def test_an_exchange_and_the_end_of_its_session(world: World) -> None:
    """Bytes are the session's; the end is a cut on both sides, and never an end of file."""
    cookie = world.enter()
    assert world.status("/a", cookie, more=f"Origin: ftp://{HOST}\r\n") == 403
    browser = world.ask("/a", cookie, more=f"Origin: https://{HOST}\r\n")  # a balancer may end the TLS
    world.device_says(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    assert world.hear(browser, b"4\r\nhalf\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    counted = world.room.live.counted(world.session)
    assert counted.bytes_to_client == 23 and counted.bytes_to_device > 50
    world.room.live.end(world.session.id, SessionEvent.OPERATOR)
    with pytest.raises(ConnectionResetError):
        world.hear(browser)
    world.loop.settle()
    assert world.clients[0]._lost and not world.pages.connections


def test_who_takes_nothing_or_says_nothing(world: World) -> None:
    """A browser that does not read is cut; one that asks nothing more is parted with in order."""
    cookie = world.enter()
    stuck = world.ask("/blob", cookie)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
    world.device_says(head)
    end: Any = world.clients[-1]._end
    world.loop.until(lambda: not end.write(b"x" * 65536), "a device that has to wait")
    world.later(WebSocketLimits().stall - 5)
    assert len(world.pages.connections) == 1
    world.later(WebSocketLimits().stall + 5)
    world.loop.settle()
    assert not world.pages.connections and world.clients[-1]._lost
    quiet = world.ask("/a", cookie)
    world.device_says(b"HTTP/1.1 204 No\r\n\r\n")
    world.hear(quiet, b"\r\n\r\n")
    world.later(KEEP - 5)
    assert len(world.pages.connections) == 1
    world.later(KEEP + 5)
    assert world.hear(quiet) == b""
    stuck.close()


def test_one_browser_has_so_many_connections(world: World) -> None:
    """Further ones are told so."""
    cookie = world.enter()
    kept = [world.ask("/a", cookie) for _ in range(MOST)]
    world.loop.until(lambda: len(world.clients) == MOST, "clients")
    assert world.status("/", cookie) == 503
    for each in kept:
        each.close()
    world.loop.until(lambda: not world.pages.connections, "the end of all")


def test_ports_are_of_one_session_and_not_soon_of_another_page(world: World) -> None:
    """Closed with it; a person gets one where he has seen the same page or none, then the oldest."""
    low = int(port_block(3).partition("-")[0])
    rules = WebRules("ports", pages=PagePlaces("", "devices.example", (low, low + 2), ("127.0.0.1",)))

    def opened(session: RemoteSession, service: str = "web", user: str = "ana") -> int:
        found = re.search(r"//devices\.example:(\d+)/", world.address(rules, user, service, session.id))
        assert found
        return int(found[1]) - low

    def over(session: RemoteSession) -> None:
        world.room.live.end(session.id, SessionEvent.OPERATOR)

    assert opened(world.session) == opened(world.session) == 0
    assert _taken(low)
    world.record = DeviceRecord(web=(("console", "http"),))
    other, _ = world.room.begin("ana", "console")
    assert opened(other, "console") == 1
    over(world.session)
    over(other)
    world.room.advance(1.0)
    assert not _taken(low) and not _taken(low + 1)
    again, _ = world.room.begin("ana", "console")
    assert opened(again, "console") == 1  # where he had it
    third, _ = world.room.begin("ana", "console", "web")
    assert (opened(third), opened(third, "console")) == (0, 2)
    fourth, _ = world.room.begin("ana", "web")
    assert refused(world, rules=rules, id=fourth.id) == "too-many"
    over(again)
    assert opened(fourth) == 1  # what there is


def _asked(world: World) -> bytes:
    """What the last client's device has been asked."""
    end: Any = world.clients[-1]._end
    view = memoryview(bytearray(4096))
    found = b""
    while size := end.read_into(view):
        found += bytes(view[:size])
    return found


def _taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
