"""The one table of sections: which there are, who reads them, and which dataclasses fill them.

Rule of this file: a section exists here or it does not exist, and a setting is a field of one of its parts
(ground/declared.py), with kind, unit, limit, default and meaning. The shipped file, its manual page and its
page in docs/ are printed from here, never edited:

    python -m revtunnel.daemons.schema --ini > etc/revtunnel.ini
    python -m revtunnel.daemons.schema --man > man/revtunnel.ini.5
    python -m revtunnel.daemons.schema --rst > docs/settings.rst

Source: twisted.md section 7; faults.md C5, "Bind defaults"; ours for the rest.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from revtunnel.ground.declared import Key
from revtunnel.ground.kinds import SettingKind, read_port
from revtunnel.settings.admin_people import ADMIN
from revtunnel.settings.inifile import Name, Surroundings, Table, read_files
from revtunnel.settings.sections import Section, Sections

__all__ = ["SECTIONS", "changes", "find", "load"]

Settings = TypeVar("Settings")

SERIALS, SERIAL_FORM = r"[A-Za-z0-9._:-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ : -"
_RESERVATION = Key("SERIAL/TARGETNAME", SettingKind("port", "1 to 65535", read_port), "none", None,
    "client port of that target, inside or outside the pools; example: plc-7/http = 20080", True)  # fmt: skip


def _of(module: str, *classes: str) -> tuple[str, ...]:
    return tuple(f"revtunnel.{module}:{name}" for name in classes)


def _limits(*classes: str) -> tuple[str, ...]:
    return _of("ground.limits", *classes)


PLANE = _of("sockets.plane_settings", "PlaneSettings")
LOG, WAKE = _of("settings.sections", "LogSettings"), _of("process.wake_settings", "WakeSettings")
SERVER_TLS = _of("trust.tls_settings", "ServerTls")
LISTENER_TLS = (*SERVER_TLS, *_of("trust.tls_settings", "ListenerTls"))
SENDERS = _of("sockets.ways.trusted_proxies", "SenderSettings")
# fmt: off
SECTIONS = Sections(
    Section("server", "server", "The server as a whole.",
        (*_of("daemons.server_settings", "ServerSettings"), *PLANE, *LOG)),
    Section("listener", "server", "Where agents come in. Without any, [listener main] is assumed.",
        (*_of("daemons.server_settings", "ListenerSettings"), *WAKE, *LISTENER_TLS, *SENDERS), True,
        shown="[listener main]"),
    Section("legacy-device", "server", "A device at a listener with kind = legacy that many share: its wire "
        "has no word for who it is. What changes counts for its next link.",
        _of("daemons.server_settings", "LegacyDeviceSettings"), True,
        label="SERIAL", labels=SERIALS, wanted=f"SERIAL {SERIAL_FORM}",
        shown="[legacy-device plc-7]"),
    Section("pool", "server", "Ports for clients. Without any, [pool default] is assumed.",
        (*_of("daemons.server_settings", "PoolSettings"), *SENDERS), True, shown="[pool default]"),
    Section("reservations", "server", "Ports that belong to one target of one device for ever.",
        _of("daemons.server_settings", "Reservation"), entry=_RESERVATION),
    Section("device", "server", "What one device may do. [device *] is for all; a device's own section wins, "
        "key by key.", _of("fleet.device_records", "DeviceSettings", "DeviceRecord"), True, label="SERIAL",
        labels=rf"\*|{SERIALS}", wanted=f"SERIAL or *, {SERIAL_FORM}",
        shown="[device *]"),
    Section("penalties", "server", "What failed handshakes cost the address they come from: an IPv4 address, "
        "or an IPv6 /64.", (*_limits("PenaltyLimits"), *_of("fleet.penalties", "PenaltySettings"))),
    Section("limits", "server; cccp: the last two", "What the server spends at most.",
        _limits("ServerLimits", "FleetLimits")),
    ADMIN,
    Section("authority", "server", "A small certificate authority, for people who have none.",
        (*_of("trust.authority_settings", "AuthoritySettings"), *_limits("EnrolmentLimits"))),
    Section("audit", "server", "The audit file; see docs/people.rst.",
        (*_of("trust.audit_settings", "AuditSettings"), *_limits("AuditLimits"))),
    Section("data", "server", "Data sockets: connections that agents bring for single channels.",
        _limits("DataLimits")),
    Section("relay", "server, agent, cccp", "Pairs of sockets joined to one stream: clients and services on "
        "data sockets.", _limits("RelayLimits")),
    Section("emo", "both", "The MTConnect EMO proxy's wire; command sockets keep what they began with.",
        _limits("EmoLimits")),
    Section("link", "both", "One link, at either end; running links keep what they began with.",
        _limits("LinkLimits")),
    Section("agent", "agent", "The agent beside the device.",
        (*_of("daemons.agent_settings", "AgentSettings"), *_of("trust.tls_settings", "AgentTls"),
         *_of("daemons.agent_settings", "AgentWays", "ConsentSettings", "ProbeSettings", "ErrandSettings"),
         *_limits("AgentLimits"), *PLANE, *LOG)),
    Section("cameo", "cameo", "The relays of a CAMEO site.",
        (*_of("systems.cameo.cameo_settings", "CameoSettings"), *LOG, *_limits("CameoLimits"))),
    Section("cameo-outside", "cameo", "A way in for clients beyond the firewall; nobody there is local.",
        _of("systems.cameo.cameo_settings", "OutsideSettings"), True, shown="[cameo-outside web]"),
    Section("cccp", "cccp, server", "TCXN CCCP: devices that register, and its control API.",
        (*_of("systems.cccp.cccp_settings", "CccpPart", "CccpSettings"), *WAKE, *LOG,
         *_limits("CccpLimits"))),
    Section("cccp-project", "cccp, server", "Devices of a project, and its ports. Without any, [cccp-project "
        "main] is assumed.", (*_of("systems.cccp.cccp_settings", "ProjectSettings"), *LISTENER_TLS), True,
        shown="[cccp-project main]"),
    Section("web", "server", "Where people come in for remote sessions; there is none without an address.",
        (*_of("systems.sessions.session_settings", "WebSettings"), *SERVER_TLS, *SENDERS), True,
        shown="[web main]"),
    Section("oidc", "server", "Logins of people by the company's identity provider; see docs/people.rst.",
        _of("trust.oidc_settings", "OidcSettings")),
    Section("webhook", "server", "A server of somebody else that is told of facts; see docs/webhooks.rst.",
        _of("daemons.webhook_settings", "WebhookSettings"), True, shown="[webhook chat]"),
    Section("sessions", "server", "Remote sessions; those that run keep what they began with.",
        _of("systems.sessions.session_life", "SessionLimits")),
    Section("localproxy", "server", "AWS's localproxy, at every [web NAME]: see docs/localproxy.rst.",
        _of("systems.sessions.localproxy_settings", "LocalproxySettings")),
    Section("thingworx", "server", "ThingWorx devices: see docs/thingworx.rst. What each has is services in "
        "[device SERIAL].",
        (*_of("systems.thingworx.edge_settings", "EdgeSettings"), *_limits("EdgeLimits"))),
    Section("cluster", "server", "Several servers as one: see docs/scale-out.rst.",
        (*_of("cluster.cluster_settings", "ClusterSettings"),
         *_of("cluster.engine_settings", "EngineSettings"))),
)
# fmt: on
find = SECTIONS.find
changes = SECTIONS.differences


def load(
    read: Callable[[Table, Surroundings], Settings],
    path: str | None = None,
    overrides: Mapping[Name, Any] | None = None,
    around: Surroundings | None = None,
) -> Settings:
    """What a daemon is told.

    Args:
        read: makes the daemon's settings of the table, and notes there what is wrong.
        path: the file named by the user; None: $REVTUNNEL_CONFIG, else the default path if it exists.
        overrides: values, already read, of keys such as ``("listener main", "address")``.
        around: what is taken from the process; None: this process.

    Raises:
        SettingsError: with every error of every file.
    """
    around = around or Surroundings.here()
    table = read_files(path, overrides, around, SECTIONS)
    settings = read(table, around)
    if table.errors:
        raise table.fault
    return settings


def main(arguments: list[str]) -> int:
    """Print one of the three; 64 if it is not clear which."""
    from revtunnel.settings import printing

    printers = {"--ini": printing.as_ini, "--man": printing.as_man, "--rst": printing.as_rst}
    if len(arguments) != 1 or arguments[0] not in printers:
        print("usage: python -m revtunnel.daemons.schema --ini | --man | --rst", file=sys.stderr)
        return 64
    sys.stdout.write(printers[arguments[0]](SECTIONS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
