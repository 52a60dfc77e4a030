"""From ini files and the command line to frozen settings; every fault is found before any socket opens.

Rule of this file: all errors at once, each as ``FILE:LINE: [section] key: what is wrong, what is wanted``;
nothing here opens a socket or writes a file, and all of it may run in a thread.

Source: twisted.md section 7; faults.md C5, C6, "Bind defaults"; ours for the rest.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any

from revtunnel.daemons.legacy_devices import twice
from revtunnel.daemons.proxy_settings import agent_proxy, check_headers, check_named
from revtunnel.daemons.schema import SECTIONS, load
from revtunnel.daemons.server_checks import check_clients, check_cluster, check_listeners, check_ports
from revtunnel.daemons.settings_parts import (
    AgentSettings,
    LegacyDeviceSettings,
    ListenerSettings,
    PoolSettings,
    PortMapping,
    Reservation,
    ServerSettings,
)
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords, DeviceSettings
from revtunnel.ground.declared import keys_of
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import told_apart
from revtunnel.settings.admin_people import read_admin
from revtunnel.settings.inifile import (
    DEFAULT_PATH,
    LABEL,
    MissingSettings,
    Name,
    SettingsError,
    Surroundings,
    Table,
)
from revtunnel.sockets.tls.certificates import private_file_fault
from revtunnel.systems.cccp.cccp_reading import cccp_part
from revtunnel.systems.emo.emo import LEAST_PORT
from revtunnel.systems.sessions.session_settings import web_settings
from revtunnel.trust.agent_files import with_kept_files
from revtunnel.trust.audit_settings import audit_settings
from revtunnel.trust.authority_settings import authority_settings
from revtunnel.trust.tls_settings import AgentTls
from revtunnel.trust.tls_settings_checks import check_agent_tls

__all__ = [
    "DEFAULT_PATH",
    "AgentSettings",
    "ListenerSettings",
    "MissingSettings",
    "Name",
    "PoolSettings",
    "PortMapping",
    "Reservation",
    "ServerSettings",
    "SettingsError",
    "Surroundings",
    "changes",
    "load_agent",
    "load_server",
    "records_of",
]

FIRST_COME = 1000  # ports of one listener that nobody has by name
changes = SECTIONS.differences


# ---- the server


def read_server(table: Table, around: Surroundings) -> ServerSettings:
    """The settings of a server."""
    name, state = table.get("server", "name"), around.kept_in(table.get("server", "state_directory"))
    pools, devices = table.parts(PoolSettings, "default"), _devices(table)
    settings = table.part(
        ServerSettings,
        name=re.sub("[^A-Za-z0-9._-]", "-", around.host_name)[:64] if name == "auto" else name,
        state_directory=state,
        listeners=table.parts(ListenerSettings, "main"),
        pools=pools,
        reservations=_reservations(table),
        legacy_devices=_legacy_devices(table),
        devices=devices,
        records=records_of(devices, pools),
        admin=read_admin(table, around.socket(table.get("admin", "socket"))),
        authority=authority_settings(table, state),
        audit=audit_settings(table, state),
        web=web_settings(table),
        cccp=cccp_part(table, around) if table.get("cccp", "enabled") else None,
        files=tuple(table.files),
    )
    check_listeners(table, settings)
    check_ports(table, settings)
    check_clients(table, settings)
    check_cluster(table, settings)
    return settings


def _reservations(table: Table) -> tuple[Reservation, ...]:
    found = []
    for (label, key), port in table.values.items():
        if label != "reservations":
            continue
        serial, _, target = key.partition("/")
        try:
            if not LABEL.fullmatch(target):
                raise RemoteError(f"target name {target[:80]!a}: 1 to 32 of A-Z a-z 0-9 . _ - wanted")
            found.append(Reservation(parse_serial(serial), target, port))
        except RemoteError as error:
            table.complain(label, key, f"SERIAL/TARGETNAME = PORT wanted, {error}")
    return (*found, *_first_come(table, {each.port for each in found}))


def _first_come(table: Table, taken: set[int]) -> Iterator[Reservation]:
    """Ports of EMO that nobody has by name: each is of a machine that is called by it."""
    for label in table.named("listener"):
        ranges = table.get(label, "first_come") or ()
        ports = {port for low, high in ranges for port in range(low, min(high, low + FIRST_COME) + 1)}
        if ranges and table.get(label, "kind") != "emo":
            table.complain(label, "first_come", "only with kind = emo")
        elif len(ports) > FIRST_COME or (ports and min(ports) < LEAST_PORT):
            wanted = f"{LEAST_PORT} and above, {FIRST_COME} at most, wanted"
            table.complain(label, "first_come", f"{len(ports)} ports from {min(ports)}: {wanted}")
        else:
            yield from (Reservation(f"emo-{port}", "emo", port) for port in sorted(ports - taken))


def _legacy_devices(table: Table) -> tuple[LegacyDeviceSettings, ...]:
    """Every [legacy-device SERIAL] that says something."""
    found = table.parts(LegacyDeviceSettings, None)
    return tuple(each for each in found if each != LegacyDeviceSettings(name=each.name))


def _devices(table: Table) -> tuple[DeviceSettings, ...]:
    """Every [device SERIAL] that says something; what it does not say it takes from [device *]."""
    common = f"device {DEFAULT}"

    def value(label: str, key: str) -> Any:
        return table.get(label if (label, key) in table.values else common, key)

    names = keys_of(DeviceRecord)
    found = [
        DeviceSettings(name=label.split()[1], **{name: value(label, name) for name in names})
        for label in table.named("device")
    ]
    return tuple(each for each in found if each != DeviceSettings(name=each.name))


def records_of(devices: Iterable[DeviceSettings], pools: Iterable[PoolSettings]) -> DeviceRecords:
    """What the server asks."""
    return DeviceRecords({each.name: each for each in devices}, {pool.name: pool.clients for pool in pools})


load_server = partial(load, read_server)


# ---- the agent


def read_agent(table: Table, around: Surroundings) -> AgentSettings:
    """The settings of an agent.

    Raises:
        SettingsError: with every error of every file.
        MissingSettings: no error, but servers, local or a serial are missing.
    """
    key_file = table.get("agent", "key_file")
    key_file = around.credential() if key_file == "auto" else key_file
    if ("agent", "local") in table.values:
        table.values["agent", "local"] = told_apart(table.values["agent", "local"])
    _check_agent(table, key_file)
    state = around.kept_in(table.get("agent", "state_directory"))
    written = table.part(AgentTls, state_directory=state)
    tls = with_kept_files(written, table.get("agent", "serial"), around.host_name)
    check_headers(table)
    check_named(table, "at_once")
    check_named(table, "probe")
    proxy = agent_proxy(table, around.environ)
    serial, missing = _identity(table, around, check_agent_tls(table, tls))
    if table.errors or missing:
        raise table.fault if table.errors else MissingSettings(missing)
    return table.part(
        AgentSettings,
        **{field.name: getattr(tls, field.name) for field in fields(tls) if field.name != "token_file"},
        serial=serial,
        key_file=key_file,
        token_file=_token_file(table.get("agent", "token_file"), state, serial),
        proxy=proxy,
        files=tuple(table.files),
    )


load_agent = partial(load, read_agent)


def _token_file(written: str | None, state: str | None, serial: str) -> str | None:
    if written != "auto":
        return written
    return os.path.join(state, f"{serial}.token") if state is not None else None


def _identity(table: Table, around: Surroundings, certified: str) -> tuple[str, list[str]]:
    """The serial, and what is missing; ``certified`` is the one of the certificate, or ``""``."""
    missing = []
    if not table.get("agent", "servers"):
        missing.append("no server: --server HOST:PORT or --server wss://HOST wanted, or servers in [agent]")
    if not table.get("agent", "local"):
        missing.append("no service to offer: --local [NAME=]HOST:PORT wanted, or local in [agent]")
    serial = table.get("agent", "serial")
    if certified and serial not in ("auto", certified):
        table.complain("agent", "serial", f"{serial}: the certificate is for device {certified}")
    if serial == "auto" and certified:
        serial = certified
    elif serial == "auto":
        try:
            serial = parse_serial(around.host_name)
        except RemoteError:
            missing.append(
                f"host name {around.host_name[:80]!a} is no serial: --serial wanted, or serial in [agent]"
            )
    return str(serial), missing


def _check_agent(table: Table, key_file: str | None) -> None:
    offers = table.get("agent", "local")
    most = table.get("link", "offers")
    if double := twice([offer.name for offer in offers]):
        table.complain("agent", "local", f"two offers are named {double}, NAME=HOST:PORT wanted")
    if len(offers) > most and table.sound("link", "offers"):
        table.complain("agent", "local", f"{len(offers)} offers, at most {most} wanted: offers in [link]")
    port = table.get("agent", "server_port")
    if table.get("agent", "emo") and (len(offers) != 1 or not port):
        table.complain("agent", "emo", "one service in local and a server_port wanted with it")
    elif port and not table.get("agent", "emo"):
        table.complain("agent", "server_port", "only with emo = yes")
    _check_web(table)
    _check_consent(table)
    if key_file is not None and (fault := private_file_fault(key_file)):
        table.complain("agent", "key_file", f"{key_file}: {fault}")


def _check_web(table: Table) -> None:
    """Web listeners take rt1 and nothing else."""
    old = next((wire for wire in ("legacy", "emo") if table.get("agent", wire)), "")
    web = next((server for server in table.get("agent", "servers") if server.web), None)
    if old and web is not None:
        table.complain("agent", "servers", f"{web}: with {old} = yes HOST:PORT wanted")


def _check_consent(table: Table) -> None:
    command = table.get("agent", "consent_command")
    if table.get("agent", "sessions") == "ask" and not command and table.sound("agent", "consent_command"):
        table.complain("agent", "sessions", "ask: consent_command wanted with it")
    old = "legacy" if table.get("agent", "legacy") else "emo"
    rt1 = not table.get("agent", old) or (old == "emo" and table.get("agent", "modern") != "no")
    if table.get("agent", "sessions") != "allow" and not rt1:
        text = "a server of that wire does not say what a connection is for, sessions = allow wanted"
        table.complain("agent", "sessions", f"with {old} = yes {text}")
