"""AWS's localproxy at a real server: both ends, each version with each, ends, limits; the program itself."""

import contextlib
import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.daemons import Lab, Server
from tests.support.localproxy_model import Destination, RealLocalproxy, Source, open_tunnel
from tests.support.ports import free_ports
from tests.support.services import Echo, Refuser, Service
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import connect, read_exactly, wait_until
from tests.support.turns import trusting
from tests.support.web_people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROGRAM = os.environ.get("REVTUNNEL_LOCALPROXY", "")
TOKEN = "a" * 40
KIB = 1024


class Answer(Service):
    """Hears a question, says 200,000 bytes, and closes."""

    DATA = hashlib.shake_128(b"answer").digest(200_000)

    def serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            sock.recv(100)
            sock.sendall(self.DATA)


def tunnel_server(lab: Lab, web: dict[str, object] | None = None, **services: str) -> Server:
    """A server at which plc-9 may come as a localproxy with these services."""
    settings = {
        "web main": {"address": "127.0.0.1:0", **(web or {})},
        "localproxy": {"devices": "yes"},
        "device plc-9": {"services": [f"{name}={target}" for name, target in services.items()]},
    }
    return lab.server(settings).start()


def address(service: Service | Refuser) -> tuple[str, int]:
    """Where it is."""
    host, _, port = service.target.rpartition(":")
    return host, int(port)


def nonce_of(person: Person, device: str, *services: str) -> tuple[str, str]:
    """A session of theirs: its id, and what lets its owner in."""
    with person.control() as control:
        started = control.ask("start", device=device, services=list(services))
        return started["session"], started["nonce"]


def destination(server: Server, version: int = 3, **targets: tuple[str, int]) -> Destination:
    """plc-9."""
    key = server.control("enroll", "plc-9", "--app-key", "--replace")["key"]
    return Destination(open_tunnel(server.web_port, "destination", key, "", version), version, targets)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_source_reaches_a_device_with_an_agent(lab: Lab, version: int) -> None:
    """Each version: bytes both ways, an end of the service behind its last byte, a refusal at once."""
    with Echo() as echo, Answer() as answer, Refuser() as refuser:
        server, _ = lab.pair(
            {"web main": {"address": "127.0.0.1:0"}},
            echo=echo.target,
            answer=answer.target,
            refused=refuser.target,
        )
        ana = Person(server, "ana", ("plc-7", "echo,answer,refused"))
        for service in ("echo", "answer", "refused"):
            _, nonce = nonce_of(ana, "plc-7", service)
            with Source(open_tunnel(server.web_port, "source", nonce), version) as source:
                assert source.services == (service,)
                number = source.open(service)
                if service == "refused":
                    assert source.expect_end(number) == b""
                    continue
                data = hashlib.shake_128(service.encode()).digest(300_000)
                if service == "echo":
                    source.send(number, data)
                    assert source.expect(number, len(data)) == data
                    source.reset(number)
                    server.wait_event("channel-ended", target="echo")
                else:
                    source.send(number, b"question")
                    assert source.expect_end(number) == Answer.DATA


def test_many_connections_at_once(lab: Lab) -> None:
    """Twenty of one source at once, each with its own bytes, in one listed session."""
    with Echo() as echo:
        server, _ = lab.pair({"web main": {"address": "127.0.0.1:0"}}, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "echo"))
        session, nonce = nonce_of(ana, "plc-7", "echo")
        with Source(open_tunnel(server.web_port, "source", nonce)) as source:
            assert [
                each["session"] for each in server.control("sessions")["sessions"] if each["session"]
            ] == [session]
            numbers = [source.open("echo") for _ in range(20)]
            for number in numbers:
                source.send(number, b"%d" % number * 2000)
            for number in numbers:
                size = len(b"%d" % number) * 2000
                assert source.expect(number, size) == b"%d" % number * 2000


def test_a_nonce_is_good_once_and_with_a_client_token_again(lab: Lab) -> None:
    """401 for a second use; with the same client-token it lets in again, with another it does not."""
    with Echo() as echo:
        server, _ = lab.pair({"web main": {"address": "127.0.0.1:0"}}, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "echo"))
        _, nonce = nonce_of(ana, "plc-7", "echo")
        port = server.web_port
        with Source(open_tunnel(port, "source", nonce)), pytest.raises(InvalidStatus, match="401"):
            open_tunnel(port, "source", nonce)
        _, nonce = nonce_of(ana, "plc-7", "echo")
        for _ in range(3):
            with Source(open_tunnel(port, "source", nonce, TOKEN)) as source:
                number = source.open("echo")
                source.send(number, b"again")
                assert source.expect(number, 5) == b"again"
        for wrong in ("b" * 40, ""):
            with pytest.raises(InvalidStatus, match="401"):
                open_tunnel(port, "source", nonce, wrong)
        for mode, token in (("destination", nonce), ("source", "x" * 43), ("both", nonce)):
            with pytest.raises(InvalidStatus, match=r"40[01]"):
                open_tunnel(port, mode, token)


def test_a_session_that_ends_closes_its_tunnel(lab: Lab) -> None:
    """SESSION_RESET, and a close with the word."""
    with Echo() as echo:
        server, _ = lab.pair({"web main": {"address": "127.0.0.1:0"}}, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "echo"))
        session, nonce = nonce_of(ana, "plc-7", "echo")
        with Source(open_tunnel(server.web_port, "source", nonce)) as source:
            number = source.open("echo")
            source.send(number, b"here")
            assert source.expect(number, 4) == b"here"
            server.control("session", "end", session)
            source.expect_end(number)
            source.wait(lambda: source.closed, "the close")
            assert source.closed is not None and source.closed.rcvd is not None
            assert source.closed.rcvd.code > 4000


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_destination_is_a_device(lab: Lab, version: int) -> None:
    """Listed, with a port; bytes both ways, one at a time before version 3; its end, and a refusal."""
    with Echo() as echo, Answer() as answer, Refuser() as refuser:
        targets = {"echo": address(echo), "answer": address(answer), "refused": address(refuser)}
        if version == 1:
            targets = {"echo": address(echo)}
        server = tunnel_server(lab, **dict.fromkeys(targets, "127.0.0.1:1"))
        with destination(server, version, **targets) as device:
            assert device.services == tuple(targets)
            port = server.client_port("plc-9", "echo")
            (row,) = server.control("devices")["devices"]
            assert (row["link"], row["software"]) == ("localproxy", f"aws localproxy, V{version}")
            data = hashlib.shake_128(b"device").digest(300_000)
            with connect(port) as sock:
                threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
                assert read_exactly(sock, len(data)) == data
            if version == 1:
                return
            for _ in range(3):
                with connect(server.client_port("plc-9", "answer")) as sock:
                    sock.sendall(b"question")
                    heard = b""
                    while piece := sock.recv(65536):
                        heard += piece
                    assert heard == Answer.DATA
            with connect(server.client_port("plc-9", "refused")) as sock, pytest.raises(ConnectionResetError):
                sock.recv(1)
        server.wait_event("link-down", serial="plc-9")


@pytest.mark.parametrize("theirs", [1, 2, 3])
@pytest.mark.parametrize("ours", [1, 2, 3])
def test_each_version_with_each(lab: Lab, ours: int, theirs: int) -> None:
    """A source of one version reaches a destination of another: converted, never passed on."""
    with Echo() as echo:
        server = tunnel_server(lab, echo="127.0.0.1:1")
        ana = Person(server, "ana", ("plc-9", "echo"))
        with destination(server, theirs, echo=address(echo)):
            server.client_port("plc-9", "echo")
            _, nonce = nonce_of(ana, "plc-9", "echo")
            with Source(open_tunnel(server.web_port, "source", nonce), ours) as source:
                data = hashlib.shake_128(b"both").digest(200_000)
                number = source.open("echo")
                source.send(number, data)
                assert source.expect(number, len(data)) == data


def test_a_clients_end_of_file_is_held_for_the_answer(lab: Lab) -> None:
    """A reset would lose all of it."""
    with Answer() as answer:
        server = tunnel_server(lab, answer="127.0.0.1:1")
        with (
            destination(server, 3, answer=address(answer)),
            connect(server.client_port("plc-9", "answer")) as sock,
        ):
            sock.sendall(b"question")
            sock.shutdown(socket.SHUT_WR)
            heard = b""
            while piece := sock.recv(65536):
                heard += piece
            assert heard == Answer.DATA


def test_what_a_device_may_not(lab: Lab) -> None:
    """No way in without the setting, without services, or with somebody's nonce."""
    with Echo() as echo:
        server = lab.server({"web main": {"address": "127.0.0.1:0"}}).start()
        key = server.control("enroll", "plc-9", "--app-key")["key"]
        with pytest.raises(InvalidStatus, match="403"):
            open_tunnel(server.web_port, "destination", key)
        server.write(localproxy={"devices": "yes"})
        server.control("reload")
        with pytest.raises(InvalidStatus, match="403"):
            open_tunnel(server.web_port, "destination", key)
        server.write(**{"device plc-9": {"services": f"echo={echo.target}"}})
        server.control("reload")
        with Destination(open_tunnel(server.web_port, "destination", key), 3, {}) as device:
            assert device.services == ("echo",)
            server.control("kick", "plc-9")
            device.wait(lambda: device.closed, "the close")


# -- the program itself


@pytest.mark.skipif(not PROGRAM, reason="REVTUNNEL_LOCALPROXY names no localproxy")
@pytest.mark.parametrize("flags", [(), ("-y", "V2"), ("-y", "V1")], ids=["V3", "V2", "V1"])
def test_the_program_in_both_modes(lab: Lab, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Unmodified, over TLS: a source and a destination, a megabyte each way, an answer and its end."""
    issuer = Issuer(tmp_path)
    issued = issuer.server("localhost", "127.0.0.1")
    web = {"tls": "yes", "certificate": issued.certificate_file, "certificate_key": issued.key_file}
    with Echo() as echo, Answer() as answer:
        server = tunnel_server(lab, web, echo="127.0.0.1:1", answer="127.0.0.1:2")
        key = server.control("enroll", "plc-9", "--app-key")["key"]
        trusted = [issuer.file, issued.certificate_file]
        (tmp_path / "d").mkdir()
        (tmp_path / "s").mkdir()
        targets = f"echo={echo.target},answer={answer.target}"
        with RealLocalproxy(
            PROGRAM, tmp_path / "d", server.web_port, trusted, key, "-m", "dst", "-d", targets
        ):
            server.client_port("plc-9", "echo")
            user = server.control("user", "add", "ana")
            server.control("grant", "ana", "plc-9", "echo,answer", "--actions", "list,start,end")
            _, nonce = started_over_tls(
                server, user["token"], issuer.file, ("echo",) if flags else ("echo", "answer")
            )
            first, second = free_ports(2)
            mapping = f"echo={first}" if flags else f"echo={first},answer={second}"
            source = RealLocalproxy(
                PROGRAM, tmp_path / "s", server.web_port, trusted, nonce, "-m", "src", "-s", mapping, *flags
            )
            with source:
                # seen from its log: before V3 a connection that only looks is taken for the next one too
                wait_until(
                    lambda: f"new connection on port {first}" in source.log.read_text("latin-1"), "its port"
                )
                data = hashlib.shake_128(b"real").digest(KIB * KIB)
                with connect(first) as sock:
                    threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
                    assert read_exactly(sock, len(data)) == data
                if not flags:
                    for _ in range(3):
                        with connect(second) as sock:
                            sock.sendall(b"question")
                            heard = b""
                            while piece := sock.recv(65536):
                                heard += piece
                            assert heard == Answer.DATA


def started_over_tls(
    server: Server, token: str, authority: str, services: tuple[str, ...]
) -> tuple[str, str]:
    """A session of whoever has this token."""
    import json

    from websockets.sync.client import connect as web_connect

    with web_connect(
        f"wss://localhost:{server.web_port}/control",
        ssl=trusting(authority),
        subprotocols=["revtunnel.control.1"],  # type: ignore[list-item]
        additional_headers={"Authorization": f"Bearer {token}"},
        proxy=None,
    ) as web:
        web.recv(timeout=10)
        web.send(json.dumps({"id": 1, "ask": "start", "device": "plc-9", "services": list(services)}))
        answer = json.loads(web.recv(timeout=10))
        assert "ok" in answer, answer
        return answer["ok"]["session"], answer["ok"]["nonce"]
