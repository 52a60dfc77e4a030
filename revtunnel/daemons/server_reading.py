"""From ini files and the command line to the settings of a server; every fault is found before sockets open.

Rule of this file: all errors at once, each as ``FILE:LINE: [section] key: what is wrong, what is wanted``;
nothing here opens a socket or writes a file, and all of it may run in a thread.

Source: twisted.md section 7; faults.md C5, C6, "Bind defaults"; ours for the rest.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from revtunnel.daemons.schema import load
from revtunnel.daemons.server_checks import check_clients, check_cluster, check_listeners, check_ports
from revtunnel.daemons.server_settings import (
    LegacyDeviceSettings,
    ListenerSettings,
    PoolSettings,
    Reservation,
    ServerSettings,
)
from revtunnel.daemons.webhook_settings import webhook_settings
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords, DeviceSettings
from revtunnel.ground.declared import keys_of
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import is_label
from revtunnel.settings.admin_people import read_admin
from revtunnel.settings.inifile import Surroundings, Table
from revtunnel.systems.cccp.cccp_reading import cccp_part
from revtunnel.systems.emo.emo import LEAST_PORT
from revtunnel.systems.sessions.session_settings import web_settings
from revtunnel.trust.audit_settings import audit_settings
from revtunnel.trust.authority_settings import authority_settings
from revtunnel.trust.oidc_settings import oidc_settings

__all__ = ["load_server", "read_server", "records_of"]

FIRST_COME = 1000  # ports of one listener that nobody has by name


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
        oidc=oidc_settings(table),
        webhooks=webhook_settings(table),
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
            if not is_label(target):
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
