"""Remote sessions to devices that registered by CCCP: a real server, a device that comes back, people."""

import contextlib
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.test_connect import talk
from tests.support.cccp_site import Caller, closed
from tests.support.connect_program import Program
from tests.support.daemons import Lab, Server
from tests.support.ports import free_ports, port_block
from tests.support.traffic import read_exactly
from tests.support.web_people import Person, code_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SERIAL = "CLD-1"
MIB = 1 << 20


class Thing:
    """A device that registers, serves one connection, and comes back; also when it was cut."""

    def __init__(self, port: int, serve: Callable[[socket.socket], None]) -> None:
        self.over = False
        self._port = port
        self._serve = serve
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.over:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), 10) as sock,
            ):
                self._sock = sock
                sock.settimeout(60)
                sock.sendall(SERIAL.encode() + b"\rhello to nobody")
                self._serve(sock)

    def stop(self) -> None:
        """For good."""
        self.over = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def echo(sock: socket.socket) -> None:
    """What comes goes back, up to an end of file."""
    while data := sock.recv(65536):
        sock.sendall(data)


def digest(sock: socket.socket) -> None:
    """At the end of file, the hash of all: it needs a half-close."""
    seen = hashlib.sha256()
    while data := sock.recv(65536):
        seen.update(data)
    sock.sendall(seen.hexdigest().encode())


class Site:
    """A server that speaks CCCP and lets people in, with one device."""

    def __init__(self, lab: Lab, serve: Callable[[socket.socket], None]) -> None:
        api, registration = free_ports(2)
        self.server: Server = lab.server(
            {
                "web main": {"address": "127.0.0.1:0"},
                "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}", "busy_wait": "1 s"},
                "cccp-project main": {"address": f"127.0.0.1:{registration}", "ranges": port_block(20)},
            }
        ).start()
        self.caller = Caller(api)
        self.thing = Thing(registration, serve)
        self.server.wait_event("device-registered", serial=SERIAL)

    def until_parked(self, count: int) -> None:
        """The device is back for so many a time."""
        self.server.wait_event("device-registered", count, serial=SERIAL)


Made = Callable[[Callable[[socket.socket], None]], Site]


@pytest.fixture
def made(lab: Lab) -> Iterator[Made]:
    sites: list[Site] = []

    def one(serve: Callable[[socket.socket], None]) -> Site:
        sites.append(Site(lab, serve))
        return sites[-1]

    yield one
    for each in sites:
        each.thing.stop()


def hear(web: Any, size: int) -> bytes:
    """So many bytes."""
    heard = b""
    while len(heard) < size:
        heard += web.recv(timeout=20)
    return heard


def test_a_person_has_the_device_and_others_see_it(made: Made) -> None:
    """By a grant of ``device``; one at a time; the device comes back and is everybody's again."""
    site = made(echo)
    server, caller = site.server, site.caller
    ana, bob = Person(server, "ana", (SERIAL, "device")), Person(server, "bob", (SERIAL, "ssh"))
    with bob.control() as control:
        assert control.ask("services")["services"] == []
        assert control.answer("start", device=SERIAL, services=["device"])["error"]["word"] == "denied"
    with ana.control() as control:
        (listed,) = control.ask("services")["services"]
        assert (listed["device"], listed["service"], listed["port"], listed["online"]) == (
            SERIAL,
            "device",
            0,
            True,
        )
        session, nonce = control.start("device", device=SERIAL)
        with ana.raw(session, "device", nonce) as web:
            sent = os.urandom(MIB)
            sender = threading.Thread(
                target=lambda: [web.send(sent[at : at + 60_000]) for at in range(0, MIB, 60_000)]
            )
            sender.start()
            assert hear(web, MIB) == sent
            sender.join()
            (channel,) = server.control("channels")["channels"]
            assert (channel["serial"], channel["target"], channel["carrier"]) == (SERIAL, "device", "device")
            (row,) = server.control("sessions")["sessions"]
            assert (row["kind"], row["target"]) == ("remote", "device")
            assert server.control("status")["channels"] == 1
            assert caller.status(SERIAL) is None
            port = caller.on(SERIAL, persistent="true")
            assert caller.status(SERIAL) == (False, False, 0)
            more = control.ask("nonce", session=session, browser=True)["nonce"]
            with ana.raw(session, "device", more) as second:
                assert code_of(second) == (4005, "out-of-resources: in-use")
            refused = server.wait_event("client-refused", serial=SERIAL)
            assert (refused["reason"], refused["target"]) == ("in-use", "device")
        site.until_parked(2)
        server.wait_until(lambda: caller.status(SERIAL) == (True, False, 0), "the proxy's turn")
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(b"by port")
            assert read_exactly(client, 7) == b"by port"
        caller.ask("/off", serial=SERIAL)
        site.until_parked(3)
        more = control.ask("nonce", session=session)["nonce"]
        with ana.raw(session, "device", more) as web:
            web.send(b"again")
            assert hear(web, 5) == b"again"
            server.control("kick", SERIAL)
            assert code_of(web)[0] == 4009
        site.until_parked(4)
        control.ask("end", session=session)
    ended = server.wait_event("session-ended", session=session)
    assert (ended["reason"], ended["bytes_to_device"]) == ("owner", MIB + 5)
    (device,) = server.control("devices")["devices"]
    assert {each["name"] for each in device["targets"]} == {"cccp", "device"}
    assert device["bytes_to_device"] == MIB + 7 + 5


def test_the_persons_program(made: Made, tmp_path: Path) -> None:
    """A local port of revtunnel-connect: half-close and all bytes, one connection after the other."""
    site = made(digest)
    ana = Person(site.server, "ana", (SERIAL, "*"))
    url = f"http://127.0.0.1:{site.server.web_port}"
    login = Program(tmp_path, "login", url).feed(ana.token.encode() + b"\n")
    assert login.status() == 0, login.err.read_text()
    run = Program(tmp_path, "--json", f"{SERIAL}/device")
    port = run.event("listening", service="device")["port"]
    for number in range(3):
        site.until_parked(number + 1)
        data = os.urandom(3 * MIB)
        assert talk(port, data) == hashlib.sha256(data).hexdigest().encode()
    site.server.wait_event("channel-ended", 3, serial=SERIAL)
    reasons = [each["reason"] for each in site.server.events("channel-ended", serial=SERIAL)]
    assert reasons == ["closed"] * 3
    assert run.interrupt().status() == 0, run.err.read_text()


def test_a_device_that_is_cut_is_no_end(made: Made) -> None:
    """Whoever resets, and whatever ends the session: the other side sees no end in order."""

    def cut(sock: socket.socket) -> None:
        data = sock.recv(100)
        sock.sendall(data)
        if data == b"cut":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            return
        endings.append(closed(sock))

    endings: list[str] = []
    site = made(cut)
    ana = Person(site.server, "ana", (SERIAL, "device"))
    with ana.control() as control:
        session, nonce = control.start("device", device=SERIAL)
        with ana.raw(session, "device", nonce) as web:
            web.send(b"cut")
            assert code_of(web) == (4007, "reset-by-peer")
        site.until_parked(2)
        more = control.ask("nonce", session=session)["nonce"]
        with ana.raw(session, "device", more) as web:
            web.send(b"stay")
            assert hear(web, 4) == b"stay"
            control.ask("end", session=session)
            assert code_of(web) == (4009, "owner")
        site.server.wait_until(lambda: endings == ["reset"], "the device's ending")
    with ana.control() as control:
        session, nonce = control.start("device", device=SERIAL)
        with ana.raw(session, "device", nonce) as web:
            web.send(b"stay")
            assert hear(web, 4) == b"stay"
            site.server.signal(signal.SIGTERM)
            assert code_of(web)[0] == 4011
    assert endings == ["reset", "reset"]


def test_a_record_that_denies_the_service_cuts_it_and_opens_no_port(made: Made) -> None:
    """At a reload, while it runs."""
    site = made(echo)
    server = site.server
    ana = Person(server, "ana", (SERIAL, "device"))
    with ana.control() as control:
        session, nonce = control.start("device", device=SERIAL)
        with ana.raw(session, "device", nonce) as web:
            web.send(b"x")
            assert hear(web, 1) == b"x"
            server.write(**{f"device {SERIAL}": {"targets": "ssh"}})
            server.signal(signal.SIGHUP)
            assert code_of(web)[0] == 4004
    assert server.control("ports")["ports"] == []
