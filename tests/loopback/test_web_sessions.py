"""Remote sessions through real processes: bytes both ways, endings, rights that go, a server that stops."""

import contextlib
import hashlib
import json
import signal
import socket
import threading
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.daemons import Agent, Lab, Server
from tests.support.ports import free_ports
from tests.support.services import Echo, Service
from tests.support.throwaway_tls import Issuer
from tests.support.turns import trusting
from tests.support.web_people import ConnectionClosed, Person, code_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WEB = {"web main": {"address": "127.0.0.1:0"}}
MIB = 1024 * 1024


class Digest(Service):
    """Reads to the end of file, then says how many bytes came and their hash: it needs a half-close."""

    def serve(self, sock: socket.socket, number: int) -> None:
        seen, size = hashlib.sha256(), 0
        while data := sock.recv(65536):
            seen.update(data)
            size += len(data)
        sock.sendall(f"{size} {seen.hexdigest()}".encode())
        sock.shutdown(socket.SHUT_WR)


class Blob(Service):
    """Sends 8 MiB, and ends."""

    DATA = hashlib.shake_128(b"blob").digest(8 * MIB)

    def serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(self.DATA)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)


def world(lab: Lab, data: str = "auto", **offers: str) -> tuple[Server, Agent]:
    """A server with a web listener, and a device."""
    return lab.pair({**WEB, "listener main": {"address": "127.0.0.1:0", "data": data}}, **offers)


def status_of(person: Person, *args: Any, **more: Any) -> int:
    """Of a refused WebSocket."""
    with pytest.raises(InvalidStatus) as caught:
        person.open(*args, **more)
    return int(caught.value.response.status_code)


def audit(server: Server, event: str) -> list[dict[str, Any]]:
    """Lines of the audit file."""
    assert server.control("audit", "head")["open"] >= 0  # what waits is written with it
    path = server.directory / f"{server.name}.state" / "audit.jsonl"
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("data", ["link", "socket"])
def test_bytes_both_ways_by_either_carrier(lab: Lab, data: str) -> None:
    """What is sent comes back, exact; the end of file of the service is a 1000; accounts and audit agree."""
    with Echo() as echo, Blob() as blob:
        server, _ = world(lab, data, echo=echo.target, blob=blob.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        with ana.control() as control:
            assert (control.hello["user"], control.hello["say"]) == ("ana", "hello")
            listed = control.ask("services")["services"]
            assert [(each["device"], each["service"], each["online"]) for each in listed] == [
                ("plc-7", "blob", True),
                ("plc-7", "echo", True),
            ] or {each["service"] for each in listed} == {"blob", "echo"}
            session, nonce = control.start("echo", "blob")
            sent = hashlib.shake_128(b"up").digest(2 * MIB)
            with ana.raw(session, "echo", nonce) as web:

                def send() -> None:
                    for at in range(0, len(sent), 60_000):
                        web.send(sent[at : at + 60_000])
                    web.send("text is bytes as well")

                sender = threading.Thread(target=send)
                sender.start()
                back = b""
                while len(back) < len(sent) + 21:
                    piece = web.recv(timeout=20)
                    assert isinstance(piece, bytes)
                    back += piece
                sender.join()
                assert back == sent + b"text is bytes as well"
            nonce = control.ask("nonce", session=session, browser=True)["nonce"]
            with ana.raw(session, "blob", nonce) as web:
                got = b""
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        got += web.recv(timeout=20)  # type: ignore[operator]
                assert got == Blob.DATA
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
            control.ask("end", session=session)
        ended = server.wait_event("session-ended", session=session)
        assert ended["reason"] == "owner"
        assert (ended["bytes_to_device"], ended["connections"]) == (len(sent) + 21, 2)
        assert ended["bytes_to_client"] == len(sent) + 21 + len(Blob.DATA)
        [opened] = audit(server, "session-opened")
        [over] = audit(server, "session-closed")
        assert (opened["user"], opened["services"], over["cause"]) == ("ana", ["echo", "blob"], "owner")
        assert (over["bytes_to_device"], over["bytes_to_client"]) == (
            ended["bytes_to_device"],
            ended["bytes_to_client"],
        )


def test_a_close_of_the_person_is_an_end_of_file_for_the_service(lab: Lab) -> None:
    """It gets all, then the end of file, whatever it answers to nobody."""
    with Digest() as digest:
        server, _ = world(lab, digest=digest.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        with ana.control() as control:
            session, nonce = control.start("digest")
            with ana.raw(session, "digest", nonce) as web:
                web.send(b"x" * 100_000)
            ended = server.wait_event("channel-ended", target="digest")
            assert (ended["reason"], ended["bytes_to_device"]) == ("closed", 100_000)


def test_what_is_refused(lab: Lab) -> None:
    """Each with its status, an audit record, and the word; nothing of it ends the session that runs."""
    with Echo() as echo:
        server, _ = world(lab, echo=echo.target)
        ana, ben = Person(server, "ana", ("plc-*", "*")), Person(server, "ben")
        assert status_of(ana, "/control", "rtuser1_wrong", subprotocols=["revtunnel.control.1"]) == 401
        assert status_of(ana, "/control", ana.token) == 400
        assert (
            status_of(ana, "/control", ana.token, subprotocols=["revtunnel.control.1"], origin="http://x")
            == 403
        )
        with ben.control() as control:
            assert control.ask("services")["services"] == []
            answer = control.answer("start", device="plc-7", services=["echo"])
            assert answer["error"]["word"] == "denied"
        with ana.control() as control:
            for device, services, word in (
                ("plc-8", ["echo"], "unknown"),
                ("plc-7", ["ssh"], "unknown"),
                ("plc-7", [], "malformed"),
            ):
                answer = control.answer("start", device=device, services=services)
                assert answer["error"]["word"] == word
            session, nonce = control.start("echo")
            path = f"/session/raw/{session}/echo"
            assert status_of(ana, path, "A" * 43) == 401
            assert status_of(ana, path) == 401
            assert status_of(ana, path + "x", nonce) == 404
            assert status_of(ana, f"/session/raw/{'0' * 32}/echo", nonce) == 403
            assert status_of(ana, f"/session/client/{session}", nonce) == 400
            with ana.raw(session, "echo", nonce) as web:
                web.send(b"still good")
                assert web.recv(timeout=20) == b"still good"
                assert status_of(ana, path, nonce) == 401
                web.send(b"and again")
                assert web.recv(timeout=20) == b"and again"
            control.ask("end", session=session)
            assert status_of(ana, path, nonce) in (401, 410)
        causes = {(each["action"], each["cause"]) for each in audit(server, "refused")}
        assert causes >= {
            ("login", "malformed"),
            ("start", "no-grant"),
            ("start", "unknown"),
            ("enter", "wrong"),
            ("enter", "elsewhere"),
            ("enter", "used"),
        }


def test_rights_that_go_cut_what_runs(lab: Lab) -> None:
    """A revoked token, a removed user, a removed grant, a mute, an operator: each with its word at once."""
    with Echo() as echo:
        server, _ = world(lab, echo=echo.target)
        for number, (how, code, word) in enumerate(
            (
                (lambda ana: ("token", "revoke", ana.name), 4001, "revoked"),
                (lambda ana: ("user", "remove", ana.name), 4001, "revoked"),
                (lambda ana: ("grant", "remove", ana.grants[0]), 4001, "revoked"),
                (lambda ana: ("mute", "plc-7"), 4004, "muted"),
            )
        ):
            ana = Person(server, f"ana{number}", ("plc-7", "*"))
            with ana.control() as control:
                session, nonce = control.start("echo")
                with ana.raw(session, "echo", nonce) as web:
                    web.send(b"x")
                    assert web.recv(timeout=20) == b"x"
                    server.control(*how(ana))
                    got, reason = code_of(web)
                    assert (got, reason.partition(":")[0]) == (code, word)
                if word == "revoked" and number < 2:
                    assert code_of(control.web)[0] == 4001
        assert [each["cause"] for each in audit(server, "session-closed")] == ["revoked"] * 3 + ["muted"]
        server.control("unmute", "plc-7")
        ana = Person(server, "zoe", ("plc-7", "*"))
        with ana.control() as control:
            session, nonce = control.start("echo")
            with ana.raw(session, "echo", nonce) as web:
                rows = server.control("sessions")["sessions"]
                [row] = [each for each in rows if each["kind"] == "remote"]
                assert (row["user"], row["session"], row["target"]) == ("zoe", session, "echo")
                assert len(rows) == 1  # its connection is no other use
                server.control("session", "end", session[:8])
                assert code_of(web) == (4009, "operator")


def test_sharing(lab: Lab) -> None:
    """An invitation to use lets a granted person in, one to watch shows the owner's; the owner ends all."""
    with Echo() as echo:
        server, _ = world(lab, echo=echo.target)
        ana, ben = Person(server, "ana", ("plc-7", "*")), Person(server, "ben")
        with ana.control() as control:
            session, nonce = control.start("echo")
            answer = control.answer("share", session=session, role="use", **{"with": "ben"})
            assert answer["error"]["word"] == "denied"
            ben.grant("plc-7", "echo", "start")
            shared = control.ask("share", session=session, role="use", **{"with": "ben"})
            assert shared["url"].endswith(f"/s/{session}#{shared['nonce']}")
            made = server.control("session", "share", session, "--with", "ben", "--watch")
            with ana.raw(session, "echo", nonce) as mine, ben.raw(session, "echo", shared["nonce"]) as his:
                with ben.raw(session, "echo", made["nonce"]) as watching:
                    assert watching.recv(timeout=20) == '{"live": true}'
                    for web, said in ((his, b"y"), (mine, b"x")):
                        web.send(said)
                        assert web.recv(timeout=20) == said
                    assert watching.recv(timeout=20) == b"x"  # the owner's, and nobody else's
                    watching.send(b"z")
                    assert code_of(watching)[0] == 4004
                control.ask("end", session=session)
                assert code_of(mine) == code_of(his) == (4009, "owner")


def test_one_who_never_reads_holds_a_window_and_hurts_nobody(lab: Lab) -> None:
    """The device's service is stopped; others go on."""
    with Blob() as blob, Echo() as echo:
        server, agent = world(lab, echo=echo.target, blob=blob.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        with ana.control() as control:
            session, nonce = control.start("echo", "blob")
            base = server.resident(), agent.resident()
            stalled = ana.raw(session, "blob", nonce, max_queue=1)
            with ana.raw(
                session, "echo", control.ask("nonce", session=session, browser=True)["nonce"]
            ) as web:
                for _ in range(50):
                    web.send(b"y" * 10_000)
                    assert len(web.recv(timeout=20)) <= 10_000
                grown = server.resident() - base[0], agent.resident() - base[1]
                assert max(grown) < 64 * MIB
                stalled.socket.shutdown(socket.SHUT_RDWR)


def test_a_device_that_goes_leaves_its_grace_and_a_server_that_stops_says_so(lab: Lab) -> None:
    """The connection is cut with a word, the session lives and goes on when the device is back; then 4011."""
    with Echo() as echo:
        server, agent = world(lab, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        with ana.control() as control:
            session, nonce = control.start("echo")
            with ana.raw(session, "echo", nonce) as web:
                web.send(b"x")
                assert web.recv(timeout=20) == b"x"
                agent.kill()
                code, _ = code_of(web)
                assert code != 1000
            assert control.answer("start", device="plc-7", services=["echo"])["error"]["word"] == "offline"
            agent.start()
            server.wait_event("link-up", 2, serial="plc-7")
            nonce = control.ask("nonce", session=session, browser=True)["nonce"]
            with ana.raw(session, "echo", nonce) as web:
                web.send(b"back")
                assert web.recv(timeout=20) == b"back"
                server.signal(signal.SIGTERM)
                assert code_of(web) == (4011, "stopping")
                assert code_of(control.web) == (1001, "stopping")
        assert server.wait() == 0
        ended = [each for each in server.all_events() if each["event"] == "session-ended"]
        assert [each["reason"] for each in ended] == ["stopping"]


def test_devices_of_other_wires(lab: Lab) -> None:
    """A ReadyAgent device, and machines of EMO of either kind: a session reaches them as it is."""
    with Echo() as echo:
        ports = free_ports(2)
        legacy = {
            "address": "127.0.0.1:0",
            "kind": "legacy",
            "serial": "press-4",
            "probe": "no",
            "mappings": [f"0 -> it={echo.target}"],
        }
        settings = {
            **WEB,
            "listener main": {"address": "127.0.0.1:0", "kind": "emo"},
            "listener press": legacy,
            "reservations": {"mill-1/emo": ports[0], "mill-2/emo": ports[1]},
        }
        server = lab.server(settings).start()
        at = [f"127.0.0.1:{port}" for port in server.ports]
        for number, modern in enumerate(("auto", "no")):
            options = ["--emo", "--server-port", str(ports[number]), "--modern", modern]
            machine = f"mill-{number + 1}"
            lab.add(Agent(lab.directory, machine, at[:1], {"emo": echo.target}, options=options)).start()
            server.client_port(machine, "emo")
        lab.add(Agent(lab.directory, "press-4", at[1:], {"it": echo.target}, options=["--legacy"])).start()
        server.client_port("press-4", "it")
        ana = Person(server, "ana", ("*", "*"))
        with ana.control() as control:
            for device, service in (("press-4", "it"), ("mill-1", "emo"), ("mill-2", "emo")):
                session, nonce = control.start(service, device=device)
                with ana.raw(session, service, nonce) as web:
                    sent = hashlib.shake_128(device.encode()).digest(50_000)
                    web.send(sent)
                    back = b""
                    while len(back) < len(sent):
                        piece = web.recv(timeout=20)
                        assert isinstance(piece, bytes)
                        back += piece
                    assert back == sent
                control.ask("end", session=session)
        reasons = {each["serial"]: each["reason"] for each in server.events("session-ended")}
        assert reasons == {"press-4": "owner", "mill-1": "owner", "mill-2": "owner"}


def test_over_tls_and_behind_a_balancer(lab: Lab) -> None:
    """wss with the server's certificate; the client's address is the one of the PROXY header."""
    issued = Issuer(lab.directory).server("127.0.0.1")
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    headed = {"proxy_protocol": "v1", "proxy_from": "127.0.0.1"}
    with Echo() as echo:
        web = {"web main": {"address": "127.0.0.1:0", "tls": "yes", **files, **headed}}
        server, _ = lab.pair(web, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        context = trusting(str(lab.directory / "test-authority.pem"))

        def headed_socket() -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", server.web_port))
            sock.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n")
            return sock

        def over() -> dict[str, Any]:
            return {"ssl": context, "sock": headed_socket()}

        with ana.control(**over()) as control:
            session, nonce = control.start("echo")
            with ana.raw(session, "echo", nonce, **over()) as raw:
                raw.send(b"x")
                assert raw.recv(timeout=20) == b"x"
        assert server.wait_event("session-started")["peer"] == "203.0.113.9:4711"
        assert server.wait_event("channel-opened")["peer"] == "203.0.113.9:4711"
        with socket.create_connection(("127.0.0.1", server.web_port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) == b""
        assert server.wait_event("web-refused")["reason"] == "proxy-header"


def test_a_flood_of_upgrades_of_one_address_hurts_no_other(lab: Lab) -> None:
    """Thousands that fail, from an address that is not exempt: it is turned away, a session goes on."""
    web = {"web main": {"address": "127.0.0.1:0"}, "penalties": {"exempt": "127.0.0.1"}}
    with Echo() as echo:
        server, _ = lab.pair(web, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        request = b"GET /control HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        request += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        request += b"Sec-WebSocket-Protocol: revtunnel.control.1\r\nAuthorization: Bearer x\r\n\r\n"
        answered = 0
        with ana.control() as control:
            session, nonce = control.start("echo")
            with ana.raw(session, "echo", nonce) as raw:
                for number in range(2000):
                    with contextlib.suppress(OSError), socket.socket() as sock:
                        sock.bind(("127.0.0.9", 0))
                        sock.connect(("127.0.0.1", server.web_port))
                        sock.sendall(request)
                        answered += sock.recv(100).startswith(b"HTTP/1.1 401")
                    if number % 100 == 0:
                        raw.send(b"x")
                        assert raw.recv(timeout=20) == b"x"
        assert 1 <= answered < 20
        assert server.control("status")["counts"]["web-refused penalty"] > 1900
