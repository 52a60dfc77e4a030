"""The settings of TLS at either end: what they mean together, and that their files can be used.

Rule of this file: plaintext between machines has to be asked for by name (``allow_plaintext``), a file that
cannot be used is an error before any socket opens, and TLS is never given up for want of an answer.

An agent decides for each server by what is written, not by what a resolver says: ``auto`` is plain only for
127.0.0.0/8, ::1 and localhost, and not even there once an authority or a certificate is set.

Source: faults.md "Bind defaults", "TLS"; ours.
"""

import ipaddress
from dataclasses import dataclass

from revtunnel.settings.inifile import Table
from revtunnel.sockets.tls.credentials import CertificateFiles, FaultyFiles, TlsSide
from revtunnel.sockets.tls.identity import Identity, TlsRules

__all__ = [
    "AgentTls",
    "ListenerTls",
    "agent_rules",
    "check_agent_tls",
    "check_listener_tls",
    "is_loopback",
    "listener_rules",
    "speaks_tls",
    "tls_lines",
]


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """What one door for agents does with TLS; files are None where ``none`` is written."""

    tls: bool
    certificate: str | None
    certificate_key: str | None
    authority: str | None
    device_certificates: str  # required, optional, no
    crl: str | None
    tls_least: str  # 1.3, 1.2
    allow_plaintext: bool

    @property
    def certified(self) -> bool:
        """Whether nobody comes in without a device certificate."""
        return self.tls and self.device_certificates == "required"


@dataclass(frozen=True, slots=True)
class AgentTls:
    """What an agent does with TLS."""

    tls: str  # auto, yes, no
    authority: str | None  # None: whom this machine trusts
    server_name: str | None  # None: the host that is dialled
    certificate: str | None
    certificate_key: str | None
    tls_least: str
    allow_plaintext: bool


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine; a name is judged as it is written."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def speaks_tls(settings: AgentTls, host: str) -> bool:
    """Whether an agent speaks TLS to this server."""
    if settings.tls != "auto":
        return settings.tls == "yes"
    return not is_loopback(host) or settings.authority is not None or settings.certificate is not None


def listener_rules(listener: ListenerTls) -> TlsRules | None:
    """What to make a listener's identity from; None: it is plain."""
    if not listener.tls:
        return None
    asks = listener.device_certificates != "no"
    files = CertificateFiles(
        TlsSide.SERVER,
        listener.certificate,
        listener.certificate_key,
        listener.authority if asks else None,
        listener.crl if asks else None,
    )
    return TlsRules(files, listener.tls_least, listener.device_certificates)


def agent_rules(settings: AgentTls) -> TlsRules:
    """What to make an agent's identity from."""
    files = CertificateFiles(
        TlsSide.DEVICE, settings.certificate, settings.certificate_key, settings.authority
    )
    return TlsRules(files, settings.tls_least)


def tls_lines(rules: TlsRules | None) -> list[str]:
    """What --check-config says of TLS, a line each; the files were judged before."""
    if rules is None:
        return []
    credentials = Identity(rules).credentials
    asks = f", device certificates {rules.peer}" if rules.side is TlsSide.SERVER else ""
    lines = [f"TLS {rules.least} at least{asks}"]
    if credentials.chain:
        until = credentials.chain[0].not_valid_after_utc
        lines.append(f"certificate until {until:%Y-%m-%d}, {credentials.fingerprints[0][:16]}")
    return [*lines, *(f"warning: {text}" for text in credentials.warnings)]


def check_listener_tls(table: Table, label: str, listener: ListenerTls) -> None:
    """Everything that is wrong with the TLS of one listener."""
    files = ("certificate", "certificate_key", "authority", "crl")
    rules = listener_rules(listener)
    if rules is None:
        for key in files:
            if getattr(listener, key) is not None:
                table.complain(label, key, "only with tls = yes")
        return
    needed = ["certificate", "certificate_key"]
    if listener.device_certificates != "no":
        needed.append("authority")
    missing = [key for key in needed if getattr(listener, key) is None]
    for key in missing:
        table.complain(label, key, "missing: with tls = yes a PEM file is wanted")
    if not missing and table.sound(label, *files):
        _try(table, label, rules)


def check_agent_tls(table: Table, settings: AgentTls) -> str:
    """Everything that is wrong with the TLS of an agent; the serial in its certificate, or ``""``."""
    for host, _ in table.get("agent", "servers"):
        if not speaks_tls(settings, host) and not is_loopback(host) and not settings.allow_plaintext:
            text = f"{host} is another machine, and plaintext can be read and altered on the way there"
            table.complain("agent", "tls", f"{text}, wanted: tls = auto, or, if that is meant, {_ALLOWED}")
            break
    if settings.tls == "no":
        for key in ("authority", "certificate", "certificate_key"):
            if getattr(settings, key) is not None:
                table.complain("agent", key, "of no use with tls = no")
        return ""
    for key, other in (("certificate", "certificate_key"), ("certificate_key", "certificate")):
        if getattr(settings, key) is None and getattr(settings, other) is not None:
            table.complain("agent", key, f"missing: {other} is set, both are wanted")
            return ""
    if not table.sound("agent", "authority", "certificate", "certificate_key"):
        return ""
    return _try(table, "agent", agent_rules(settings))


_ALLOWED = "allow_plaintext = yes"


def _try(table: Table, label: str, rules: TlsRules) -> str:
    """Read the files as a start would; the serial of a device's certificate."""
    try:
        return Identity(rules).credentials.serial
    except FaultyFiles as error:
        for key, text in error.faults:
            table.complain(label, key, text)
    return ""
