"""The devices of legacy listeners: who comes from where, with which services, and what settings may not say.

Rule of this file: a listener has one device, its ``serial``, or those of [legacy-device SERIAL] that name it;
whoever asks needs not know which. Nothing is bound or changed here.

Source: wire/readyagent.md sections 3 and 5.6; ours.
"""

from collections.abc import Iterator
from typing import NamedTuple

from revtunnel.daemons.server_settings import ListenerSettings, PortMapping, ServerSettings
from revtunnel.fleet.pools import Use
from revtunnel.ground.networks import Network, NetworkTable
from revtunnel.ground.targets import Offer, twice
from revtunnel.process.wake_settings import ONE_WANTED
from revtunnel.settings.inifile import Table

__all__ = [
    "LegacyDevice",
    "check_legacy",
    "fixed_ports",
    "legacy_devices",
    "offers_at",
    "sources_at",
]


class LegacyDevice(NamedTuple):
    """One device that cannot name itself."""

    serial: str
    listener: ListenerSettings
    mappings: tuple[PortMapping, ...]
    label: str  # the section where it stands
    source: tuple[Network, ...] = ()


def legacy_devices(settings: ServerSettings) -> Iterator[LegacyDevice]:
    """All of them."""
    return (device for listener in settings.listeners for device in devices_at(settings, listener))


def devices_at(settings: ServerSettings, listener: ListenerSettings) -> Iterator[LegacyDevice]:
    """Those of one listener; none, where it is of another kind."""
    if listener.kind != "legacy":
        return
    if listener.serial is not None:
        yield LegacyDevice(listener.serial, listener, listener.mappings, f"listener {listener.name}")
        return
    for each in settings.legacy_devices:
        if each.listener == listener.name:
            mappings = each.mappings or listener.mappings
            yield LegacyDevice(each.name, listener, mappings, f"legacy-device {each.name}", each.source)


def sources_at(settings: ServerSettings, listener: ListenerSettings) -> NetworkTable[str]:
    """Serials of a listener by where they come from."""
    here = devices_at(settings, listener)
    return NetworkTable((network, each.serial) for each in here for network in each.source)


def offers_at(settings: ServerSettings, listener: ListenerSettings) -> dict[str, tuple[Offer, ...]]:
    """What the devices of a listener are asked to dial, by serial."""
    here = devices_at(settings, listener)
    return {each.serial: tuple(mapping.offer for mapping in each.mappings) for each in here}


def fixed_ports(settings: ServerSettings) -> Iterator[tuple[LegacyDevice, PortMapping, Use]]:
    """Every client port that a mapping names."""
    for each in legacy_devices(settings):
        for mapping in each.mappings:
            if mapping.client_port:
                yield each, mapping, Use(each.serial, mapping.offer.name)


# -- what settings may not say


def check_legacy(table: Table, settings: ServerSettings) -> None:
    """Every listener of this kind knows its devices, and every device has services and a place."""
    for listener in settings.listeners:
        if listener.kind == "legacy":
            _check_listener(table, settings, listener)
    kinds = {each.name: each for each in settings.listeners}
    networks: dict[tuple[str, Network], str] = {}
    for each in settings.legacy_devices:
        label = f"legacy-device {each.name}"
        shared = kinds.get(each.listener or "")
        if shared is None or shared.kind != "legacy" or shared.serial is not None:
            wanted = "the NAME of a listener with kind = legacy and without a serial wanted"
            table.complain(label, "listener", f"{each.listener or 'missing'}: {wanted}")
            continue
        if not each.source and not shared.certified and table.sound(label, "source"):
            table.complain(label, "source", "missing: nothing else tells it from others")
        _check_mappings(table, label, each.mappings)
        if not each.mappings and not shared.mappings and table.sound(label, "mappings"):
            table.complain(label, "mappings", f"missing, here and in [listener {shared.name}]")
        for network in each.source:
            owner = networks.setdefault((shared.name, network), each.name)
            if owner != each.name:
                table.complain(label, "source", f"{network} is that of {owner} already")


def _check_listener(table: Table, settings: ServerSettings, listener: ListenerSettings) -> None:
    label = f"listener {listener.name}"
    if listener.keys == "required":
        table.complain(label, "keys", "a legacy device has no key, keys = enrolled wanted")
    _check_mappings(table, label, listener.mappings)
    if listener.wake_command and listener.wake_url:
        table.complain(label, "wake_url", ONE_WANTED)
    if listener.serial is not None:
        if not listener.mappings:
            table.complain(label, "mappings", "missing: CLIENTPORT -> HOST:PORT wanted")
        return
    if not any(each.listener == listener.name for each in settings.legacy_devices):
        wanted = f"serial = SERIAL, or [legacy-device SERIAL] with listener = {listener.name}, wanted"
        table.complain(label, "serial", f"missing: a legacy device cannot name itself, {wanted}")
    elif fixed := next((each for each in listener.mappings if each.client_port), None):
        text = f"port {fixed.client_port} cannot be that of several devices"
        table.complain(label, "mappings", f"{text}, 0 wanted, or mappings in [legacy-device SERIAL]")


def _check_mappings(table: Table, label: str, mappings: tuple[PortMapping, ...]) -> None:
    if double := twice([mapping.offer.name for mapping in mappings]):
        wanted = "CLIENTPORT -> NAME=HOST:PORT wanted"
        table.complain(label, "mappings", f"two targets are named {double}, {wanted}")
