"""Whole daemons over mutual TLS: what is carried, who is refused in which words, what strangers get."""

import contextlib
import hashlib
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support.daemons import Agent, Lab, Server, Settings
from tests.support.services import Echo, HalfCloseFirst, ReplyAfterEof, Service, digest_of
from tests.support.throwaway_tls import DEVICE_URI, DEVICES, SERVERS, Issued, Issuer
from tests.support.traffic import MIB, Patterned, connect, exchange, in_thread, read_exactly, wait_until

pytestmark = pytest.mark.slow

LISTEN = bytes.fromhex("00000400")
HOST = "127.0.0.1"


class Firm:
    """An authority, its server and its devices, in the directory of a test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.issuer = Issuer(lab.directory)
        self.issued = self.issuer.server(HOST)

    def listener(self, **more: object) -> Settings:
        """The settings of a server that speaks TLS."""
        files = {
            "certificate": self.issued.certificate_file,
            "certificate_key": self.issued.key_file,
            "authority": self.issuer.file,
        }
        return {"listener main": {"tls": "yes", **files, **more}, "link": {"handshake": "2 s"}}

    def server(self, **more: object) -> Server:
        """A server, running."""
        server: Server = self.lab.server(self.listener(**more)).start()
        return server

    def agent(self, server: Server | int, device: Issued, serial: str = "plc-7", **more: Any) -> Agent:
        """An agent with a device's certificate, running."""
        port = server if isinstance(server, int) else server.port
        settings = {"agent": self.files(device) | {"retry_first": "0.1 s", "retry_most": "1 s"}}
        offers = more.pop("offers", {"it": f"{HOST}:9"})
        agent = Agent(self.lab.directory, serial, [f"{HOST}:{port}"], offers, settings, **more)
        started: Agent = self.lab.add(agent).start()
        return started

    def files(self, device: Issued) -> dict[str, object]:
        """What an agent is told."""
        return {
            "authority": self.issuer.file,
            "certificate": device.certificate_file,
            "certificate_key": device.key_file,
        }


@pytest.fixture
def firm(lab: Lab) -> Firm:
    """One authority for a test."""
    return Firm(lab)


def refusal(server: Server, reason: str = "certificate", count: int = 1) -> str:
    """Why the server refused whoever came last, once it has refused so many for that reason."""
    return str(server.wait_event("link-refused", count, reason=reason)["detail"])


def away(agent: Agent) -> str:
    """Why an agent is away."""
    return str(agent.wait_event("state", state="away")["detail"])


def shown_by(port: int) -> str:
    """The fingerprint of the certificate that a server shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(port) as sock, context.wrap_socket(sock) as secured:
        return hashlib.sha256(secured.getpeercert(True) or b"").hexdigest()


# ---- what is carried


@pytest.mark.parametrize("data", ["link", "socket"])
def test_streams_and_half_closes_over_tls(firm: Firm, data: str) -> None:
    """Bytes both ways, an end of file on either side first: all arrives, on the link and on data sockets."""
    words = b"question" * 9999
    with Patterned() as bulk, ReplyAfterEof(2 * MIB) as late, HalfCloseFirst(b"that was all") as first:
        server = firm.server(data=data)
        offers = {"bulk": bulk.target, "late": late.target, "first": first.target}
        firm.agent(server, firm.issuer.device("plc-7"), offers=offers)
        up = server.wait_link("plc-7")
        assert (up["tls"], up["authenticated"]) == ("TLSv1.3", True)

        exchange(server.client_port("plc-7", "bulk"), 1, 16 * MIB, 16 * MIB)
        with connect(server.client_port("plc-7", "late")) as client:
            client.sendall(words)
            client.shutdown(socket.SHUT_WR)
            answer = read_exactly(client, 3 * MIB)
        assert answer[:32] == hashlib.sha256(words).digest()
        assert hashlib.sha256(answer[32:]).hexdigest() == digest_of(2 * MIB, 1)
        with connect(server.client_port("plc-7", "first")) as client:
            assert read_exactly(client, 100) == b"that was all"
            client.sendall(words)
            client.shutdown(socket.SHUT_WR)
            first.record.wait("end of file", 1)
        assert first.digests[1] == hashlib.sha256(words).hexdigest()
        server.wait_event("channel-ended", count=3, reason="closed")


def test_devices_are_listed_with_their_certificates(firm: Firm) -> None:
    """What operators see: the version of TLS, and until when the certificate is good."""
    server = firm.server()
    device = firm.issuer.device("plc-7")
    firm.agent(server, device)
    server.wait_link("plc-7")
    (row,) = server.control("devices")["devices"]
    assert row["tls"] == "TLSv1.3" and row["authenticated"] is True
    assert row["certificate"] == device.certificate.fingerprint(hashes.SHA256()).hex()
    assert row["certificate_until"] == device.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_serial_needs_no_other_place_than_the_certificate(firm: Firm) -> None:
    """An agent without --serial is whom its certificate says."""
    server = firm.server()
    agent = firm.agent(server, firm.issuer.device("press:4"), serial="auto")
    server.wait_link("press:4")
    assert agent.wait_event("link-up")["tls"] == "TLSv1.3"


def test_a_key_and_a_certificate_go_together(firm: Firm) -> None:
    """Who has both comes in by the certificate; where TLS asks for none, the key is proved."""
    server = firm.server(device_certificates="optional", keys="required")
    key = firm.lab.directory / "plc-7.devicekey"
    server.control("enroll", "plc-7", "--key", "--out", str(key))
    both = firm.agent(server, firm.issuer.device("plc-7"), options=["--key-file", str(key)])
    assert server.wait_link("plc-7")["authenticated"] is True
    both.stop()
    settings = {"agent": {"authority": firm.issuer.file}}
    agent = firm.lab.agent(
        server,
        offers={"it": f"{HOST}:9"},
        settings=settings,
        options=["--key-file", str(key)],
        name="with-key",
    ).start()
    assert server.wait_link("plc-7", 2)["authenticated"] is True
    assert agent.wait_event("link-up")["tls"] == "TLSv1.3"


# ---- whom the server refuses


def test_n34_other_authority(firm: Firm, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A certificate of a stranger's authority: refused on both sides in words, tried again, never let in."""
    other = Issuer(tmp_path_factory.mktemp("other"), "others")
    server = firm.server()
    agent = firm.agent(server, other.device("plc-7"))
    assert "signed by another authority ('CN=others')" in refusal(server)
    assert "the other side refused our certificate: signed by another authority" in away(agent)
    server.wait_event("link-refused", 2, reason="certificate")
    assert not server.events("link-up")


def test_n34_revoked_by_the_list_of_the_authority(firm: Firm) -> None:
    """A list of revoked certificates counts after SIGHUP, without a restart."""
    device = firm.issuer.device("plc-7")
    crl = firm.issuer.revoke()
    server = firm.server(crl=crl)
    agent = firm.agent(server, device)
    server.wait_link("plc-7")
    agent.stop()
    firm.issuer.revoke(device)
    server.signal(signal.SIGHUP)
    assert "[listener main] certificate files" in server.wait_event("settings-reloaded")["changed"]
    agent = firm.agent(server, device, name="again")
    assert refusal(server) == "certificate is revoked"
    assert "the other side refused our certificate: revoked" in away(agent)


def peculiar(issuer: Issuer) -> dict[str, tuple[Issued, str]]:
    """Certificates that no server takes, and the words of their refusal."""
    return {
        "expired": (issuer.device("plc-7", file="e", until=-timedelta(hours=1)), "certificate expired on "),
        "not yet": (
            issuer.device("plc-7", file="n", since=timedelta(days=2)),
            "is the clock of this machine",
        ),
        "nameless": (issuer.issue("x", None, DEVICES, common_name="plc-7"), "certificate has no name"),
        "a server's": (issuer.device("plc-7", file="s", uses=SERVERS), "for another use"),
    }


def test_n34_openssl_with_a_wrong_certificate(firm: Firm) -> None:
    """``openssl s_client`` gets an alert and not a byte of ours; the log names the check."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    server = firm.server()
    for count, (issued, words) in enumerate(peculiar(firm.issuer).values(), 1):
        files = ["-cert", issued.certificate_file, "-key", issued.key_file]
        command = ["openssl", "s_client", "-connect", f"{HOST}:{server.port}", "-quiet", *files]
        done = subprocess.run(command, input=LISTEN, capture_output=True, timeout=30, check=False)
        assert done.stdout == b""
        assert b"alert" in done.stderr
        assert words in refusal(server, count=count)


def test_n34_openssl_without_a_certificate(firm: Firm) -> None:
    """The same for somebody who shows none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    server = firm.server()
    command = ["openssl", "s_client", "-connect", f"{HOST}:{server.port}", "-quiet"]
    done = subprocess.run(command, input=LISTEN, capture_output=True, timeout=30, check=False)
    assert done.stdout == b""
    assert refusal(server) == "no certificate"


def test_n34_hello_of_another_device(firm: Firm) -> None:
    """A good certificate is good for its own serial only; the log says both, and its holder is told."""
    server = firm.server()
    device = firm.issuer.device("plc-8")
    with secured(server.port, firm, device) as sock:
        sock.sendall(LISTEN)
        assert read_exactly(sock, 4) == bytes.fromhex("00001001")
        entries = b"\x01\x05plc-7" + b"\x02\x20" + bytes(32)
        sock.sendall(len(entries).to_bytes(2, "big") + b"\x10\x01" + entries)
        said = read_exactly(sock, 1000)
    detail = "certificate is for device plc-8, HELLO says plc-7"
    assert server.wait_event("link-refused", serial="plc-7")["detail"] == detail
    assert detail.encode() in said


@contextlib.contextmanager
def secured(port: int, firm: Firm, device: Issued) -> Iterator[ssl.SSLSocket]:
    """A connection by another implementation of TLS."""
    context = ssl.create_default_context(cafile=firm.issuer.file)
    context.load_cert_chain(device.certificate_file, device.key_file)
    with connect(port) as sock, context.wrap_socket(sock, server_hostname=HOST) as found:
        yield found


def test_n34_wrong_files_stop_an_agent_before_it_dials(firm: Firm) -> None:
    """An agent whose own certificate cannot be used ends with 78 and one line that names file and check."""
    for kind in ("nameless", "a server's"):
        issued, _ = peculiar(firm.issuer)[kind]
        agent = Agent(firm.lab.directory, "plc-7", [f"{HOST}:9"], {"it": f"{HOST}:9"}, name=f"a-{kind[:3]}")
        agent.write(agent=firm.files(issued))
        firm.lab.add(agent).complains = True
        agent.start(wait=False)
        assert agent.wait() == 78
        assert f"[agent] certificate: {issued.certificate_file}: certificate " in agent.said()


# ---- whom the agent refuses


class FalseServer(Service):
    """Speaks TLS with a certificate of its own and keeps what it is told."""

    def __init__(self, issued: Issued) -> None:
        super().__init__()
        self.heard = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate_file, issued.key_file)

    def serve(self, sock: socket.socket, number: int) -> None:
        """A handshake, and whatever follows."""
        with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secured:
            self.heard += secured.recv(100)
        self.record.add("done", number)


def false_servers(issuer: Issuer, other: Issuer) -> dict[str, tuple[Issued, str]]:
    """Certificates that prove no server called 127.0.0.1, and the agent's words."""
    names = [x509.UniformResourceIdentifier(f"{DEVICE_URI}plc-8")]
    return {
        "other name": (issuer.server("gate.example", file="o"), "is for gate.example, not for 127.0.0.1"),
        "expired": (issuer.server(HOST, file="e", until=-timedelta(hours=1)), "certificate expired on"),
        "other authority": (other.server(HOST), "signed by another authority"),
        "nameless": (issuer.issue("n", None, SERVERS, common_name=HOST), "certificate has no name"),
        "a device": (issuer.issue("d", names, DEVICES), "for another use"),
    }


@pytest.mark.parametrize("kind", ["other name", "expired", "other authority", "nameless", "a device"])
def test_n34_agent_says_nothing_to_a_wrong_server(
    firm: Firm, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The agent names the check, sends nothing but its part of TLS, and tries again."""
    other = Issuer(tmp_path_factory.mktemp("other"), "others")
    issued, words = false_servers(firm.issuer, other)[kind]
    with FalseServer(issued) as service:
        agent = firm.agent(service.address[1], firm.issuer.device("plc-7"))
        assert words in away(agent)
        agent.wait_event("state", 2, state="away")
        service.record.wait("done", 1)
        assert service.heard == b""


def test_n34_agent_does_not_fall_back_to_plaintext(firm: Firm) -> None:
    """A server without TLS is no server for an agent that wants it."""
    server = firm.lab.server().start()
    agent = firm.agent(server, firm.issuer.device("plc-7"))
    assert "TLS" in away(agent) or "hung up in the middle" in away(agent)
    assert "this is TLS: see tls in [listener NAME]" in server.wait_event("link-refused")["detail"]
    assert not server.events("link-up")


def test_n34_a_plain_agent_at_a_tls_listener(firm: Firm) -> None:
    """Both logs name the setting."""
    server = firm.server()
    agent = Agent(firm.lab.directory, "plc-7", [f"{HOST}:{server.port}"], {"it": f"{HOST}:9"})
    firm.lab.add(agent).start()
    assert "does it want TLS? See tls in [agent]" in away(agent)
    refused = server.wait_event("link-refused", reason="tls")
    assert refused["detail"].endswith("; this is rt1: its agent comes without TLS, see tls in [agent]")


def test_n34_silent_server(firm: Firm) -> None:
    """A server that takes the connection and says nothing costs an agent its ``connect`` seconds, no more."""
    with socket.create_server((HOST, 0)) as listener:
        agent = Agent(
            firm.lab.directory, "plc-7", [f"{HOST}:{listener.getsockname()[1]}"], {"it": f"{HOST}:9"}
        )
        agent.write(agent=firm.files(firm.issuer.device("plc-7")) | {"connect": "1 s"})
        firm.lab.add(agent).start()
        assert "the TLS handshake was not done in 1 s" in away(agent)


# ---- strangers at a TLS listener


STRANGERS = [  # what they say, why they are refused, and how many were for that by then
    (LISTEN, "tls", 1, "this is no TLS: it begins with 0x00"),
    (b"GET / HTTP/1.1\r\n\r\n", "tls", 2, "this is no TLS: it begins with 0x47"),
    (b"", "silent", 1, "nothing came in 2 s"),
    (b"\x16\x03\x01", "silent", 2, "it did not finish its TLS handshake in 2 s"),
    (b"\x16\xff\xff\xff\xff garbage", "tls", 3, "TLS"),
]


def test_n34_strangers_get_nothing(firm: Firm) -> None:
    """Nothing but an alert is ever said, and after the handshake's time nothing is held."""
    server = firm.server()
    before = server.descriptors()
    for words, reason, count, detail in STRANGERS:
        with connect(server.port) as sock:
            sock.sendall(words)
            with contextlib.suppress(ConnectionResetError):
                said = read_exactly(sock, 100)
                assert said == b"" or said[0] == 0x15
        assert detail in refusal(server, reason, count)
    wait_until(lambda: server.descriptors() <= before, "old number of descriptors")
    firm.agent(server, firm.issuer.device("plc-7"))
    server.wait_link("plc-7")


def test_n36_crowd_of_silent_strangers(firm: Firm) -> None:
    """Strangers who say nothing, or stall, keep no device out: their number and their time are bounded."""
    server = firm.lab.server(
        {
            **firm.listener(),
            "limits": {"pending_per_source": 40, "handshakes": 4},
            "link": {"handshake": "2 s"},
        }
    ).start()
    crowd = [connect(server.port) for _ in range(39)]
    for number, each in enumerate(crowd):
        each.sendall(b"\x16\x03\x01" if number % 3 == 0 else b"")
    firm.agent(server, firm.issuer.device("plc-7"))
    server.wait_link("plc-7")
    for each in crowd:
        each.close()


# ---- new files


def test_certificates_are_swapped_under_a_transfer(firm: Firm) -> None:
    """SIGHUP: later connections see the new certificate, the link and its transfer notice nothing."""
    with Patterned() as service:
        server = firm.server()
        agent = firm.agent(server, firm.issuer.device("plc-7"), offers={"bulk": service.target})
        port = server.client_port("plc-7", "bulk")
        old = shown_by(server.port)
        transfer = in_thread(exchange, port, 5, 48 * MIB, 48 * MIB)
        wait_until(lambda: service.sent, "first bytes")
        firm.issuer.server(HOST)
        server.signal(signal.SIGHUP)
        reloaded = server.wait_event("settings-reloaded")
        assert reloaded["errors"] == [] and "[listener main] certificate files" in reloaded["changed"]
        assert shown_by(server.port) != old
        firm.issuer.device("plc-7")
        agent.signal(signal.SIGHUP)
        assert "[agent] certificate files" in agent.wait_event("settings-reloaded")["changed"]
        transfer.join(90)
        assert transfer.problem is None
        assert len(server.events("link-up")) == 1 and not server.events("link-down")


def test_wrong_new_files_change_nothing(firm: Firm) -> None:
    """A file that cannot be used is named with the reason, and the old certificate is still shown."""
    server = firm.server()
    old = shown_by(server.port)
    Path(firm.issued.key_file).write_text("nonsense")
    server.signal(signal.SIGHUP)
    (error,) = server.wait_event("settings-reloaded")["errors"]
    assert f"[listener main] certificate_key: {firm.issued.key_file}: no private key" in error
    assert shown_by(server.port) == old
    with Echo() as echo:
        firm.agent(server, firm.issuer.device("plc-7"), offers={"echo": echo.target})
        with connect(server.client_port("plc-7", "echo")) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
