"""What settings of TLS mean together, and that their files can be used.

Rule of this file: a file that cannot be used is an error before any socket opens, and TLS is never given
up for want of an answer.

Source: faults.md "Bind defaults", "TLS"; ours.
"""

from revtunnel.ground.networks import is_loopback
from revtunnel.settings.inifile import Table
from revtunnel.sockets.tls.certificates import CertificateFiles, FaultyFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.trust.tls_settings import AgentTls, ListenerTls, ServerTls, speaks_tls

__all__ = [
    "agent_rules",
    "check_agent_tls",
    "check_listener_tls",
    "check_plaintext",
    "listener_rules",
    "tls_lines",
]

_ALLOWED = "allow_plaintext = yes"


def listener_rules(listener: ServerTls) -> TlsRules | None:
    """What to make a listener's identity from; None: it is plain."""
    if not listener.tls:
        return None
    mine = listener.certificate, listener.certificate_key
    if getattr(listener, "kind", "") == "nodes" and isinstance(listener, ListenerTls):
        files = CertificateFiles(TlsSide.NODE, *mine, listener.authority, listener.crl)
        return TlsRules(files, listener.tls_least)
    if not isinstance(listener, ListenerTls) or listener.device_certificates == "no":
        return TlsRules(CertificateFiles(TlsSide.SERVER, *mine), listener.tls_least, "no")
    files = CertificateFiles(TlsSide.SERVER, *mine, listener.authority, listener.crl)
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


def check_listener_tls(table: Table, label: str, listener: ServerTls) -> None:
    """Everything that is wrong with the TLS of one listener."""
    files = ["certificate", "certificate_key"]
    if isinstance(listener, ListenerTls):
        files += ["authority", "crl"]
    rules = listener_rules(listener)
    if rules is None:
        for key in files:
            if getattr(listener, key) is not None:
                table.complain(label, key, "only with tls = yes")
        return
    needed = ["certificate", "certificate_key"]
    if isinstance(listener, ListenerTls) and listener.device_certificates != "no":
        needed.append("authority")
    missing = [key for key in needed if getattr(listener, key) is None]
    for key in missing:
        table.complain(label, key, "missing: with tls = yes a PEM file is wanted")
    if not missing and table.sound(label, *files):
        _try(table, label, rules)


def check_plaintext(table: Table, label: str, wide: str, listener: ServerTls) -> None:
    """A listener whose address ``wide`` other machines reach speaks TLS, or was meant not to."""
    if not listener.tls and not listener.allow_plaintext:
        text = f"{wide} is reached by other machines, and plaintext can be read and altered on the way"
        table.complain(label, "address", f"{text}, wanted: tls = yes, or, if that is meant, {_ALLOWED}")


def check_agent_tls(table: Table, settings: AgentTls) -> str:
    """Everything that is wrong with the TLS of an agent; the serial in its certificate, or ``""``."""
    for server in table.get("agent", "servers"):
        if server.secure and settings.tls == "no":
            table.complain("agent", "tls", f"no, and {server} is with TLS: tls = auto wanted")
            break
        if not speaks_tls(settings, server) and not is_loopback(server.host) and not settings.allow_plaintext:
            text = f"{server.host} is another machine, and plaintext can be read and altered on the way there"
            wanted = "wss:// in servers" if server.web else "tls = auto"
            table.complain("agent", "tls", f"{text}, wanted: {wanted}, or, if that is meant, {_ALLOWED}")
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


def _try(table: Table, label: str, rules: TlsRules) -> str:
    """Read the files as a start would; the serial of a device's certificate."""
    try:
        return Identity(rules).credentials.serial
    except FaultyFiles as error:
        for key, text in error.faults:
            table.complain(label, key, text, passes=True)
    return ""
