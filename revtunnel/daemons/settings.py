"""From ini files and the command line to frozen settings; every fault is found before any socket opens.

Rule of this file: all errors at once, each as ``FILE:LINE: [section] key: what is wrong, what is wanted``;
nothing here opens a socket, writes a file or knows a key that schema.py does not name.

Source: twisted.md section 7; faults.md C5, C6, "Bind defaults"; ours for the rest.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from revtunnel.daemons.proxy_settings import agent_proxy, check_headers
from revtunnel.daemons.record_settings import DeviceSettings, check_clients, device_settings
from revtunnel.daemons.schema import SECTIONS
from revtunnel.daemons.server_checks import check_listeners, check_ports, twice
from revtunnel.daemons.settings_parts import (
    AgentSettings,
    ListenerSettings,
    PoolSettings,
    Reservation,
    ServerSettings,
)
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.policy import (
    AgentLimits,
    DataLimits,
    EmoLimits,
    EnrolmentLimits,
    LinkLimits,
    PenaltyLimits,
    RelayLimits,
    ServerLimits,
)
from revtunnel.ground.serials import parse_serial
from revtunnel.settings.inifile import (
    DEFAULT_PATH,
    LABEL,
    MissingSettings,
    Name,
    SettingsError,
    Surroundings,
    Table,
    read_files,
)
from revtunnel.settings.sections import (
    admin_settings,
    check_people,
    differences,
    named_sections,
    part_of,
)
from revtunnel.sockets.tls.credentials import private_file_fault
from revtunnel.systems.cccp.cccp_settings import cccp_flat, cccp_part
from revtunnel.trust.agent_files import with_kept_files
from revtunnel.trust.authority_settings import authority_settings
from revtunnel.trust.tls_settings import (
    AgentTls,
    check_agent_tls,
)

__all__ = [
    "DEFAULT_PATH",
    "AgentSettings",
    "ListenerSettings",
    "MissingSettings",
    "Name",
    "PoolSettings",
    "Reservation",
    "ServerSettings",
    "SettingsError",
    "Surroundings",
    "changes",
    "load_agent",
    "load_server",
]


# ---- the server


def load_server(
    path: str | None = None, overrides: Mapping[Name, Any] | None = None, around: Surroundings | None = None
) -> ServerSettings:
    """The settings of a server.

    Args:
        path: the file named by the user; None: $REVTUNNEL_CONFIG, else the default path if it exists.
        overrides: values, already read, of keys such as ``("listener main", "address")``.
        around: what is taken from the process; None: this process.

    Raises:
        SettingsError: with every error of every file.
    """
    around = around or Surroundings.here()
    table = read_files(path, overrides, around)
    settings = _server(table, around)
    check_listeners(table, settings)
    check_ports(table, settings)
    check_clients(table, settings.pools)
    check_people(table)
    if table.errors:
        raise SettingsError(table.errors)
    return settings


def _listener(values: dict[str, Any]) -> ListenerSettings:
    kept: dict[str, Any] = {key: None if value == "none" else value for key, value in values.items()}
    return ListenerSettings(**kept)


def _server(table: Table, around: Surroundings) -> ServerSettings:
    name = table.get("server", "name")
    state = table.get("server", "state_directory")
    state = {"auto": around.state_directory(), "none": None}.get(state, state)
    socket = table.get("admin", "socket")
    return ServerSettings(
        name=re.sub("[^A-Za-z0-9._-]", "-", around.host_name)[:64] if name == "auto" else name,
        state_directory=state,
        allow_open_state=table.get("server", "allow_open_state"),
        log_format=table.get("server", "log_format"),
        log_level=table.get("server", "log_level"),
        listeners=tuple(_listener(values) for values in named_sections(table, "listener", "main")),
        pools=tuple(PoolSettings(**values) for values in named_sections(table, "pool", "default")),
        reservations=_reservations(table),
        devices=device_settings(table),
        penalties=part_of(table, PenaltyLimits),
        exempt=table.get("penalties", "exempt"),
        limits=part_of(table, ServerLimits),
        data=part_of(table, DataLimits),
        emo=part_of(table, EmoLimits),
        relay=part_of(table, RelayLimits),
        link=part_of(table, LinkLimits),
        admin=admin_settings(table, around.admin_socket() if socket == "auto" else socket),
        authority=authority_settings(table, state),
        cccp=cccp_part(table, around) if table.get("cccp", "enabled") else None,
        files=tuple(table.files),
    )


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
    return tuple(found)


# ---- the agent

# what stands for nothing in a file
NOTHING = {"authority": "system", "server_name": "auto", "certificate": "none", "certificate_key": "none"}


def load_agent(
    path: str | None = None, overrides: Mapping[Name, Any] | None = None, around: Surroundings | None = None
) -> AgentSettings:
    """The settings of an agent; arguments as for ``load_server``.

    Raises:
        SettingsError: with every error of every file.
        MissingSettings: no error, but servers, local or a serial are missing.
    """
    around = around or Surroundings.here()
    table = read_files(path, overrides, around)
    key_file = table.get("agent", "key_file")
    key_file = {"auto": around.credential(), "none": None}.get(key_file, key_file)
    _check_agent(table, key_file)
    tls = {field.name: table.get("agent", field.name) for field in fields(AgentTls)}
    tls = {key: None if value == NOTHING.get(key) else value for key, value in tls.items()}
    state = table.get("agent", "state_directory")
    state = {"auto": around.state_directory(), "none": None}.get(state, state)
    tls = with_kept_files(tls, state, table.get("agent", "serial"), around.host_name)
    check_headers(table)
    proxy = agent_proxy(table, around.environ)
    credentials = table.get("agent", "proxy_credentials")
    serial, missing = _identity(table, around, check_agent_tls(table, AgentTls(**tls)))
    if table.errors or missing:
        raise SettingsError(table.errors) if table.errors else MissingSettings(missing)
    names = (
        "servers",
        "local",
        "legacy",
        "emo",
        "server_port",
        "modern",
        "data_sockets",
        "proxy_protocol",
        "log_format",
        "log_level",
    )
    return AgentSettings(
        **{name: table.get("agent", name) for name in names},
        **tls,
        serial=serial,
        state_directory=state,
        renew_before=table.get("agent", "renew_before"),
        key_file=key_file,
        proxy=proxy,
        proxy_credentials=None if credentials == "none" else credentials,
        limits=part_of(table, AgentLimits),
        emo_limits=part_of(table, EmoLimits),
        relay=part_of(table, RelayLimits),
        link=part_of(table, LinkLimits),
        files=tuple(table.files),
    )


def _identity(table: Table, around: Surroundings, certified: str) -> tuple[str, list[str]]:
    """The serial, and what is missing; ``certified`` is the one of the certificate, or ``""``."""
    missing = []
    if not table.get("agent", "servers"):
        missing.append("no server: --server HOST:PORT wanted, or servers in [agent]")
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
    if key_file is not None and (fault := private_file_fault(key_file)):
        table.complain("agent", "key_file", f"{key_file}: {fault}")


# ---- what a reload changes


def changes(
    old: ServerSettings | AgentSettings, new: ServerSettings | AgentSettings
) -> tuple[list[str], list[str]]:
    """Names of settings that differ, as ``differences`` says them."""
    return differences(_flat(old), _flat(new))


def _flat(settings: ServerSettings | AgentSettings) -> Iterator[tuple[Name, Any]]:
    """Every setting with its name."""
    parts: dict[type, Any] = {LinkLimits: settings.link, type(settings.limits): settings.limits}
    parts[RelayLimits] = settings.relay
    role = "agent"
    if isinstance(settings, ServerSettings):
        role, parts[EnrolmentLimits] = "server", settings.authority.limits
        parts[DataLimits], parts[EmoLimits] = settings.data, settings.emo
        parts[PenaltyLimits] = settings.penalties
    else:
        parts[EmoLimits] = settings.emo_limits
    for section in SECTIONS:
        if section.reader in (role, "both") and not section.named:
            owner = getattr(settings, section.name) if section.name in ("admin", "authority") else settings
            for key in section.keys:
                yield (section.name, key.name), getattr(parts[key.part] if key.part else owner, key.name)
    if isinstance(settings, ServerSettings):
        for label, each in _doors_and_pools(settings):
            for field in fields(each):
                if field.name != "name":
                    yield (label, field.name), getattr(each, field.name)
        for entry in settings.reservations:
            yield ("reservations", f"{entry.serial}/{entry.target}"), entry.port
        yield ("cccp", "enabled"), settings.cccp is not None
        if settings.cccp is not None:
            yield from cccp_flat(settings.cccp)


def _doors_and_pools(
    settings: ServerSettings,
) -> Iterator[tuple[str, ListenerSettings | PoolSettings | DeviceSettings]]:
    for listener in settings.listeners:
        yield f"listener {listener.name}", listener
    for pool in settings.pools:
        yield f"pool {pool.name}", pool
    for device in settings.devices:
        yield f"device {device.name}", device
