"""Real handshakes on socketpairs: who is let in, who is refused, and in which words on either side."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from OpenSSL.crypto import X509

from revtunnel.sockets.ends import RECORD, TlsEnd
from revtunnel.sockets.tls.certificates import (
    CertificateFiles,
    CertificateRefused,
    FaultyFiles,
    PeerCertificate,
    TlsSide,
    judge_device,
    judge_node,
    judge_server,
    read_credentials,
)
from revtunnel.sockets.tls.peer_verification import ALPN, Guard, Identity, Judged, TlsRules, tls_fault
from tests.support.throwaway_tls import DAY, DEVICES, SERVERS, Issued, Issuer, pem

NAME = "gate.example"


@dataclass
class Met:
    """How one handshake went: what each side has of the other, or why not."""

    server: PeerCertificate | str | None
    agent: PeerCertificate | str | None
    version: str
    said: bytes  # what the agent could read of the server, which writes as soon as it may


def step(end: TlsEnd, guard: Any, done: Any) -> Any:
    """Drive one side: None while it goes on, else its verdict, or the words of its refusal."""
    if done is not None:
        return done
    try:
        if not end.handshake():
            return None
        return (guard.verdict(end.connection),)
    except (OSError, CertificateRefused) as error:
        words = guard.fault or tls_fault(error)
        end.close()
        return words


def meet(server: Identity, agent: Identity, name: str = NAME) -> Met:
    """A handshake between two identities over a socketpair."""
    left, right = socket.socketpair()
    (a, at_server), (b, at_agent) = server.accept(left), agent.connect(right, name)
    ends = TlsEnd(a, left), TlsEnd(b, right)
    there: Any = None
    here: Any = None
    for _ in range(20):
        here = step(ends[1], at_agent, here)
        there = step(ends[0], at_server, there)
    said = b""
    version = ""
    if isinstance(there, tuple):
        version = ends[0].connection.get_protocol_version_name()
        ends[0].write(b"hello")
    if isinstance(here, tuple):
        room = bytearray(RECORD)
        try:
            said = bytes(room[: ends[1].read_into(memoryview(room)) or 0])
        except OSError as error:  # TLS 1.3: the server's refusal comes behind the agent's own end of it
            here = tls_fault(error)
    for end in ends:
        end.close()
    found = [side[0] if isinstance(side, tuple) else side for side in (there, here)]
    return Met(found[0], found[1], version, said)


class Room:
    """An authority, a server's and a device's certificate."""

    def __init__(self, directory: Path) -> None:
        self.issuer = Issuer(directory)
        self.server = self.issuer.server(NAME, "127.0.0.1")
        self.device = self.issuer.device("plc-7")
        self.revoked: set[str] = set()

    def at_server(self, issued: Issued | None = None, **more: Any) -> Identity:
        """The server's identity; ``peer``, ``least``, ``authority`` and ``crl`` as keywords."""
        issued = issued or self.server
        authority = more.pop("authority", self.issuer.file)
        files = CertificateFiles(
            TlsSide.SERVER, issued.certificate_file, issued.key_file, authority, more.pop("crl", None)
        )
        return Identity(TlsRules(files, **more), lambda serial, fingerprint: serial in self.revoked)

    def at_agent(self, issued: Issued | None = None, **more: Any) -> Identity:
        """The agent's identity."""
        issued = issued or self.device
        authority = more.pop("authority", self.issuer.file)
        files = CertificateFiles(TlsSide.DEVICE, issued.certificate_file, issued.key_file, authority)
        return Identity(TlsRules(files, **more))


class Careless(Identity):
    """A side that shows whatever is in its files, as another program would."""

    def __init__(self, rules: TlsRules, issued: Issued, chain: tuple[x509.Certificate, ...] = ()) -> None:
        super().__init__(replace(rules, files=replace(rules.files, certificate=None, key=None)))
        self._context.use_certificate(issued.certificate)
        for each in chain:
            self._context.add_extra_chain_cert(each)
        self._context.use_privatekey(issued.key)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """One authority for all tests of this file."""
    return Room(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def nothing_revoked(room: Room) -> Iterator[None]:
    """Each test begins with an empty list."""
    room.revoked.clear()
    yield


# ---- who is let in


def test_right_certificates_meet_over_tls_1_3(room: Room) -> None:
    """Both sides know each other, the newest TLS is spoken, and the agent reads what the server says."""
    met = meet(room.at_server(), room.at_agent())
    assert isinstance(met.server, PeerCertificate) and isinstance(met.agent, PeerCertificate)
    assert (met.server.serial, met.agent.serial) == ("plc-7", "")
    assert met.server.expires == room.device.certificate.not_valid_after_utc.timestamp()
    assert len(met.server.fingerprint) == 64
    assert (met.version, met.said) == ("TLSv1.3", b"hello")


@pytest.mark.parametrize("name", ["127.0.0.1", NAME, NAME.upper()])
def test_server_may_be_known_by_name_or_address(room: Room, name: str) -> None:
    """What is dialled has to be among the names of the certificate, an address among the addresses."""
    assert meet(room.at_server(), room.at_agent(), name).said == b"hello"


def test_authority_in_the_middle_is_enough(room: Room, tmp_path: Path) -> None:
    """A company may trust its authority for devices, and not every other one below the same root."""
    middle = Issuer(tmp_path, "devices", room.issuer)
    server = room.at_server(authority=middle.file)
    assert meet(server, room.at_agent(middle.device("plc-9"))).said == b"hello"
    met = meet(server, room.at_agent())
    assert "signed by another authority" in str(met.server)


def test_certificates_that_lead_to_the_authority_are_shown(room: Room, tmp_path: Path) -> None:
    """A file with the certificate and the one above it satisfies who trusts only the root."""
    middle = Issuer(tmp_path, "gates", room.issuer)
    issued = middle.server(NAME)
    Path(issued.certificate_file).write_bytes(pem(issued.certificate, middle.certificate))
    assert meet(room.at_server(issued), room.at_agent()).said == b"hello"


def test_tls_1_2_needs_its_setting_on_both_sides(room: Room) -> None:
    """By default 1.3 is the least; who sets 1.2 still gets 1.3 from those that speak it."""
    old = room.at_agent(least="1.2")
    old._context.set_max_proto_version(SSL.TLS1_2_VERSION)
    refused = meet(room.at_server(), old)
    assert refused.said == b"" and "no TLS version in common" in f"{refused.server} {refused.agent}"
    assert meet(room.at_server(least="1.2"), old).version == "TLSv1.2"
    assert meet(room.at_server(least="1.2"), room.at_agent()).version == "TLSv1.3"


@pytest.mark.parametrize("least", ["1.3", "1.2"])
def test_optional_certificate(room: Room, least: str) -> None:
    """Where certificates are optional an agent without one comes in unnamed, a wrong one is still refused."""
    server = room.at_server(peer="optional", least=least)
    rules = TlsRules(CertificateFiles(TlsSide.DEVICE, authority=room.issuer.file), least=least)
    met = meet(server, Identity(rules))
    assert met.server is None and met.said == b"hello"
    expired = room.issuer.device("plc-7", file="old", until=-timedelta(hours=1))
    assert "expired" in str(meet(server, Careless(rules, expired)).server)


def test_one_that_has_ended_is_let_in_late(room: Room) -> None:
    """Within the grace of the listener, and marked; nothing else of it may be wrong."""
    rules = TlsRules(CertificateFiles(TlsSide.DEVICE, authority=room.issuer.file))
    ended = {
        "soon": room.issuer.device("plc-7", file="soon", until=-timedelta(hours=1)),
        "long": room.issuer.device("plc-7", file="long", until=-timedelta(hours=3)),
        "server's": room.issuer.device("plc-7", file="s", uses=SERVERS, until=-timedelta(hours=1)),
    }
    found = {}
    for name, issued in ended.items():
        server = Identity(room.at_server().rules, grace=lambda: 7200.0)
        left, right = socket.socketpair()
        (a, guard), (b, _) = server.accept(left), Careless(rules, issued).connect(right, NAME)
        ends = TlsEnd(a, left), TlsEnd(b, right)
        with contextlib.suppress(OSError):
            for _ in range(10):
                all([ends[1].handshake(), ends[0].handshake()])
        with contextlib.suppress(CertificateRefused):
            guard.verdict(a)
        found[name] = guard.fault or (guard.peer is not None and guard.peer.late)
        for end in ends:
            end.close()
    assert found["soon"] is True
    assert "certificate expired on" in str(found["long"])
    assert "for another use" in str(found["server's"])


def test_listener_that_asks_for_none(room: Room) -> None:
    """With device_certificates = no a shown certificate counts for nothing: keys decide."""
    met = meet(room.at_server(peer="no"), room.at_agent())
    assert met.server is None and met.said == b"hello"


def test_agents_offer_their_protocol(room: Room) -> None:
    """ALPN is chosen where it is offered; an agent without it, or with others only, is taken as well."""
    left, right = socket.socketpair()
    (a, _), (b, _) = room.at_server().accept(left), room.at_agent().connect(right, NAME)
    ends = TlsEnd(a, left), TlsEnd(b, right)
    for _ in range(10):
        all([ends[1].handshake(), ends[0].handshake()])
    assert a.get_alpn_proto_negotiated() == b.get_alpn_proto_negotiated() == ALPN
    assert a.get_servername() == NAME.encode()
    for end in ends:
        end.close()
    other = room.at_agent()
    other._context.set_alpn_protos([b"http/1.1"])
    assert meet(room.at_server(), other).said == b"hello"


def test_no_session_is_resumed(room: Room) -> None:
    """A resumed session would skip the judgement, so none can be: also not one that was offered."""
    server = room.at_server(least="1.2")
    for most in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
        agent = room.at_agent(least="1.2")
        agent._context.set_max_proto_version(most)
        session = None
        for _ in range(2):
            left, right = socket.socketpair()
            (a, guard), (b, _) = server.accept(left), agent.connect(right, NAME)
            ends = TlsEnd(a, left), TlsEnd(b, right)
            if session is not None:
                b.set_session(session)
            for _ in range(10):
                all([ends[1].handshake(), ends[0].handshake()])
            assert guard.peer is not None  # set by the callback, before verdict asks again
            session = b.get_session()
            for end in ends:
                end.close()


# ---- who is refused: f is N34 of the list of faults


def wrong_devices(room: Room, other: Issuer) -> dict[str, tuple[Issued, str]]:
    """Wrong certificates of devices, each with the words of its refusal."""
    issuer, uri = room.issuer, x509.UniformResourceIdentifier
    device = "urn:revtunnel:device:"
    soon, late = timedelta(days=2), timedelta(days=-1, hours=12)
    none: list[x509.GeneralName] = [x509.DNSName("plc-7")]
    twice = [uri(f"{device}plc-7"), uri(f"{device}plc-8")]
    bad = [uri(f"{device}plc%207")]
    near = [uri("URN:revtunnel:device:plc-7")]
    expired = issuer.device("plc-7", file="e", until=late)
    day = f"{expired.certificate.not_valid_after_utc:%Y-%m-%d}"
    return {
        "expired": (expired, f"certificate expired on {day}"),
        "not yet": (issuer.device("plc-7", file="n", since=soon), "is the clock of this machine right?"),
        "other authority": (other.device("plc-7"), "signed by another authority"),
        "a server's": (issuer.device("plc-7", file="s", uses=SERVERS), "for another use"),
        "no use": (issuer.device("plc-7", file="u", uses=None), "certificate names no use"),
        "nameless": (issuer.issue("x", None, DEVICES, common_name="plc-7"), "certificate has no name"),
        "other names": (issuer.issue("o", none, DEVICES), "certificate has no device name"),
        "two devices": (issuer.issue("t", twice, DEVICES), "certificate has 2 device names"),
        "no serial": (issuer.issue("b", bad, DEVICES), "1 to 64 of A-Z"),
        "near the name": (issuer.issue("c", near, DEVICES), "certificate has no device name"),
    }


KINDS = ("expired", "not yet", "other authority", "a server's", "no use", "nameless", "other names")
KINDS += ("two devices", "no serial", "near the name")


@pytest.mark.parametrize("kind", KINDS)
def test_n34_server_refuses_a_wrong_device(room: Room, kind: str, tmp_path: Path) -> None:
    """Each wrong certificate is refused in words that name the check; the agent gets an alert and no byte."""
    issued, words = wrong_devices(room, Issuer(tmp_path, "others"))[kind]
    rules = room.at_agent().rules
    met = meet(room.at_server(), Careless(rules, issued))
    assert words in str(met.server)
    assert met.said == b""
    assert str(met.agent).startswith("the other side refused our certificate")


@pytest.mark.parametrize("least", ["1.3", "1.2"])
def test_n34_server_refuses_who_has_no_certificate(room: Room, least: str) -> None:
    """Without a certificate there is no link where one is required, and the agent learns why."""
    rules = TlsRules(CertificateFiles(TlsSide.DEVICE, authority=room.issuer.file), least=least)
    agent = Identity(rules)
    if least == "1.2":
        agent._context.set_max_proto_version(SSL.TLS1_2_VERSION)
    met = meet(room.at_server(least=least), agent)
    assert met.server == "no certificate" and met.said == b""
    assert met.agent == "the other side refused our certificate: there is none" or least == "1.2"


def test_n34_server_refuses_who_is_revoked(room: Room) -> None:
    """The list of the server counts from the next handshake on."""
    server = room.at_server()
    assert meet(server, room.at_agent()).said == b"hello"
    room.revoked.add("plc-7")
    met = meet(server, room.at_agent())
    assert met.server == "certificate of plc-7 is revoked" and met.said == b""


def test_n34_list_that_fails_lets_nobody_in(room: Room) -> None:
    """An exception of the list of revoked certificates is no permission."""

    def broken(serial: str, fingerprint: str) -> bool:
        raise OSError("the disk is gone")

    met = meet(Identity(room.at_server().rules, broken), room.at_agent())
    assert "cannot be judged: OSError" in str(met.server) and met.said == b""


def counted(identity: Identity) -> list[str]:
    """The names for which an identity reads a certificate from now on."""
    read: list[str] = []
    judge = identity._judged._judge

    def judged(shown: x509.Certificate, name: str) -> PeerCertificate:
        read.append(name)
        return judge(shown, name)

    identity._judged._judge = judged
    return read


def test_the_same_certificate_is_read_once(room: Room) -> None:
    """A device's on its link and all its data sockets, the server's for each name that was dialled."""
    server, agent = room.at_server(), room.at_agent()
    at_server, at_agent = counted(server), counted(agent)
    met = [meet(server, agent) for _ in range(3)]
    assert at_server == [""] and at_agent == [NAME]
    assert met[0] == met[1] == met[2] and met[0].said == b"hello"
    assert "not for other.example" in str(meet(server, agent, "other.example").agent)
    assert "not for other.example" in str(meet(server, agent, "other.example").agent)
    assert at_agent == [NAME, "other.example", "other.example"]  # what was refused is read again
    another = room.issuer.device("plc-7", file="another")
    assert meet(server, room.at_agent(another)).said == b"hello"
    assert at_server == ["", ""]


def test_n34_who_is_remembered_is_refused_once_revoked(room: Room) -> None:
    """And taken again when that was taken back; a list that fails lets in nobody whom it knew."""
    server, agent = room.at_server(), room.at_agent()
    read = counted(server)
    for _ in range(2):
        assert meet(server, agent).said == b"hello"
        room.revoked.add("plc-7")
        met = meet(server, agent)
        assert met.server == "certificate of plc-7 is revoked" and met.said == b""
        room.revoked.clear()
    assert read == [""]


def test_n34_who_is_remembered_is_refused_once_expired(room: Room) -> None:
    """Its end is OpenSSL's to judge, in each handshake; within a grace it is late."""
    ended = room.issuer.device("plc-7", file="ended", until=-timedelta(hours=1))
    agent = Careless(room.at_agent().rules, ended)
    for grace in (0.0, 7200.0):
        server = Identity(room.at_server().rules, grace=lambda grace=grace: grace)
        remembered = server._judged.of(X509.from_cryptography(ended.certificate), "")  # as when it was good
        assert not remembered.late
        found = meet(server, agent).server
        if grace:
            assert found == replace(remembered, late=True)
        else:
            assert "certificate expired on" in str(found)


def test_n34_new_files_remember_nothing(room: Room, tmp_path: Path) -> None:
    """Another authority: who was good before is not."""
    server, agent = room.at_server(), room.at_agent()
    assert meet(server, agent).said == b"hello"
    other = Issuer(tmp_path)
    met = meet(room.at_server(authority=other.file), agent)
    assert "signed by another authority" in str(met.server) and met.said == b""
    assert meet(server, agent).said == b"hello"


def test_what_is_remembered_is_bounded(room: Room) -> None:
    """The oldest is read again."""
    judged = Judged(lambda shown, name: PeerCertificate(name, "", 0.0), most=2)
    shown = X509.from_cryptography(room.device.certificate)
    for name in ("a", "b", "c", "b"):
        assert judged.of(shown, name).serial == name
    assert [name for _, name in judged._found] == ["b", "c"]


def look_again(room: Room, issued: Issued, guard: Guard) -> Any:
    """What a guard says of a server behind a handshake in which OpenSSL has judged nothing."""
    left, right = socket.socketpair()
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_alpn_protos([ALPN])
    connection, at_server = room.at_server(issued, peer="no").accept(left)
    client = SSL.Connection(context, right)
    client.set_connect_state()
    ends = TlsEnd(client, right), TlsEnd(connection, left)
    done: list[Any] = [None, None]
    for _ in range(20):
        done = [step(end, each, said) for end, each, said in zip(ends, (guard, at_server), done, strict=True)]
    for end in ends:
        end.close()
    return done[0]


def test_n34_the_verdict_looks_once_more(room: Room) -> None:
    """Where OpenSSL has asked nobody, or asked too early: an authority, a name, the want of a certificate."""
    guard = Guard(Judged(judge_server), True, NAME)
    assert look_again(room, room.server, guard) == "certificate was not checked against the authority"
    guard = Guard(Judged(judge_server), True, "other.example")
    guard.peer = PeerCertificate("", "", 0.0)  # as if it had been another one by then
    assert "not for other.example" in look_again(room, room.server, guard)

    left, right = socket.socketpair()
    (b, at_agent) = room.at_agent().connect(right, NAME)
    server, _ = room.at_server(peer="no").accept(left)
    needs = Guard(Judged(lambda shown, name: judge_device(shown, lambda *_: False)), True)
    ends, done = (TlsEnd(server, left), TlsEnd(b, right)), [None, None]
    for _ in range(20):
        done = [step(end, each, said) for end, each, said in zip(ends, (needs, at_agent), done, strict=True)]
    for end in ends:
        end.close()
    assert done[0] == "no certificate"


def test_n34_server_refuses_by_the_list_of_the_authority(room: Room) -> None:
    """A list of revoked certificates in a file refuses who is on it, and nobody else."""
    other = room.issuer.device("plc-8")
    server = room.at_server(crl=room.issuer.revoke(room.device))
    assert meet(server, room.at_agent()).server == "certificate is revoked"
    assert meet(server, room.at_agent(other)).said == b"hello"


def wrong_servers(room: Room, other: Issuer) -> dict[str, tuple[Issued, str]]:
    """Wrong certificates of servers, each with the words of its refusal."""
    issuer = room.issuer
    return {
        "other name": (issuer.server("other.example"), f"certificate is for other.example, not for {NAME}"),
        "other address": (issuer.server("192.0.2.1"), f"certificate is for 192.0.2.1, not for {NAME}"),
        "expired": (issuer.server(NAME, until=-timedelta(hours=1)), "certificate expired on "),
        "not yet": (issuer.server(NAME, since=2 * DAY), "is the clock of this machine right?"),
        "other authority": (other.server(NAME), "signed by another authority"),
        "a device's": (issuer.server(NAME, uses=DEVICES), "for another use"),
        "no use": (issuer.server(NAME, uses=None), "certificate names no use"),
        "any use": (
            issuer.server(NAME, uses=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
            "extended key usage",
        ),
        "wildcard too wide": (issuer.server("*.example"), "not for gate.other.example"),
        "a name for an address": (issuer.server("127.0.0.1.example"), "not for 127.0.0.1"),
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, NAME) for kind in ("other name", "other address", "expired", "not yet", "other authority")),
        *((kind, NAME) for kind in ("a device's", "no use", "any use")),
        ("wildcard too wide", "gate.other.example"),
        ("a name for an address", "127.0.0.1"),
    ],
)
def test_n34_agent_refuses_a_wrong_server(room: Room, kind: str, name: str, tmp_path: Path) -> None:
    """Each wrong server is refused in words that name the check, before the agent sent anything but TLS."""
    issued, words = wrong_servers(room, Issuer(tmp_path, "others"))[kind]
    met = meet(Careless(room.at_server().rules, issued), room.at_agent(), name)
    assert words in str(met.agent)
    assert met.said == b""
    assert str(met.server).startswith("the other side refused our certificate")


def test_nameless_server_is_refused(room: Room) -> None:
    """A server certificate without any subjectAltName is refused, whatever its common name says.

    Guards the hole of Twisted 26.4 and 26.10: optionsForClientTLS takes such a certificate for every host
    name, so that in a private authority every device could pose as the server.
    """
    nameless = room.issuer.issue("nameless", None, SERVERS, common_name=NAME)
    met = meet(Careless(room.at_server().rules, nameless), room.at_agent())
    assert met.agent == "certificate has no name (no subjectAltName)"
    assert met.said == b""


def test_device_cannot_pose_as_the_server(room: Room) -> None:
    """A device's own certificate, even with the server's name in it, is for another use."""
    names = [x509.UniformResourceIdentifier("urn:revtunnel:device:plc-7"), x509.DNSName(NAME)]
    posing = room.issuer.issue("posing", names, DEVICES)
    met = meet(Careless(room.at_server().rules, posing), room.at_agent())
    assert "another use" in str(met.agent) and met.said == b""


def test_machine_list_knows_no_test_authority(room: Room) -> None:
    """An agent without an authority of its own asks the machine's list."""
    rules = TlsRules(CertificateFiles(TlsSide.DEVICE, room.device.certificate_file, room.device.key_file))
    met = meet(room.at_server(), Identity(rules))
    assert "signed by another authority" in str(met.agent)


# ---- files


def test_a_connection_keeps_the_files_it_began_with(room: Room) -> None:
    """New files make another identity; a connection that is up goes on with what it began with."""
    first = room.issuer.server(NAME, file="swap")
    server, agent = room.at_server(first), room.at_agent()
    left, right = socket.socketpair()
    (a, _), (b, _) = server.accept(left), agent.connect(right, NAME)
    ends = TlsEnd(a, left), TlsEnd(b, right)
    for _ in range(10):
        all([ends[1].handshake(), ends[0].handshake()])
    assert Identity(server.rules).credentials.fingerprints == server.credentials.fingerprints
    room.issuer.server("other.example", file="swap")
    fresh = Identity(server.rules)
    assert fresh.credentials.fingerprints != server.credentials.fingerprints
    assert "certificate is for other.example" in str(meet(fresh, agent).agent)
    ends[0].write(b"still here")
    got = bytearray(RECORD)
    assert ends[1].read_into(memoryview(got)) == 10
    for end in ends:
        end.close()


def test_wrong_files_make_no_identity(room: Room) -> None:
    """The fault names the setting, the file and why; the identity that is there needs its files no more."""
    issued = room.issuer.server(NAME, file="broken")
    server = room.at_server(issued)
    Path(issued.certificate_file).write_bytes(b"nonsense")
    with pytest.raises(FaultyFiles) as caught:
        Identity(server.rules)
    assert caught.value.faults == [
        ("certificate", f"{issued.certificate_file}: no certificate, or a damaged one; PEM wanted")
    ]
    assert meet(server, room.at_agent()).said == b"hello"


def spoilt(room: Room, tmp_path: Path) -> dict[str, tuple[CertificateFiles, list[tuple[str, str]]]]:
    """Wrong files, and their faults: the setting, and a part of the words."""
    issuer, good = room.issuer, room.server
    files = CertificateFiles(TlsSide.SERVER, good.certificate_file, good.key_file, issuer.file)
    open_key = issuer.write("open.key", pem(good.key), 0o644)
    locked = tmp_path / "locked.key"
    locked.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    locked.chmod(0o600)
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    old_authority = Issuer(tmp_path, "old")
    late = issuer.server(NAME, file="late", until=-timedelta(hours=1))
    nameless = issuer.issue("nn", None, SERVERS, common_name=NAME)
    device = room.device
    return {
        "missing": (replace(files, certificate="/nowhere/x.pem"), [("certificate", "No such file")]),
        "a directory": (replace(files, key=str(tmp_path)), [("certificate_key", "irectory")]),
        "empty": (replace(files, certificate=str(empty)), [("certificate", "no certificate")]),
        "open key": (replace(files, key=str(open_key)), [("certificate_key", "opens it to everybody")]),
        "locked key": (replace(files, key=str(locked)), [("certificate_key", "private key")]),
        "other key": (
            replace(files, key=device.key_file),
            [("certificate_key", "not the key of the certificate")],
        ),
        "expired": (
            replace(files, certificate=late.certificate_file, key=late.key_file),
            [("certificate", "certificate expired on")],
        ),
        "nameless": (
            replace(files, certificate=nameless.certificate_file, key=nameless.key_file),
            [("certificate", "certificate has no name")],
        ),
        "a device's": (
            replace(files, certificate=device.certificate_file, key=device.key_file),
            [("certificate", "not for servers")],
        ),
        "no authority": (replace(files, authority=good.key_file), [("authority", "no certificate")]),
        "old list": (
            replace(files, crl=issuer.revoke(until=-timedelta(hours=1), file="old.crl")),
            [("crl", "a current list wanted")],
        ),
        "other's list": (replace(files, crl=old_authority.revoke()), [("crl", "signed by none")]),
        "no list": (replace(files, crl=issuer.file), [("crl", "no list of revoked certificates")]),
        "two at once": (
            replace(files, certificate="/nowhere/x.pem", authority="/nowhere/y.pem"),
            [("certificate", "No such file"), ("authority", "No such file")],
        ),
    }


SPOILT = ("missing", "a directory", "empty", "open key", "locked key", "other key", "expired", "nameless")
SPOILT += ("a device's", "no authority", "old list", "other's list", "no list", "two at once")


@pytest.mark.parametrize("kind", SPOILT)
def test_files_are_judged_before_anything_opens(room: Room, kind: str, tmp_path: Path) -> None:
    """Every fault of every file, named by its setting; a key's contents never appear."""
    files, wanted = spoilt(room, tmp_path)[kind]
    with pytest.raises(FaultyFiles) as caught:
        read_credentials(files)
    assert [key for key, _ in caught.value.faults] == [key for key, _ in wanted]
    for (_, text), (_, part) in zip(caught.value.faults, wanted, strict=True):
        assert part in text
    assert "BEGIN" not in str(caught.value)


def test_n15_own_certificate_that_begins_later_is_a_warning(room: Room) -> None:
    """A device whose clock starts in 1970 must start all the same, and say what is wrong."""
    files = room.at_agent().rules.files
    begin = room.device.certificate.not_valid_before_utc
    credentials = read_credentials(files, begin.replace(year=1970))
    (warning,) = credentials.warnings
    assert "is the clock of this machine right? It says 1970-" in warning
    assert credentials.serial == "plc-7"


def test_own_certificate_that_ends_soon_is_a_warning(room: Room) -> None:
    """Two weeks before its end, unless it was made for a shorter time than that is worth mentioning."""
    issued = room.issuer.device("plc-7", file="year", until=timedelta(days=365))
    files = CertificateFiles(TlsSide.DEVICE, issued.certificate_file, issued.key_file)
    end = issued.certificate.not_valid_after_utc
    assert read_credentials(files).warnings == ()
    (warning,) = read_credentials(files, end - timedelta(days=13)).warnings
    assert warning == f"{issued.certificate_file}: certificate expires on {end:%Y-%m-%d}"
    assert read_credentials(room.at_agent().rules.files).warnings == ()


def at_node(room: Room, issued: Issued) -> Identity:
    """A node's identity, for both ends of a link between nodes."""
    files = CertificateFiles(TlsSide.NODE, issued.certificate_file, issued.key_file, room.issuer.file)
    return Identity(TlsRules(files))


def test_nodes_know_each_other_by_name(room: Room) -> None:
    """Whoever dials says whom he wants; whoever is dialled learns who came."""
    one, two = (at_node(room, room.issuer.node(name)) for name in ("one", "two"))
    met = meet(one, two, "one")
    assert isinstance(met.server, PeerCertificate) and isinstance(met.agent, PeerCertificate)
    assert (met.server.serial, met.agent.serial, met.said) == ("two", "one", b"hello")
    met = meet(one, two, "three")
    assert met.agent == "certificate is for node one, not for three" and met.said == b""


def test_an_agent_is_no_node_and_a_node_no_agent(room: Room) -> None:
    """Nor is a server one; whoever shows another kind is refused by whoever is shown it."""
    issued = room.issuer.node("one")
    for other in (room.device, room.server):
        with pytest.raises(CertificateRefused, match="certificate is not for nodes"):
            judge_node(other.certificate)
    with pytest.raises(CertificateRefused, match="certificate has no device name"):
        judge_device(issued.certificate, lambda serial, fingerprint: False)
    met = meet(room.at_server(room.issuer.server("one", file="one-server")), at_node(room, issued), "one")
    assert isinstance(met.agent, str) and met.agent.startswith("certificate is not for nodes")


def test_a_certificate_of_two_kinds_is_no_nodes(room: Room) -> None:
    """Not even where its uses fit."""
    names = [x509.UniformResourceIdentifier(f"urn:revtunnel:{each}") for each in ("node:one", "device:plc-7")]
    with pytest.raises(FaultyFiles, match="1 names of nodes"):
        at_node(room, room.issuer.issue("two-kinds", names, (*SERVERS, *DEVICES)))
