"""The settings of TLS at either end.

Rule of this file: plaintext between machines has to be asked for by name (``allow_plaintext``). It is
imported by whoever reads settings, so it imports nothing of TLS; tls_settings_checks.py does.

An agent decides for each server by what is written, not by what a resolver says: ``auto`` is plain only for
127.0.0.0/8, ::1 and localhost, and not even there once an authority or a certificate is set.

Source: faults.md "Bind defaults", "TLS"; ours.
"""

from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import PEM, PLACE, nothing, path, share, text, word, yes_no
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.server_places import ServerPlace

__all__ = ["AgentTls", "ListenerTls", "ServerTls", "speaks_tls"]

_LEAST = word("1.3", "1.2")
_AUTHORITY = nothing("system", path(4096, "auto", "system"))
_HOST = nothing("auto", text("name", "auto, or a host name or an address", r"[A-Za-z0-9._:-]{1,253}"))


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """What one listener does with TLS; a file is None where ``none`` is written."""

    name: str
    tls: bool = setting(yes_no(), "no", "whoever comes has to speak TLS; needs certificate and "
        "certificate_key", live=True)
    certificate: str | None = setting(PEM, "none", "of the server, for the name or address that is dialled, "
        "extended key usage serverAuth; behind it those that lead to its authority", live=True)
    certificate_key: str | None = setting(PEM, "none", "file with its private key, closed to "
        "others", live=True)
    tls_least: str = setting(_LEAST, "1.3", "oldest version of TLS that is spoken", live=True)
    allow_plaintext: bool = setting(yes_no(), "no", "INSECURE: lets other machines in without TLS; no: such "
        "a listener does not start", live=True)


@dataclass(frozen=True, kw_only=True)
class ListenerTls(ServerTls):
    """The same for agents, who show certificates too."""

    authority: str | None = setting(PEM, "none", "certificates of those who sign device "
        "certificates", live=True)
    device_certificates: str = setting(word("required", "optional", "no"), "required", "required: an agent "
        "must show a certificate, whose URI urn:revtunnel:device:SERIAL says which device it is, extended "
        "key usage clientAuth; optional: may; no: is not asked, keys decide", live=True)
    crl: str | None = setting(PEM, "none", "certificates that the authority took back; a list that is not "
        "current lets nobody in", live=True)

    @property
    def certified(self) -> bool:
        """Whether nobody comes in without a device certificate."""
        return self.tls and self.device_certificates == "required"


@dataclass(frozen=True, kw_only=True)
class AgentTls:
    """What an agent does with TLS; no authority: whom this machine trusts, no name: the host it dials."""

    tls: str = setting(word("auto", "yes", "no"), "auto", "auto: yes, but for a server on this machine "
        "(127.0.0.1, ::1, localhost) while neither authority nor certificate is set; no: plaintext, see "
        "allow_plaintext", live=True)
    state_directory: str | None = setting(PLACE, "auto", "where enrolment keeps key and certificate; auto: "
        "$STATE_DIRECTORY, /var/lib/revtunnel for root, else revtunnel in $XDG_STATE_HOME or ~/.local/state")
    authority: str | None = setting(_AUTHORITY, "auto", "certificates of those who sign the server's; "
        "system: whom this machine trusts; auto: the one that enrolment left where its certificate is used, "
        "else system", live=True)
    server_name: str | None = setting(_HOST, "auto", "whom the server's certificate must name; auto: the "
        "host of servers, as it is written there", live=True)
    certificate: str | None = setting(PLACE, "auto", "of the device: URI urn:revtunnel:device:SERIAL, "
        "extended key usage clientAuth; behind it those that lead to its authority; auto: what enrolment "
        "left in state_directory, with its key", live=True)
    certificate_key: str | None = setting(PEM, "none", "file with its private key, closed to "
        "others", live=True)
    token_file: str | None = setting(PLACE, "auto", "file that is looked for while the agent runs: a "
        "one-time token in it gets a new certificate, and the file is taken away; auto: SERIAL.token in "
        "state_directory")
    renew_before: float = setting(share(0.05, 0.9), "0.33", "share of its life that is left when a "
        "certificate of enrolment is renewed", live=True)
    tls_least: str = setting(_LEAST, "1.3", "oldest version of TLS that is spoken", live=True)
    allow_plaintext: bool = setting(yes_no(), "no", "INSECURE: with tls = no, or ws://, speaks to servers "
        "on other machines all the same", live=True)
# fmt: on


def speaks_tls(settings: AgentTls, server: ServerPlace) -> bool:
    """Whether an agent speaks TLS to this server; a URL says it itself."""
    if server.web:
        return server.secure
    if settings.tls != "auto":
        return settings.tls == "yes"
    return (
        not is_loopback(server.name or server.host)
        or settings.authority is not None
        or settings.certificate is not None
    )
